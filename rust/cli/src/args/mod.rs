//! The command line.

mod bench;
mod config;
mod demo;
mod directory;
mod doctor;
mod exit_status;
mod generate;
mod get;
mod list;
mod listen;
#[cfg(feature = "directory")]
mod peers;
mod put;
mod ring;
mod serve;
mod stat;
mod style;
mod values;

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use bench::BenchArgs;
use config::ConfigArgs;
use demo::DemoArgs;
use doctor::DoctorArgs;
use generate::{CompletionsArgs, ManArgs};
use get::GetArgs;
use list::ListArgs;
#[cfg(feature = "directory")]
use peers::PeersArgs;
use put::PutArgs;
use serve::ServeArgs;
use stat::StatArgs;

/// Moves files and measures transfers with the flagcx-p2p engine: one-sided READ and WRITE between two processes.
#[derive(Debug, Parser)]
#[command(
    name = "flagcx-p2p",
    version,
    after_help = "The engine is configured by FLAGCX_* variables; `flagcx-p2p config` shows them.\n\
    Sizes: K, M, G and T are powers of 1024, with or without `iB` or `B`: 64K, 1.5G."
)]
pub(crate) struct Cli {
    /// Log more (-v information, -vv everything), to stderr or FLAGCX_DEBUG_FILE
    ///
    /// FLAGCX_DEBUG_SUBSYS narrows it. Without -v, RUST_LOG decides, or else FLAGCX_DEBUG and FLAGCX_DEBUG_SUBSYS.
    // Behind the options of the command itself.
    #[arg(short, long, global = true, action = clap::ArgAction::Count, display_order = 1000)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Offer the files of a directory and of its folders, and take new ones
    ///
    /// There is no authentication unless FLAGCX_P2P_AUTH_KEY_FILE names a key: every client that reaches the port may list, read, add and, with --force, replace files.
    /// At most --max-clients clients are served at a time; further ones are refused with the reason. One that has not opened its session, and proven the key if there is one, within 2 s is dropped, and does not count among them.
    ///
    /// With --name clients find it by that name: `put FILE NAME:`. A name in use is refused, unless the server that holds it is gone. While the directory is out of reach clients that know the address go on, and the name stays for the time of its lease.
    ///
    /// What an interrupted put has left is kept for 24 hours (.flagcx-p2p-*.partial, never listed), or until the file is put again.
    ///
    /// SIGTERM, SIGINT and SIGHUP end it, unless they were ignored when it started: new clients are refused, and running requests may finish within --drain-limit; then the status is 0. A second signal ends it at once, with status 128 + its number.
    Serve(ServeArgs),
    /// Store files and folders on a server
    ///
    /// A folder is stored under its name with all files in it. Links in it and special files are skipped, with a remark; empty folders are not transferred. The time of the last modification and the permission to execute are kept.
    /// A file that fails does not stop the others; the status is then 1.
    Put(PutArgs),
    /// Fetch files and folders from a server
    ///
    /// A file that fails does not stop the others; the status is then 1. To standard output the bytes go as they arrive, before their hash is known: the status says whether they were right.
    Get(GetArgs),
    /// List the files of a server: size, time of the last modification (UTC), name
    Ls(ListArgs),
    /// List the peers that have published a name: programs that call the engine, and servers with a --name
    ///
    /// The directory is that of --directory, or of FLAGCX_P2P_DIRECTORY. A peer that has died vanishes with its lease, after 10 s by default.
    #[cfg(feature = "directory")]
    Peers(PeersArgs),
    /// Show how fast the engine moves memory on this machine, and real files to a second process and back
    Demo(DemoArgs),
    /// Measure transfers between two processes, over every path that works here
    ///
    /// Without a word of its own it is `bench local`. Pieces of a transfer lie at random places of a large pool, and every byte is
    /// verified outside the clock. Where perftest or ucx_perftest has the same option, it has the same letter.
    ///
    /// Corrupted bytes are a failure, with status 1. Ctrl-C keeps the rows so far, in the files too; the status is then 130.
    Bench(Box<BenchArgs>),
    /// Show what the engines of a running process do: peers, lanes, rates, latencies, what is in flight
    ///
    /// The process answers on the address of its FLAGCX_P2P_METRICS. The table is renewed in place until Ctrl-C; where standard output is no terminal, tables follow each other.
    Stat(StatArgs),
    /// Report what the engine finds here, or at a peer, and what to do about it
    ///
    /// One finding a line: `ok`, `warn` or `fail`, what was looked at, what was found, what to do. The status is 1 if any is `fail`.
    Doctor(DoctorArgs),
    /// Show every variable: value, origin, default, range, meaning
    Config(ConfigArgs),
    /// Print the completions for a shell
    Completions(CompletionsArgs),
    /// Write the manual pages of all commands
    Man(ManArgs),
}

impl Cli {
    /// Reads the arguments of the process. `Err` is also the answer to `--help` and `--version`.
    pub(crate) fn read(arguments: Vec<OsString>) -> Result<Self, clap::Error> {
        let mut command = command();
        let matches = command.try_get_matches_from_mut(arguments)?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }
}

impl Command {
    /// Whether it runs until it is told to end.
    pub(crate) fn serves(&self) -> bool {
        match self {
            Self::Serve(_) => true,
            Self::Bench(args) => args.serves(),
            _ => false,
        }
    }
}

/// The whole command line, as it is parsed, completed and described.
pub(crate) fn command() -> clap::Command {
    exit_status::described(Cli::command())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[cfg(feature = "directory")]
    #[test]
    fn no_command_line_and_no_option_shows_the_password_of_its_directory() {
        let lines = ["serve . --name a", "put FILE a:", "get a:FILE", "ls a:", "peers", "doctor a:"];
        for line in lines {
            let url = "etcd://root:hunter2@h/p";
            let words = ["flagcx-p2p"].into_iter().chain(line.split(' ')).chain(["--directory", url]);
            let cli = Cli::try_parse_from(words).unwrap();
            let shown = format!("{cli:?}");
            assert!(!shown.contains("hunter2") && !shown.contains("root"), "{line}: {shown}");
            let shown = match cli.command {
                Command::Serve(args) => format!("{:?}", crate::server::ServeOptions::from(args)),
                Command::Put(args) => format!("{:?}", crate::client::PutOptions::from(args)),
                Command::Get(args) => format!("{:?}", crate::client::GetOptions::from(args)),
                Command::Ls(args) => format!("{:?}", crate::client::ListOptions::from(args)),
                Command::Peers(args) => format!("{:?}", crate::names::PeersOptions::from(args)),
                Command::Doctor(args) => format!("{:?}", crate::doctor::DoctorOptions::from(args)),
                other => panic!("{other:?}"),
            };
            assert!(shown.contains("Hidden") && !shown.contains("hunter2"), "{line}: {shown}");
        }
    }

    #[test]
    fn serve_binds_to_loopback_by_default() {
        let cli = Cli::try_parse_from(["flagcx-p2p", "serve", "."]).unwrap();
        let Command::Serve(args) = cli.command else { panic!("not serve") };
        assert!(crate::server::ServeOptions::from(args).listen.ip.is_loopback());
    }
}

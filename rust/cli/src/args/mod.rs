//! The command line.

mod bench;
mod demo;
mod get;
mod put;
mod ring;
mod serve;
mod stat;
mod values;

use clap::{Parser, Subcommand};

use bench::BenchArgs;
use demo::DemoArgs;
use get::GetArgs;
use put::PutArgs;
use serve::ServeArgs;
use stat::StatArgs;

/// Moves files and measures transfers with the flagcx-p2p engine: one-sided READ and WRITE between two processes.
#[derive(Debug, Parser)]
#[command(
    name = "flagcx-p2p",
    version,
    after_help = "The engine is configured by FLAGCX_* variables; `flagcx-p2p doctor` shows them.\n\
    Exit status: 0 done, 1 failed (also when the results cannot be printed), 2 wrong usage."
)]
pub(crate) struct Cli {
    /// Log more to stderr (-v information, -vv everything). Else RUST_LOG or FLAGCX_DEBUG and FLAGCX_DEBUG_SUBSYS decide
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Offer the files of a directory, and take new ones
    ///
    /// There is no authentication unless FLAGCX_P2P_AUTH_KEY_FILE names a key: every client that reaches the port may read and add files.
    /// At most 16 clients are served at a time; further ones are refused with the reason. One that has not opened its session, and proven the key if there is one, within 2 s is dropped, and does not count among them.
    ///
    /// SIGTERM, SIGINT and SIGHUP end it, unless they were ignored when it started: new clients are refused, and running requests may finish within --drain-limit; then the status is 0. A second signal ends it at once, with status 128 + its number.
    Serve(ServeArgs),
    /// Store a file on a server
    Put(PutArgs),
    /// Fetch a file from a server
    Get(GetArgs),
    /// Show the whole path on this machine: real files put to a second process and fetched back
    Demo(DemoArgs),
    /// Measure transfers between two processes
    Bench(BenchArgs),
    /// Show what the engines of a running process do: peers, lanes, rates, latencies, what is in flight
    ///
    /// The process answers on the address of its FLAGCX_P2P_METRICS. The table is renewed in place until Ctrl-C; where standard output is no terminal, tables follow each other.
    Stat(StatArgs),
    /// Report what the engine finds here: devices, limits, settings, and what would fail
    Doctor,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_binds_to_loopback_by_default() {
        let cli = Cli::try_parse_from(["flagcx-p2p", "serve", "."]).unwrap();
        let Command::Serve(args) = cli.command else { panic!("not serve") };
        assert!(crate::server::ServeOptions::from(args).listen.is_loopback());
    }
}

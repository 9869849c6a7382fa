//! The operator's tool of flagcx-p2p: moves files, measures, and says what is wrong with a machine or a peer.
//!
//! A library, because two programs are this tool: the executable `flagcx-p2p`, and the command of the same
//! name that the Python package installs.
#![forbid(unsafe_code)]

mod args;
mod bench;
mod client;
mod demo;
mod dial;
mod doctor;
mod error;
mod framing;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod generate;
mod interrupt;
mod listener;
mod logging;
mod names;
mod output;
mod pipeline;
mod process;
mod ring;
mod server;
mod settings;
mod signals;
mod stat;
mod store;
mod variables;
mod wire;

use std::ffi::OsString;
use std::io::Write;
use std::sync::Once;

use args::{Cli, Command};
use bench::BenchOptions;

/// Runs the tool and answers its exit status, as `--help` lists them. Once in a process, and from its main thread: it prints,
/// and handles signals.
///
/// `arguments` are those of the command line, the program's name first. `itself` is the command, without arguments of the tool, that
/// starts it in another process: `demo` and `bench local` need one.
pub fn run(arguments: Vec<OsString>, itself: Vec<OsString>) -> u8 {
    process::start_again_by(itself);
    let cli = match Cli::read(arguments) {
        Ok(cli) => cli,
        Err(message) => return explain(&message),
    };
    logging::start(cli.verbose, !cli.command.serves());
    let done = match cli.command {
        Command::Serve(args) => server::serve(&args.into()),
        Command::Put(args) => client::put(&args.into()),
        Command::Get(args) => client::get(&args.into()),
        Command::Ls(args) => client::list(&args.into()),
        #[cfg(feature = "directory")]
        Command::Peers(args) => names::peers(&args.into()),
        Command::Demo(args) => demo::run(&args.into()),
        Command::Bench(args) => BenchOptions::try_from(*args)
            .map_err(error::CliError::usage)
            .and_then(|options| bench::run(&options)),
        Command::Stat(args) => stat::run(&args.into()),
        Command::Doctor(args) => doctor::run(&args.into()),
        Command::Config(args) => variables::run(&args.into()),
        Command::Completions(args) => generate::completions(args.shell),
        Command::Man(args) => generate::man(&args.directory),
    };
    ended(done.and_then(|()| output::check()))
}

/// Starts the log as the variables of FlagCX say, for a program that uses the engine without this tool. Later calls do nothing,
/// and a subscriber that the program has set stays.
pub fn start_logging() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| logging::start(0, false));
}

/// Prints clap's message: help and version on stdout, wrong usage on stderr.
fn explain(message: &clap::Error) -> u8 {
    let printed = message.print().and_then(|()| std::io::stdout().flush());
    if message.use_stderr() {
        return 2;
    }
    output::printed(printed);
    ended(output::check())
}

fn ended(done: error::Result<()>) -> u8 {
    match done {
        Ok(()) => 0,
        Err(error) => {
            output::remark(&format!("flagcx-p2p: {error}"));
            error.exit_code()
        }
    }
}

//! The operator's tool of flagcx-p2p: moves files, measures, and says what is wrong with a machine or a peer.
#![forbid(unsafe_code)]

mod args;
mod bench;
mod client;
mod demo;
mod dial;
mod doctor;
mod error;
mod framing;
mod generate;
mod interrupt;
mod listener;
mod logging;
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

use std::io::Write;
use std::process::ExitCode;

use args::{Cli, Command};
use bench::BenchOptions;

fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(message) => return explain(&message),
    };
    logging::start(cli.verbose, !cli.command.serves());
    let done = match cli.command {
        Command::Serve(args) => server::serve(&args.into()),
        Command::Put(args) => client::put(&args.into()),
        Command::Get(args) => client::get(&args.into()),
        Command::Ls(args) => client::list(&args.into()),
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

/// Prints clap's message: help and version on stdout, wrong usage on stderr.
fn explain(message: &clap::Error) -> ExitCode {
    let printed = message.print().and_then(|()| std::io::stdout().flush());
    if message.use_stderr() {
        return ExitCode::from(2);
    }
    output::printed(printed);
    ended(output::check())
}

fn ended(done: error::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::remark(&format!("flagcx-p2p: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

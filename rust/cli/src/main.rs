//! The operator's tool of flagcx-p2p: serve, put, get, demo, bench, stat, doctor.
#![forbid(unsafe_code)]

mod args;
mod bench;
mod client;
mod demo;
mod doctor;
mod error;
mod output;
mod pipeline;
mod process;
mod ring;
mod server;
mod settings;
mod stat;
mod store;
mod wire;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(message) => return explain(&message),
    };
    settings::start_logging(cli.verbose, !matches!(cli.command, Command::Serve(_)));
    let done = match cli.command {
        Command::Serve(args) => server::serve(&args.into()),
        Command::Put(args) => client::put(&args.into()),
        Command::Get(args) => client::get(&args.into()),
        Command::Demo(args) => demo::run(&args.into()),
        Command::Bench(args) => bench::run(&args.into()),
        Command::Stat(args) => stat::run(&args.into()),
        Command::Doctor => doctor::run(),
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

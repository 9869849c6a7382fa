//! Arguments of `get`.

use std::path::PathBuf;

use clap::Args;

use crate::client::GetOptions;

use super::ring::RingArgs;
use super::values::parse_server;

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Name of the file on the server
    name: String,
    /// Server
    #[arg(value_name = "HOST:PORT", value_parser = parse_server)]
    server: String,
    /// Where to store it, instead of under its name here
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace a file of that name
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    ring: RingArgs,
}

impl From<GetArgs> for GetOptions {
    fn from(args: GetArgs) -> Self {
        let GetArgs { name, server, output, force, ring } = args;
        Self { name, server, output, force, shape: ring.into() }
    }
}

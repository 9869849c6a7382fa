//! Arguments of `put`.

use std::path::PathBuf;

use clap::Args;

use crate::client::PutOptions;

use super::ring::RingArgs;
use super::values::parse_server;

#[derive(Debug, Args)]
pub(crate) struct PutArgs {
    /// File to send
    file: PathBuf,
    /// Server
    #[arg(value_name = "HOST:PORT", value_parser = parse_server)]
    server: String,
    /// Name to store it under, instead of its own
    #[arg(long)]
    name: Option<String>,
    /// Replace a file of that name
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    ring: RingArgs,
}

impl From<PutArgs> for PutOptions {
    fn from(args: PutArgs) -> Self {
        let PutArgs { file, server, name, force, ring } = args;
        Self { file, server, name, force, shape: ring.into() }
    }
}

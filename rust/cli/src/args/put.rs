//! Arguments of `put`.

use std::path::PathBuf;

use clap::Args;

use crate::client::PutOptions;

use super::ring::RingArgs;
use super::style::StyleArgs;
use super::values::parse_server;

#[derive(Debug, Args)]
pub(crate) struct PutArgs {
    /// Files and folders to send; `-` is standard input
    #[arg(required = true, value_name = "FILE|FOLDER")]
    sources: Vec<PathBuf>,
    /// Server
    #[arg(value_name = "HOST:PORT", value_parser = parse_server)]
    server: String,
    /// Name to store a single file or folder under, instead of its own; it may be in folders, such as `models/a.bin`
    #[arg(long)]
    name: Option<String>,
    /// Replace files of the same names
    #[arg(long)]
    force: bool,
    /// Send all of every file, also where an interrupted put has left a part of it
    #[arg(long)]
    no_resume: bool,
    #[command(flatten)]
    style: StyleArgs,
    #[command(flatten)]
    ring: RingArgs,
}

impl From<PutArgs> for PutOptions {
    fn from(args: PutArgs) -> Self {
        let PutArgs { sources, server, name, force, no_resume, style, ring } = args;
        let (style, shape) = (style.into(), ring.into());
        Self { sources, server, name, force, resume: !no_resume, style, shape }
    }
}

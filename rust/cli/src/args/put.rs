//! Arguments of `put`.

use std::path::PathBuf;

use clap::Args;

use crate::client::PutOptions;
use crate::names::PeerName;

use super::directory::DirectoryArgs;
use super::ring::RingArgs;
use super::style::StyleArgs;
use super::values::parse_peer;

#[derive(Debug, Args)]
pub(crate) struct PutArgs {
    /// Files and folders to send; `-` is standard input
    #[arg(required = true, value_name = "FILE|FOLDER")]
    sources: Vec<PathBuf>,
    /// Server; by its name with the name to store under, or with a folder to store in: `store:a.bin`, `store:models/`
    #[arg(value_name = "HOST:PORT|NAME:[PATH]", value_parser = parse_peer)]
    server: PeerName,
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
    #[command(flatten)]
    directory: DirectoryArgs,
}

impl From<PutArgs> for PutOptions {
    fn from(args: PutArgs) -> Self {
        let PutArgs { sources, server, name, force, no_resume, style, ring, directory } = args;
        let (style, shape) = (style.into(), ring.into());
        let server = directory.peer(server);
        Self { sources, server, name, force, resume: !no_resume, style, shape }
    }
}

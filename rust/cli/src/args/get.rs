//! Arguments of `get`.

use std::path::PathBuf;

use clap::Args;

use crate::client::GetOptions;
use crate::names::PeerName;

use super::directory::DirectoryArgs;
use super::ring::RingArgs;
use super::style::StyleArgs;
use super::values::parse_peer;

#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
pub(crate) struct GetArgs {
    /// Names of files and folders on the server; `.` is everything
    #[arg(value_name = "FILE|FOLDER", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    names: Vec<String>,
    /// Server; by its name also with the only file or folder that is wanted: `store:models/a.bin`
    #[arg(required = true, value_name = "HOST:PORT|NAME:[PATH]", value_parser = parse_peer)]
    server: PeerName,
    /// Where to store them, instead of here: a file for a single file, else a folder; `-` is standard output
    #[arg(short, long, value_name = "FILE|FOLDER")]
    output: Option<PathBuf>,
    /// Replace files of the same names
    #[arg(long)]
    force: bool,
    /// Fetch all of every file, also where an interrupted get has left a part of it
    #[arg(long)]
    no_resume: bool,
    #[command(flatten)]
    style: StyleArgs,
    #[command(flatten)]
    ring: RingArgs,
    #[command(flatten)]
    directory: DirectoryArgs,
}

impl From<GetArgs> for GetOptions {
    fn from(args: GetArgs) -> Self {
        let GetArgs { names, server, output, force, no_resume, style, ring, directory } = args;
        let (style, shape) = (style.into(), ring.into());
        let server = directory.peer(server);
        Self { names, server, output, force, resume: !no_resume, style, shape }
    }
}

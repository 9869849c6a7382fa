//! Arguments of `get`.

use std::path::PathBuf;

use clap::Args;

use crate::client::GetOptions;

use super::ring::RingArgs;
use super::style::StyleArgs;
use super::values::parse_server;

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Names of files and folders on the server; `.` is everything
    #[arg(required = true, value_name = "NAME|FOLDER", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    names: Vec<String>,
    /// Server
    #[arg(value_name = "HOST:PORT", value_parser = parse_server)]
    server: String,
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
}

impl From<GetArgs> for GetOptions {
    fn from(args: GetArgs) -> Self {
        let GetArgs { names, server, output, force, no_resume, style, ring } = args;
        let (style, shape) = (style.into(), ring.into());
        Self { names, server, output, force, resume: !no_resume, style, shape }
    }
}

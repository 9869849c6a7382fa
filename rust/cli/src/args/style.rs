//! Arguments about what is printed of files that were moved.

use clap::Args;

use crate::client::Style;

#[derive(Debug, Args)]
pub(super) struct StyleArgs {
    /// Print a line of JSON for each file, and one for all: files, bytes, seconds, gigabytes_per_second, failed, skipped, path
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Print failures only
    #[arg(short, long)]
    quiet: bool,
}

impl From<StyleArgs> for Style {
    fn from(args: StyleArgs) -> Self {
        match (args.json, args.quiet) {
            (true, _) => Self::Json,
            (false, true) => Self::Quiet,
            (false, false) => Self::Text,
        }
    }
}

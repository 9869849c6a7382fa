//! Arguments of `peers`.

use clap::Args;

use crate::names::PeersOptions;

use super::directory::DirectoryArgs;

#[derive(Debug, Args)]
pub(crate) struct PeersArgs {
    /// Only names that begin so, such as `tenant-a/`
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
    /// Print every change, first the present names, until Ctrl-C: `+ NAME  ADDRESS  KIND` and `- NAME`
    #[arg(long)]
    watch: bool,
    /// Print a JSON list of {name, address, kind, engine_id, version, host, pid, since}; with --watch a line for each change
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    directory: DirectoryArgs,
}

impl From<PeersArgs> for PeersOptions {
    fn from(args: PeersArgs) -> Self {
        let PeersArgs { prefix, watch, json, directory } = args;
        Self { prefix, watch, json, directory: directory.url() }
    }
}

//! Arguments of `ls`.

use clap::Args;

use crate::client::ListOptions;
use crate::names::PeerName;

use super::directory::DirectoryArgs;
use super::values::parse_peer;

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Server; by its name also with the prefix: `store:models/`
    #[arg(value_name = "HOST:PORT|NAME:[PREFIX]", value_parser = parse_peer)]
    server: PeerName,
    /// Only files with names that begin so, such as `models/`
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
    /// Print a line of JSON for each file
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    directory: DirectoryArgs,
}

impl From<ListArgs> for ListOptions {
    fn from(args: ListArgs) -> Self {
        let ListArgs { server, prefix, json, directory } = args;
        let server = directory.peer(server);
        Self { server, prefix, json }
    }
}

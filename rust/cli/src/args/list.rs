//! Arguments of `ls`.

use clap::Args;

use crate::client::ListOptions;

use super::values::parse_server;

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Server
    #[arg(value_name = "HOST:PORT", value_parser = parse_server)]
    server: String,
    /// Only files with names that begin so, such as `models/`
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
    /// Print a line of JSON for each file
    #[arg(long)]
    json: bool,
}

impl From<ListArgs> for ListOptions {
    fn from(args: ListArgs) -> Self {
        let ListArgs { server, prefix, json } = args;
        Self { server, prefix, json }
    }
}

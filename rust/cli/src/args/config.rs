//! Arguments of `config`.

use clap::Args;

use crate::variables::ConfigOptions;

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// Variables to show, with all that is known of them; by default every one
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Print a JSON list of {name, value, origin, default, range, unit, meaning, ..}
    #[arg(long)]
    json: bool,
}

impl From<ConfigArgs> for ConfigOptions {
    fn from(args: ConfigArgs) -> Self {
        let ConfigArgs { names, json } = args;
        Self { names, json }
    }
}

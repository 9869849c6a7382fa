//! Arguments of `bench`.

use clap::Args;

use crate::bench::BenchOptions;

use super::values::parse_server;

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// A running `flagcx-p2p serve`; by default a second process is started here
    #[arg(value_name = "HOST:PORT", value_parser = parse_server)]
    server: Option<String>,
    /// Both ends in this process
    #[arg(long, conflicts_with = "server")]
    in_process: bool,
    /// What to measure, such as `64x4K`: pieces per transfer and bytes per piece
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "BATCHxSIZE",
        default_value = "1x4K,64x4K,64x64K,1x1M,16x1M,1x32M"
    )]
    cases: Vec<crate::bench::Case>,
    /// Transfers in flight at the same time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    depth: u16,
    /// Seconds per measurement, 0.01 to 600
    #[arg(long, default_value = "1", value_parser = parse_seconds, value_name = "S")]
    seconds: f64,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

impl From<BenchArgs> for BenchOptions {
    fn from(args: BenchArgs) -> Self {
        let BenchArgs { server, in_process, cases, depth, seconds, json } = args;
        Self { server, in_process, cases, depth: usize::from(depth), seconds, json }
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: Option<f64> = text.parse().ok().filter(|seconds| (0.01..=600.0).contains(seconds));
    seconds.ok_or_else(|| format!("`{text}` is not a number of seconds within 0.01 to 600"))
}

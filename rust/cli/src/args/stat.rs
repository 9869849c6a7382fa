//! Arguments of `stat`.

use std::time::Duration;

use clap::Args;

use crate::stat::{StatOptions, Target};

#[derive(Debug, Args)]
pub(crate) struct StatArgs {
    /// Where the process answers: the HOST:PORT or unix:PATH of its FLAGCX_P2P_METRICS, or its PID on this host
    #[arg(value_name = "HOST:PORT|unix:PATH|PID", value_parser = Target::parse)]
    target: Target,
    /// Seconds between two tables, 0.05 to 3600; rates are those in between [default: 1, with --once 0.25]
    #[arg(long, value_name = "S", value_parser = parse_interval)]
    interval: Option<f64>,
    /// Print one table and end
    #[arg(long, conflicts_with = "count")]
    once: bool,
    /// Print so many tables and end
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print a line of JSON instead of each table
    #[arg(long)]
    json: bool,
}

impl From<StatArgs> for StatOptions {
    fn from(args: StatArgs) -> Self {
        let StatArgs { target, interval, once, count, json } = args;
        let interval = interval.unwrap_or(if once { 0.25 } else { 1.0 });
        let count = if once { Some(1) } else { count };
        Self { target, interval: Duration::from_secs_f64(interval), count, json }
    }
}

fn parse_interval(text: &str) -> Result<f64, String> {
    let seconds: Option<f64> = text.parse().ok().filter(|seconds| (0.05..=3600.0).contains(seconds));
    seconds.ok_or_else(|| format!("`{text}` is not a number of seconds within 0.05 to 3600"))
}

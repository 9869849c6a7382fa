//! Arguments of `demo`.

use std::path::PathBuf;

use clap::Args;

use crate::demo::DemoOptions;

use super::ring::RingArgs;
use super::values::size_within;

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How many bytes of files to move, at least 1M; the default is 2G, or what a slower disk moves within a minute
    #[arg(long, value_parser = parse_demo_size, value_name = "SIZE")]
    size: Option<u64>,
    /// Directory of the files to move; the default is the Rust toolchain, else /usr/lib
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Where to keep the files meanwhile; the default is the system's temporary directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    ring: RingArgs,
}

impl From<DemoArgs> for DemoOptions {
    fn from(args: DemoArgs) -> Self {
        let DemoArgs { size, from, dir, ring } = args;
        Self { size, from, dir, shape: ring.into() }
    }
}

fn parse_demo_size(text: &str) -> Result<u64, String> {
    size_within(text, 1 << 20, 1 << 50)
}

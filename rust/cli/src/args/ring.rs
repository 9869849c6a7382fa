//! Arguments about the chunks that a file is moved in.

use clap::Args;

use crate::ring::{self, Shape};

use super::values::size_within;

#[derive(Debug, Args)]
pub(super) struct RingArgs {
    /// Bytes per chunk, 4K to 64M
    #[arg(long, default_value = "4M", value_parser = parse_chunk, value_name = "SIZE")]
    chunk: u32,
    /// Chunks in flight at the same time, 1 to 256
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    slots: u16,
}

impl From<RingArgs> for Shape {
    fn from(args: RingArgs) -> Self {
        Self { chunk: args.chunk, slots: args.slots }
    }
}

fn parse_chunk(text: &str) -> Result<u32, String> {
    let size = size_within(text, u64::from(*ring::CHUNK.start()), u64::from(*ring::CHUNK.end()))?;
    u32::try_from(size).map_err(|error| error.to_string())
}

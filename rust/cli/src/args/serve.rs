//! Arguments of `serve`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::ring;
use crate::server::ServeOptions;

use super::directory::PublishArgs;
use super::listen::ListenArgs;
use super::values::size_within;

/// Port of `serve`.
const PORT: u16 = 7733;

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Directory of the files
    directory: PathBuf,
    #[command(flatten)]
    listen: ListenArgs,
    /// TCP port, 0 for any free one
    #[arg(short, long, default_value_t = PORT)]
    port: u16,
    /// Most registered memory per client
    #[arg(long, default_value = "64M", value_parser = parse_ring_limit, value_name = "SIZE")]
    ring_limit: u64,
    /// Seconds without a request, or without progress of one, after which a client is dropped, 1 to 3600
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..=3600), value_name = "S")]
    idle_limit: u16,
    /// Seconds that transfers may go on after a signal to end, 0 to 3600
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(0..=3600), value_name = "S")]
    drain_limit: u16,
    /// Clients served at the same time, 1 to 1024: each takes --ring-limit of memory, and up to 50 descriptors
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024), value_name = "N")]
    max_clients: u16,
    /// Print lines of JSON: for the start of listening, and for each file that was stored or sent
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    publish: PublishArgs,
}

impl From<ServeArgs> for ServeOptions {
    fn from(args: ServeArgs) -> Self {
        let ServeArgs {
            directory,
            listen,
            port,
            ring_limit,
            idle_limit,
            drain_limit,
            max_clients,
            json,
            publish,
        } = args;
        let publish = publish.into();
        let [idle_limit, drain_limit] =
            [idle_limit, drain_limit].map(|seconds| Duration::from_secs(seconds.into()));
        let listen = listen.at(port);
        Self { directory, listen, ring_limit, idle_limit, drain_limit, max_clients, publish, json }
    }
}

fn parse_ring_limit(text: &str) -> Result<u64, String> {
    size_within(text, u64::from(*ring::CHUNK.start()), ring::LARGEST)
}

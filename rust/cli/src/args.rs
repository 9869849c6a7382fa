//! The command line.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use flagcx_p2p::internals::control::{self, HostError};

use crate::bench::BenchOptions;
use crate::client::{GetOptions, PutOptions};
use crate::demo::DemoOptions;
use crate::output::units::{bytes, parse_size};
use crate::ring::{self, Shape};
use crate::server::ServeOptions;

/// Port of `serve`.
const PORT: u16 = 7733;

/// Moves files and measures transfers with the flagcx-p2p engine: one-sided READ and WRITE between two processes.
#[derive(Debug, Parser)]
#[command(
    name = "flagcx-p2p",
    version,
    after_help = "The engine is configured by FLAGCX_* variables; `flagcx-p2p doctor` shows them.\n\
    Exit status: 0 done, 1 failed (also when the results cannot be printed), 2 wrong usage."
)]
pub(crate) struct Cli {
    /// Log more to stderr (-v information, -vv everything). Else RUST_LOG or FLAGCX_DEBUG and FLAGCX_DEBUG_SUBSYS decide
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Offer the files of a directory, and take new ones
    ///
    /// There is no authentication unless FLAGCX_P2P_AUTH_KEY_FILE names a key: every client that reaches the port may read and add files.
    /// At most 16 clients are served at a time; further ones are refused with the reason. One that has not opened its session, and proven the key if there is one, within 2 s is dropped, and does not count among them.
    ///
    /// SIGTERM, SIGINT and SIGHUP end it, unless they were ignored when it started: new clients are refused, and running requests may finish within --drain-limit; then the status is 0. A second signal ends it at once, with status 128 + its number.
    Serve(ServeArgs),
    /// Store a file on a server
    Put(PutArgs),
    /// Fetch a file from a server
    Get(GetArgs),
    /// Show the whole path on this machine: real files put to a second process and fetched back
    Demo(DemoArgs),
    /// Measure transfers between two processes
    Bench(BenchArgs),
    /// Report what the engine finds here: devices, limits, settings, and what would fail
    Doctor,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Directory of the files
    directory: PathBuf,
    /// Address to listen on; the default is this machine only
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), value_name = "IP")]
    listen: IpAddr,
    /// TCP port, 0 for any free one
    #[arg(long, default_value_t = PORT)]
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
    /// End when standard input ends
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RingArgs {
    /// Bytes per chunk, 4K to 64M
    #[arg(long, default_value = "4M", value_parser = parse_chunk, value_name = "SIZE")]
    chunk: u32,
    /// Chunks in flight at the same time, 1 to 256
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    slots: u16,
}

#[derive(Debug, Args)]
pub(crate) struct PutArgs {
    /// File to send
    file: PathBuf,
    /// Server
    #[arg(value_name = "HOST:PORT", value_parser = parse_server)]
    server: String,
    /// Name to store it under, instead of its own
    #[arg(long)]
    name: Option<String>,
    /// Replace a file of that name
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    ring: RingArgs,
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Name of the file on the server
    name: String,
    /// Server
    #[arg(value_name = "HOST:PORT", value_parser = parse_server)]
    server: String,
    /// Where to store it, instead of under its name here
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace a file of that name
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    ring: RingArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How many bytes of files to move, at least 1M
    #[arg(long, default_value = "2G", value_parser = parse_demo_size, value_name = "SIZE")]
    size: u64,
    /// Directory of the files to move; the default is the Rust toolchain, else /usr/lib
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Where to keep the files meanwhile; the default is the system's temporary directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    ring: RingArgs,
}

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

impl From<RingArgs> for Shape {
    fn from(args: RingArgs) -> Self {
        Self { chunk: args.chunk, slots: args.slots }
    }
}

impl From<ServeArgs> for ServeOptions {
    fn from(args: ServeArgs) -> Self {
        let ServeArgs { directory, listen, port, ring_limit, idle_limit, drain_limit, until_stdin_closes } =
            args;
        let [idle_limit, drain_limit] =
            [idle_limit, drain_limit].map(|seconds| Duration::from_secs(seconds.into()));
        Self { directory, listen, port, ring_limit, idle_limit, drain_limit, until_stdin_closes }
    }
}

impl From<PutArgs> for PutOptions {
    fn from(args: PutArgs) -> Self {
        let PutArgs { file, server, name, force, ring } = args;
        Self { file, server, name, force, shape: ring.into() }
    }
}

impl From<GetArgs> for GetOptions {
    fn from(args: GetArgs) -> Self {
        let GetArgs { name, server, output, force, ring } = args;
        Self { name, server, output, force, shape: ring.into() }
    }
}

impl From<DemoArgs> for DemoOptions {
    fn from(args: DemoArgs) -> Self {
        let DemoArgs { size, from, dir, ring } = args;
        Self { size, from, dir, shape: ring.into() }
    }
}

impl From<BenchArgs> for BenchOptions {
    fn from(args: BenchArgs) -> Self {
        let BenchArgs { server, in_process, cases, depth, seconds, json } = args;
        Self { server, in_process, cases, depth: usize::from(depth), seconds, json }
    }
}

/// `host:port` as it was written: the look-up of a name comes later.
fn parse_server(text: &str) -> Result<String, HostError> {
    let (host, port) = control::split_session(text)?;
    control::numeric(host, port)?;
    Ok(text.to_owned())
}

fn parse_chunk(text: &str) -> Result<u32, String> {
    let size = size_within(text, u64::from(*ring::CHUNK.start()), u64::from(*ring::CHUNK.end()))?;
    u32::try_from(size).map_err(|error| error.to_string())
}

fn parse_ring_limit(text: &str) -> Result<u64, String> {
    size_within(text, u64::from(*ring::CHUNK.start()), ring::LARGEST)
}

fn parse_demo_size(text: &str) -> Result<u64, String> {
    size_within(text, 1 << 20, 1 << 50)
}

fn size_within(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let size = parse_size(text)?;
    if (least..=most).contains(&size) {
        Ok(size)
    } else {
        Err(format!("`{text}` is not within {} to {}", bytes(least), bytes(most)))
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: Option<f64> = text.parse().ok().filter(|seconds| (0.01..=600.0).contains(seconds));
    seconds.ok_or_else(|| format!("`{text}` is not a number of seconds within 0.01 to 600"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_binds_to_loopback_by_default() {
        let cli = Cli::try_parse_from(["flagcx-p2p", "serve", "."]).unwrap();
        let Command::Serve(args) = cli.command else { panic!("not serve") };
        assert!(ServeOptions::from(args).listen.is_loopback());
    }
}

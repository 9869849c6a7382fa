//! Arguments of `bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use flagcx_p2p::Opcode;

use crate::bench::{
    BenchOptions, CASES, Case, CompareOptions, Limit, LocalOptions, MAX_BATCH, MAX_CASES, Outputs, Path,
    RunOptions, ServeOptions, Sweep, Workload, parse_piece,
};
use crate::output::units::parse_size;

use super::listen::ListenArgs;
use super::values::parse_server;

/// Port of `bench serve`.
const PORT: u16 = 7734;
/// Seconds of a measurement.
const SECONDS: f64 = 0.2;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: Option<BenchCommand>,
    #[command(flatten)]
    local: LocalArgs,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Offer memory for others to measure with
    ///
    /// There is no authentication unless FLAGCX_P2P_AUTH_KEY_FILE names a key: every client that reaches the port may use memory
    /// up to --pool-limit. 64 clients are served at a time; further ones are refused with the reason.
    ///
    /// SIGTERM, SIGINT and SIGHUP end it at once, with status 128 + their number.
    Serve(ServeArgs),
    /// Measure against a `bench serve`
    ///
    /// Several at the same time, from one machine or many, are many-to-one; --clients does the same from one process.
    Run(RunArgs),
    /// Measure between two processes of this machine; the second one is started
    Local(LocalArgs),
    /// Compare two files of --json row by row
    ///
    /// SLOWER is a row of which every repeat was slower than all repeats before.
    Compare(CompareArgs),
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    listen: ListenArgs,
    /// TCP port, 0 for any free one
    #[arg(short, long, default_value_t = PORT)]
    port: u16,
    /// Most registered memory of all clients together; the default is half of what is available
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    pool_limit: Option<u64>,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// A running `flagcx-p2p bench serve`
    #[arg(value_name = "HOST:PORT", value_parser = parse_server)]
    server: String,
    /// The path to use; both ends must have it
    #[arg(long, value_enum, default_value_t = Path::Auto)]
    path: Path,
    #[command(flatten)]
    workload: WorkloadArgs,
    #[command(flatten)]
    outputs: OutputArgs,
}

#[derive(Debug, Args)]
struct LocalArgs {
    /// Paths to measure, `all`: each that works here, and for each other one the reason; unless FLAGCX_P2P_PATH forces one
    #[arg(long, value_delimiter = ',', value_parser = parse_path, value_name = "PATH,..", default_value = "all")]
    path: Vec<PathChoice>,
    /// Both ends in this process, over whatever path; alone: the path in-process
    #[arg(long)]
    in_process: bool,
    #[command(flatten)]
    workload: WorkloadArgs,
    #[command(flatten)]
    outputs: OutputArgs,
}

#[derive(Debug, Args)]
struct CompareArgs {
    /// The run before
    #[arg(value_name = "A.json")]
    before: PathBuf,
    /// The run after
    #[arg(value_name = "B.json")]
    after: PathBuf,
    /// Fail if a SLOWER row has less than this part of its rate before, such as 0.95
    #[arg(long, value_parser = parse_ratio, value_name = "RATIO")]
    limit: Option<f64>,
}

#[derive(Debug, Args)]
struct OutputArgs {
    /// Write one JSON document of host, settings, limits and rows to a file; `-` is standard output, and the table goes to stderr
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the rows as CSV to a file
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Draw size against GB/s, with the machine's limits, to a file: an SVG or a PNG, by its ending
    #[arg(long, value_name = "FILE.svg|png")]
    plot: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct WorkloadArgs {
    /// Bytes per piece, 1 to 1G
    #[arg(short, long = "sizes", visible_alias = "size", value_delimiter = ',', value_parser = parse_piece, value_name = "SIZE,..", conflicts_with_all = ["cases", "sweep"])]
    sizes: Vec<u32>,
    /// Bytes per piece, from one size to another, doubled each time
    #[arg(long, value_name = "FROM..TO", conflicts_with = "cases")]
    sweep: Option<Sweep>,
    /// Pieces per transfer, for each size
    #[arg(short = 'l', long, visible_alias = "post-list", value_delimiter = ',', default_value = "1", value_name = "N,..", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_BATCH)))]
    batch: Vec<u32>,
    /// Pieces per transfer and bytes per piece together, such as `64x4K`, instead of the two above
    #[arg(long, value_delimiter = ',', value_name = "NxSIZE,..", default_value = CASES, conflicts_with = "batch")]
    cases: Vec<Case>,
    /// What transfers do: one after the other for `both`
    #[arg(long, value_enum, default_value_t = Operations::Both)]
    op: Operations,
    /// Both ends transfer at the same time; a row's GB/s is the sum
    #[arg(short, long)]
    bidirectional: bool,
    /// Pieces side by side, which the engine joins, instead of at random places
    #[arg(long)]
    contiguous: bool,
    /// Transfers in flight per connection
    #[arg(short = 't', long, visible_alias = "tx-depth", default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    depth: u16,
    /// Connections per client
    #[arg(short = 'q', long, visible_alias = "qp", default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    connections: u16,
    /// Threads per client, among which its connections are divided
    #[arg(short = 'T', long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Clients at the same time, each with an engine, a pool and connections of its own: many-to-one
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    clients: u16,
    /// Seconds per measurement, 0.001 to 600
    #[arg(short = 'D', long = "seconds", visible_alias = "duration", default_value_t = SECONDS, value_parser = parse_seconds, value_name = "S")]
    seconds: f64,
    /// Transfers of each thread per measurement, instead of a time
    #[arg(short = 'n', long = "iterations", visible_alias = "iters", value_name = "N", conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(1..))]
    iterations: Option<u64>,
    /// Transfers of each thread before a row that do not count; the default is as many as take 0.05 s
    #[arg(short = 'w', long, visible_alias = "warmup-iters", value_name = "N")]
    warmup: Option<u64>,
    /// Measurements per row, of which the table has the median and half of the range
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    repeats: u16,
    /// Registered memory of each end that pieces are spread over; the default is 256M, less where memory is short, more for larger transfers
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    pool: Option<u64>,
    /// Number that the places of pieces and the pattern follow from; the default is a random one, which is printed
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Do not write a pattern before each row, nor compare it after
    #[arg(long)]
    no_verify: bool,
    /// Do not measure what this machine carries without an engine
    #[arg(long)]
    no_limits: bool,
    /// Change a byte on the way
    #[arg(long, hide = true, conflicts_with = "no_verify")]
    inject_corruption: bool,
}

/// Operations of `--op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Operations {
    Write,
    Read,
    Both,
}

/// A value of `--path`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PathChoice {
    All,
    One(Path),
}

impl BenchArgs {
    /// Whether it runs until it is told to end.
    pub(super) fn serves(&self) -> bool {
        matches!(self.command, Some(BenchCommand::Serve(_)))
    }
}

impl TryFrom<BenchArgs> for BenchOptions {
    type Error = String;

    fn try_from(args: BenchArgs) -> Result<Self, String> {
        Ok(match args.command.unwrap_or(BenchCommand::Local(args.local)) {
            BenchCommand::Serve(ServeArgs { listen, port, pool_limit }) => {
                Self::Serve(ServeOptions { listen: listen.at(port), pool_limit })
            }
            BenchCommand::Run(RunArgs { server, path, workload, outputs }) => Self::Run(RunOptions {
                server,
                path,
                workload: workload.try_into()?,
                outputs: outputs.into(),
            }),
            BenchCommand::Local(LocalArgs { path, in_process, workload, outputs }) => {
                Self::Local(LocalOptions {
                    paths: paths(&path),
                    in_process,
                    workload: workload.try_into()?,
                    outputs: outputs.into(),
                })
            }
            BenchCommand::Compare(CompareArgs { before, after, limit }) => {
                Self::Compare(CompareOptions { before, after, limit })
            }
        })
    }
}

/// Empty for all.
fn paths(choices: &[PathChoice]) -> Vec<Path> {
    let one = |choice: &PathChoice| match choice {
        PathChoice::All => None,
        PathChoice::One(path) => Some(*path),
    };
    choices.iter().map(one).collect::<Option<_>>().unwrap_or_default()
}

impl TryFrom<WorkloadArgs> for Workload {
    type Error = String;

    fn try_from(args: WorkloadArgs) -> Result<Self, String> {
        let sizes = args.sweep.map_or(args.sizes, Sweep::sizes);
        let cases = match (sizes.is_empty(), args.batch.as_slice()) {
            (true, [1]) => args.cases,
            (true, _) => return Err("--batch: the sizes are missing; give --sizes or --sweep".into()),
            (false, batches) => Case::product(&sizes, batches),
        };
        if cases.len() > MAX_CASES {
            return Err(format!("{} sizes and numbers of pieces: at most {MAX_CASES}", cases.len()));
        }
        Ok(Self {
            cases,
            opcodes: match args.op {
                Operations::Write => vec![Opcode::Write],
                Operations::Read => vec![Opcode::Read],
                Operations::Both => vec![Opcode::Write, Opcode::Read],
            },
            bidirectional: args.bidirectional,
            contiguous: args.contiguous,
            depth: args.depth,
            connections: args.connections,
            threads: args.threads,
            clients: args.clients,
            limit: args
                .iterations
                .map_or_else(|| Limit::Time(Duration::from_secs_f64(args.seconds)), Limit::Transfers),
            warm_up: args.warmup,
            repeats: args.repeats,
            pool: args.pool,
            seed: args.seed,
            verify: !args.no_verify,
            limits: !args.no_limits,
            corrupt: args.inject_corruption,
        })
    }
}

impl From<OutputArgs> for Outputs {
    fn from(OutputArgs { json, csv, plot }: OutputArgs) -> Self {
        Self { json, csv, plot }
    }
}

fn parse_path(text: &str) -> Result<PathChoice, String> {
    if text == "all" {
        return Ok(PathChoice::All);
    }
    Path::from_str(text, false).map(PathChoice::One).map_err(|_| {
        format!("`{text}` is no path; expected all, in-process, shared, cross-memory, tcp or verbs")
    })
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: Option<f64> = text.parse().ok().filter(|seconds| (0.001..=600.0).contains(seconds));
    seconds.ok_or_else(|| format!("`{text}` is not a number of seconds within 0.001 to 600"))
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    let ratio: Option<f64> = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| format!("`{text}` is not a ratio within 0 to 1"))
}

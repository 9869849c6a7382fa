//! What a benchmark is asked to do.

use std::path::PathBuf;
use std::time::Duration;

use flagcx_p2p::Opcode;

use super::case::Case;
use super::path::Path;
use crate::listener::ListenOptions;

/// `flagcx-p2p bench ...`.
#[derive(Clone, Debug)]
pub(crate) enum BenchOptions {
    Serve(ServeOptions),
    Run(RunOptions),
    Local(LocalOptions),
    Compare(CompareOptions),
}

/// `bench serve`.
#[derive(Clone, Debug)]
pub(crate) struct ServeOptions {
    pub(crate) listen: ListenOptions,
    /// Most bytes of all pools together; `None` is half of the available memory.
    pub(crate) pool_limit: Option<u64>,
}

/// `bench run`.
#[derive(Clone, Debug)]
pub(crate) struct RunOptions {
    /// `HOST:PORT` of the server.
    pub(crate) server: String,
    pub(crate) path: Path,
    pub(crate) workload: Workload,
    pub(crate) outputs: Outputs,
}

/// `bench local`.
#[derive(Clone, Debug)]
pub(crate) struct LocalOptions {
    /// Empty: all that work here.
    pub(crate) paths: Vec<Path>,
    /// Both ends in this process.
    pub(crate) in_process: bool,
    pub(crate) workload: Workload,
    pub(crate) outputs: Outputs,
}

/// `bench compare`.
#[derive(Clone, Debug)]
pub(crate) struct CompareOptions {
    pub(crate) before: PathBuf,
    pub(crate) after: PathBuf,
    /// The ratio below which a regression beyond the spread is a failure.
    pub(crate) limit: Option<f64>,
}

/// What is measured.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) cases: Vec<Case>,
    /// One after the other.
    pub(crate) opcodes: Vec<Opcode>,
    /// The server transfers at the same time, towards the client.
    pub(crate) bidirectional: bool,
    pub(crate) contiguous: bool,
    /// Transfers in flight per connection.
    pub(crate) depth: u16,
    /// Connections per client.
    pub(crate) connections: u16,
    /// Threads per client, among which its connections are divided.
    pub(crate) threads: u16,
    /// Clients, each with an engine, a pool and connections of its own.
    pub(crate) clients: u16,
    pub(crate) limit: Limit,
    /// Transfers of each thread before a row that do not count; `None`: as many as take [`WARM_UP`].
    pub(crate) warm_up: Option<u64>,
    pub(crate) repeats: u16,
    /// Bytes of a pool; `None` chooses.
    pub(crate) pool: Option<u64>,
    /// Order of the pieces, and the pattern; `None` is a random one.
    pub(crate) seed: Option<u64>,
    pub(crate) verify: bool,
    /// Measure the machine's limits too.
    pub(crate) limits: bool,
    /// Change a byte on the way, so that a test sees it found.
    pub(crate) corrupt: bool,
}

/// How long a measurement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Time(Duration),
    /// Transfers of each thread.
    Transfers(u64),
}

/// Where results go beside the table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outputs {
    /// `-` is standard output; the table then goes to stderr.
    pub(crate) json: Option<PathBuf>,
    pub(crate) csv: Option<PathBuf>,
    pub(crate) plot: Option<PathBuf>,
}

/// Warm-up of a row.
pub(crate) const WARM_UP: Duration = Duration::from_millis(50);
/// Cases unless others are chosen.
pub(crate) const CASES: &str = "1x4K,64x4K,1x64K,64x64K,1x1M,64x1M,1x64M";

impl Limit {
    /// Whether another transfer is to begin.
    pub(crate) fn goes_on(self, begun: u64, elapsed: Duration) -> bool {
        match self {
            Self::Time(limit) => elapsed < limit,
            Self::Transfers(limit) => begun < limit,
        }
    }
}

impl Workload {
    /// How long a row is warmed up.
    pub(crate) fn warm_up(&self) -> Limit {
        self.warm_up.map_or(Limit::Time(WARM_UP), Limit::Transfers)
    }
}

#[cfg(test)]
impl Workload {
    /// A small one.
    pub(crate) fn for_test() -> Self {
        Self {
            cases: Vec::new(),
            opcodes: vec![Opcode::Write],
            bidirectional: false,
            contiguous: false,
            depth: 1,
            connections: 1,
            threads: 1,
            clients: 1,
            limit: Limit::Transfers(1),
            warm_up: Some(0),
            repeats: 1,
            pool: None,
            seed: Some(1),
            verify: true,
            limits: false,
            corrupt: false,
        }
    }
}

//! A run as JSON: what `--json` writes and `bench compare` reads.

use serde::{Deserialize, Serialize};

use super::limits::MachineLimit;
use super::row::Row;

/// Number of this form of the document; a change that readers notice is a new one.
pub(crate) const FORMAT: u32 = 1;
/// What the document is.
pub(crate) const KIND: &str = "flagcx-p2p bench";

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Document {
    pub(crate) kind: String,
    pub(crate) format: u32,
    pub(crate) version: String,
    /// When the run began, in UTC: `2026-11-27T18:00:00Z`.
    pub(crate) date: String,
    pub(crate) host: Host,
    /// None where both ends are on this host.
    pub(crate) server: Option<Server>,
    /// `verbs` or `software`, and the device that the engine chooses unless a path is forced.
    pub(crate) provider: String,
    pub(crate) device: String,
    pub(crate) settings: Settings,
    /// Ended by a signal or an error: rows are missing.
    pub(crate) interrupted: bool,
    pub(crate) not_measured: Vec<NotMeasured>,
    pub(crate) limits: Vec<MachineLimit>,
    pub(crate) rows: Vec<Row>,
}

/// The machine of the client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) kernel: String,
    pub(crate) processor: String,
    pub(crate) processors: usize,
    pub(crate) memory_bytes: u64,
}

/// The other machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) host: String,
    pub(crate) version: String,
}

/// Settings that all rows have in common; those that rows can differ in are in the rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// One of the two is set.
    pub(crate) seconds: Option<f64>,
    pub(crate) iterations: Option<u64>,
    pub(crate) repeats: u16,
    pub(crate) pool_bytes: u64,
    pub(crate) seed: u64,
    pub(crate) verify: bool,
    /// Both ends in one process, whatever the path.
    pub(crate) in_process: bool,
}

/// A path that could not be measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct NotMeasured {
    pub(crate) path: String,
    pub(crate) reason: String,
}

impl Host {
    /// This machine.
    pub(crate) fn here() -> Self {
        let uname = rustix::system::uname();
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let memory = rustix::system::sysinfo();
        Self {
            name: uname.nodename().to_string_lossy().into_owned(),
            kernel: uname.release().to_string_lossy().into_owned(),
            processor: model.map_or_else(|| "unknown".to_owned(), |(_, model)| model.trim().to_owned()),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: u64::from(memory.mem_unit).saturating_mul(memory.totalram as u64),
        }
    }
}

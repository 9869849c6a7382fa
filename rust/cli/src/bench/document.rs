//! A run as JSON: what `--json` writes and `bench compare` reads.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::limits::{MachineLimit, RegistrationRate};
#[cfg(test)]
use super::row::Operation;
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
    /// Of each device that was measured; none in files of before, or without limits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) registrations: Vec<RegistrationRate>,
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
    /// Variables of the engine that are set here, with their texts. Older files have none.
    #[serde(default)]
    pub(crate) variables: BTreeMap<String, String>,
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

#[cfg(test)]
impl Document {
    /// A run of two rows, with limits.
    pub(crate) fn for_test() -> Self {
        let mut larger = Row::for_test();
        larger.key.size = 1 << 20;
        let limit = |name: &str, operation, size| MachineLimit {
            name: name.to_owned(),
            operation,
            size,
            gigabytes_per_second: 14.0,
        };
        Self {
            kind: KIND.to_owned(),
            format: FORMAT,
            version: "0.1.0".to_owned(),
            date: "2026-11-27T18:00:00Z".to_owned(),
            host: Host { memory_bytes: 1 << 30, ..Host::here() },
            server: None,
            provider: "software".to_owned(),
            device: "soft0".to_owned(),
            settings: Settings {
                seconds: Some(0.2),
                iterations: None,
                repeats: 3,
                pool_bytes: 256 << 20,
                seed: 1,
                verify: true,
                in_process: false,
                variables: BTreeMap::new(),
            },
            interrupted: false,
            not_measured: Vec::new(),
            limits: vec![
                limit("memcpy", None, Some(65_536)),
                limit("memcpy", None, Some(1 << 20)),
                limit("process_vm", Some(Operation::Write), Some(65_536)),
                limit("process_vm", Some(Operation::Read), Some(65_536)),
                limit("tcp socket", None, None),
            ],
            registrations: vec![RegistrationRate {
                device: "soft0".to_owned(),
                bytes: 1 << 20,
                microseconds: 100.0,
                gigabytes_per_second: Some(10.48576),
            }],
            rows: vec![Row::for_test(), larger],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_both_operations_are_as_they_were_in_older_files() {
        let run = Document::for_test();
        let text = serde_json::to_string(&run).unwrap();
        assert_eq!(serde_json::from_str::<Document>(&text).unwrap(), run);
        // Those had this form.
        assert!(text.contains(r#"{"name":"tcp socket","size":null,"gigabytes_per_second":14.0}"#), "{text}");
    }
}

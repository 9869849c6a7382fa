//! A page of `/snapshot`, as it is read. Members that are not known are skipped.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{CliError, Result};

/// The page of a process at one moment.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Page {
    pub(super) version: String,
    pub(super) host: String,
    pub(super) pid: u32,
    pub(super) time: f64,
    pub(super) uptime_seconds: f64,
    pub(super) metrics: Vec<Metric>,
    #[serde(default)]
    pub(super) slow_transfers: Vec<SlowTransfer>,
    /// Those with most rails first, not all of very many.
    #[serde(default)]
    pub(super) connections: Vec<PageConnection>,
    #[serde(default)]
    pub(super) events: Vec<Event>,
}

/// A value of a metric: a number, or a histogram.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Metric {
    pub(super) name: String,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) value: f64,
    /// Upper bound in seconds, `None` for none, and count.
    #[serde(default)]
    pub(super) buckets: Vec<(Option<f64>, u64)>,
}

/// A transfer that has not ended.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct SlowTransfer {
    pub(super) id: u64,
    pub(super) peer: String,
    pub(super) opcode: String,
    pub(super) path: String,
    pub(super) bytes: u64,
    pub(super) lanes: Vec<u32>,
    pub(super) pieces: u64,
    pub(super) pieces_done: u64,
    pub(super) age_seconds: f64,
}

/// The rails of a connection, and its control channel.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct PageConnection {
    /// Names it in its process.
    pub(super) connection: u64,
    pub(super) peer: String,
    #[serde(default)]
    pub(super) channel: Channel,
    pub(super) rails: Vec<Rail>,
}

/// How often the control channel of a connection has failed and was made anew, and for how long it has been away now.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(super) struct Channel {
    pub(super) lost: u64,
    pub(super) resumed: u64,
    /// `None` while it is there.
    pub(super) away_seconds: Option<f64>,
}

/// A rail. Bytes are those since its connection was made.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Rail {
    pub(super) rail: u8,
    pub(super) nic: String,
    pub(super) peer_nic: String,
    /// `up`, `paused` or `down`.
    pub(super) state: String,
    pub(super) paused_seconds: Option<f64>,
    pub(super) lanes: u64,
    pub(super) healthy_lanes: u64,
    pub(super) written_bytes: u64,
    pub(super) read_bytes: u64,
    pub(super) in_flight_bytes: u64,
    /// 0: not measured.
    pub(super) rate_bytes_per_second: u64,
    pub(super) moved_parts: u64,
    pub(super) pauses: u64,
    pub(super) last_pause: Option<Pause>,
    pub(super) latency_seconds: Option<f64>,
}

/// Why a rail was paused or went down, and when.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Pause {
    pub(super) reason: String,
    pub(super) seconds_ago: f64,
}

/// Something that has happened.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Event {
    pub(super) sequence: u64,
    pub(super) time: f64,
    pub(super) kind: String,
    pub(super) peer: Option<String>,
    pub(super) device: Option<String>,
    pub(super) text: String,
}

impl Page {
    pub(super) fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text)
            .map_err(|error| CliError::other(format!("the page is not that of a metrics endpoint: {error}")))
    }
}

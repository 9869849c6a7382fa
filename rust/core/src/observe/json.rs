//! A snapshot as JSON, for `flagcx-p2p stat` and other programs that watch.

mod rails;

use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use rails::{OfConnection, of_connection};

use super::{Event, Kind, Label, Sample, SlowTransfer, Snapshot, Value, event_log, registry};

/// Transfers that are unfinished for at least this long are listed: long enough that a busy engine lists few.
const SLOW: Duration = Duration::from_millis(100);
/// Transfers that are listed at most, the oldest first.
const MAX_SLOW: usize = 64;
/// Connections of which the rails are listed at most: those of which the control channel is away first, then those with most rails.
const MAX_CONNECTIONS: usize = 1024;

/// What is read of `/snapshot`. Members are added, never renamed.
#[derive(Serialize)]
struct Page<'a> {
    /// Version of this crate.
    version: &'static str,
    host: &'a str,
    pid: u32,
    /// Seconds since 1970.
    time: f64,
    /// Seconds since the endpoint was opened, by a clock that only goes forward.
    uptime_seconds: f64,
    metrics: Vec<Metric<'a>>,
    slow_transfers: Vec<Slow<'a>>,
    connections: Vec<OfConnection<'a>>,
    /// The oldest first.
    events: Vec<Happened<'a>>,
}

#[derive(Serialize)]
struct Slow<'a> {
    id: u64,
    peer: &'a str,
    opcode: String,
    path: &'static str,
    bytes: u64,
    lanes: &'a [u32],
    pieces: u64,
    pieces_done: u64,
    age_seconds: f64,
}

#[derive(Serialize)]
struct Happened<'a> {
    sequence: u64,
    /// Seconds since 1970.
    time: f64,
    kind: &'static str,
    peer: Option<&'a str>,
    device: Option<&'a str>,
    text: &'a str,
}

#[derive(Serialize)]
struct Metric<'a> {
    name: &'static str,
    kind: &'static str,
    #[serde(serialize_with = "as_map")]
    labels: &'a [Label],
    #[serde(flatten)]
    value: Content,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content {
    Number {
        value: u64,
    },
    Seconds {
        value: f64,
    },
    Histogram {
        count: u64,
        sum_seconds: f64,
        /// Upper bound in seconds, `null` for none, with the count of what lies between it and the bound before.
        buckets: Vec<(Option<f64>, u64)>,
    },
}

/// The page of the process now. `uptime` is how long its endpoint has been open.
pub(crate) fn page(uptime: Duration) -> serde_json::Result<String> {
    let host = rustix::system::uname();
    let (snapshot, slow) = (registry().snapshot(), registry().slow_transfers(SLOW));
    let (connections, events) = (registry().rails(), event_log().recent());
    serde_json::to_string(&Page {
        version: env!("CARGO_PKG_VERSION"),
        host: &host.nodename().to_string_lossy(),
        pid: std::process::id(),
        time: seconds_since_1970(SystemTime::now()),
        uptime_seconds: uptime.as_secs_f64(),
        metrics: metrics(&snapshot),
        slow_transfers: slow.iter().take(MAX_SLOW).map(slow_transfer).collect(),
        connections: connections.iter().take(MAX_CONNECTIONS).map(of_connection).collect(),
        events: events.iter().map(event).collect(),
    })
}

fn metrics(snapshot: &Snapshot) -> Vec<Metric<'_>> {
    snapshot.samples().iter().map(metric).collect()
}

fn metric(sample: &Sample) -> Metric<'_> {
    let kind = match sample.metric.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let value = match &sample.value {
        Value::Number(value) => Content::Number { value: *value },
        Value::Seconds(value) => Content::Seconds { value: value.as_secs_f64() },
        Value::Histogram(histogram) => Content::Histogram {
            count: histogram.count(),
            sum_seconds: histogram.nanoseconds as f64 / 1e9,
            buckets: histogram
                .in_seconds()
                .into_iter()
                .map(|(bound, count)| (Some(bound).filter(|bound| bound.is_finite()), count))
                .collect(),
        },
    };
    Metric { name: sample.metric.name, kind, labels: &sample.labels, value }
}

fn slow_transfer(transfer: &SlowTransfer) -> Slow<'_> {
    Slow {
        id: transfer.id,
        peer: &transfer.peer,
        opcode: transfer.opcode.to_string(),
        path: transfer.path,
        bytes: transfer.bytes,
        lanes: &transfer.lanes,
        pieces: transfer.pieces,
        pieces_done: transfer.pieces_done,
        age_seconds: transfer.age.as_secs_f64(),
    }
}

fn event(event: &Event) -> Happened<'_> {
    Happened {
        sequence: event.sequence,
        time: seconds_since_1970(event.at),
        kind: event.kind.name(),
        peer: event.peer.as_deref(),
        device: event.device.as_deref(),
        text: &event.text,
    }
}

fn as_map<S: Serializer>(labels: &&[Label], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(labels.len()))?;
    for (name, value) in *labels {
        map.serialize_entry(name, value)?;
    }
    map.end()
}

fn seconds_since_1970(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Direction, EventKind, Histogram, metrics};
    use super::*;

    #[test]
    fn samples() {
        let mut snapshot = Snapshot::default();
        let latency = Histogram::default();
        latency.record(Duration::from_micros(3));
        snapshot.number(&metrics::PEER_LANES, &[("peer", "a\"b".to_owned())], 4);
        snapshot.histogram(&metrics::LATENCY, &[], latency.snapshot());
        let written = serde_json::to_value(metrics(&snapshot)).unwrap();
        let name = metrics::PEER_LANES.name;
        assert_eq!(
            written[0],
            json!({"name": name, "kind": "gauge", "labels": {"peer": "a\"b"}, "value": 4})
        );
        assert_eq!(written[1]["count"], 1);
        assert_eq!(written[1]["sum_seconds"], 0.000_003);
        let buckets = written[1]["buckets"].as_array().unwrap();
        assert_eq!(buckets.iter().filter(|bucket| bucket[1] == 1).count(), 1, "{buckets:?}");
        assert_eq!(buckets.last().unwrap(), &json!([null, 0]));
    }

    #[test]
    fn slow_transfers_and_events() {
        let slow = SlowTransfer {
            id: 7,
            peer: "h:1".to_owned(),
            opcode: Direction::Read,
            path: "tcp",
            bytes: 9,
            lanes: vec![0, 2],
            pieces: 4,
            pieces_done: 3,
            age: Duration::from_millis(1500),
        };
        let expected = json!({
            "id": 7, "peer": "h:1", "opcode": "read", "path": "tcp", "bytes": 9, "lanes": [0, 2],
            "pieces": 4, "pieces_done": 3, "age_seconds": 1.5,
        });
        assert_eq!(serde_json::to_value(slow_transfer(&slow)).unwrap(), expected);
        let happened = Event {
            sequence: 3,
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(2500),
            kind: EventKind::LaneError,
            peer: Some("h:1".to_owned()),
            device: None,
            text: "lane 1 \"x\"".to_owned(),
        };
        let expected = json!({
            "sequence": 3, "time": 2.5, "kind": "lane_error", "peer": "h:1", "device": null, "text": "lane 1 \"x\"",
        });
        assert_eq!(serde_json::to_value(event(&happened)).unwrap(), expected);
    }

    #[test]
    fn a_page_names_its_process() {
        let page: serde_json::Value =
            serde_json::from_str(&page(Duration::from_millis(1500)).unwrap()).unwrap();
        assert_eq!((&page["pid"], &page["uptime_seconds"]), (&json!(std::process::id()), &json!(1.5)));
        assert!(page["time"].as_f64().unwrap() > 1.7e9 && page["host"].is_string());
    }
}

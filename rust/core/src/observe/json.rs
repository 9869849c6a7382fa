//! A snapshot as JSON, for `flagcx-p2p stat` and other programs that watch.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::{Kind, Label, Sample, Snapshot, Value, registry};

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
    let snapshot = registry().snapshot();
    serde_json::to_string(&Page {
        version: env!("CARGO_PKG_VERSION"),
        host: &host.nodename().to_string_lossy(),
        pid: std::process::id(),
        time: seconds_since_1970(SystemTime::now()),
        uptime_seconds: uptime.as_secs_f64(),
        metrics: metrics(&snapshot),
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

    use super::super::{Histogram, metrics};
    use super::*;

    #[test]
    fn samples() {
        let mut snapshot = Snapshot::default();
        let latency = Histogram::default();
        latency.record(Duration::from_micros(3));
        snapshot.number(&metrics::LANES, &[("peer", "a\"b".to_owned())], 4);
        snapshot.histogram(&metrics::LATENCY, &[], latency.snapshot());
        let written = serde_json::to_value(metrics(&snapshot)).unwrap();
        let name = metrics::LANES.name;
        assert_eq!(
            written[0],
            json!({"name": name, "kind": "gauge", "labels": {"peer": "a\"b"}, "value": 4})
        );
        assert_eq!(written[1]["count"], 1);
        assert_eq!(written[1]["sum_seconds"], 0.000_003);
        let buckets = written[1]["buckets"].as_array().unwrap();
        assert!(buckets.contains(&json!([0.000_004, 1])), "{buckets:?}");
        assert_eq!(buckets.last().unwrap(), &json!([null, 0]));
    }

    #[test]
    fn a_page_names_its_process() {
        let page: serde_json::Value =
            serde_json::from_str(&page(Duration::from_millis(1500)).unwrap()).unwrap();
        assert_eq!((&page["pid"], &page["uptime_seconds"]), (&json!(std::process::id()), &json!(1.5)));
        assert!(page["time"].as_f64().unwrap() > 1.7e9 && page["host"].is_string());
    }
}

//! A snapshot as text that Prometheus reads (the OpenMetrics text format).

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;

use super::{Kind, METRICS, Metric, Snapshot, Value};

/// `snapshot` in the OpenMetrics text format, for a `/metrics` page or a text file collector.
pub fn prometheus_text(snapshot: &Snapshot) -> Result<String, fmt::Error> {
    let mut registry = prometheus_client::registry::Registry::default();
    registry.register_collector(Box::new(Page(snapshot.clone())));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(page)
}

#[derive(Debug)]
struct Page(Snapshot);

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for &metric in METRICS {
            if self.0.of(metric).next().is_some() {
                encode_metric(&self.0, metric, &mut encoder)?;
            }
        }
        Ok(())
    }
}

fn encode_metric(
    snapshot: &Snapshot,
    metric: &'static Metric,
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let kind = match metric.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    };
    let mut family = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
    for sample in snapshot.of(metric) {
        encode_value(&mut family.encode_family(&sample.labels)?, metric.kind, &sample.value)?;
    }
    Ok(())
}

fn encode_value(encoder: &mut MetricEncoder<'_>, kind: Kind, value: &Value) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Number(number)) => encoder.encode_counter::<NoLabelSet, _, u64>(number, None),
        (Kind::Counter, Value::Seconds(time)) => {
            encoder.encode_counter::<NoLabelSet, f64, f64>(&time.as_secs_f64(), None)
        }
        (_, Value::Seconds(time)) => encoder.encode_gauge(&time.as_secs_f64()),
        (_, Value::Number(number)) => encoder.encode_gauge(&i64::try_from(*number).unwrap_or(i64::MAX)),
        (_, Value::Histogram(histogram)) => {
            let sum = histogram.nanoseconds as f64 / 1e9;
            encoder.encode_histogram::<NoLabelSet>(sum, histogram.count(), &histogram.in_seconds(), None)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Histogram, metrics};
    use super::*;

    #[test]
    fn a_page() {
        let mut snapshot = Snapshot::default();
        let device = [("device", "sw0".to_owned())];
        let latency = Histogram::default();
        latency.record(Duration::from_micros(3));
        snapshot.number(&metrics::POSTED, &device, 7);
        snapshot.histogram(&metrics::LATENCY, &device, latency.snapshot());
        snapshot.number(&metrics::PEER_LANES, &[("peer", "a\"b".to_owned())], 4);
        snapshot.seconds(&metrics::OLDEST_AGE, &[], Duration::from_millis(1500));
        snapshot.seconds(&metrics::REGISTRATION_TIME, &[], Duration::from_millis(250));
        let page = prometheus_text(&snapshot).unwrap();
        for line in [
            "# TYPE flagcx_p2p_requests_posted counter",
            "flagcx_p2p_requests_posted_total{device=\"sw0\"} 7",
            "# TYPE flagcx_p2p_transfer_latency_seconds histogram",
            "flagcx_p2p_transfer_latency_seconds_sum{device=\"sw0\"} 0.000003",
            "flagcx_p2p_transfer_latency_seconds_count{device=\"sw0\"} 1",
            "flagcx_p2p_transfer_latency_seconds_bucket{le=\"0.000002\",device=\"sw0\"} 0",
            "flagcx_p2p_transfer_latency_seconds_bucket{le=\"0.000005\",device=\"sw0\"} 1",
            "flagcx_p2p_transfer_latency_seconds_bucket{le=\"+Inf\",device=\"sw0\"} 1",
            "flagcx_p2p_peer_lanes{peer=\"a\\\"b\"} 4",
            "flagcx_p2p_oldest_transfer_age_seconds 1.5",
            "flagcx_p2p_registration_seconds_total 0.25",
            "# EOF",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\nnot in\n{page}");
        }
        assert!(!page.contains("rebuilds"), "a metric without values is not written");
    }
}

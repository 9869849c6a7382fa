//! What is shown of two pages: totals, devices, peers.

use std::collections::BTreeSet;

use serde::Serialize;

use super::page::{Event, Page, SlowTransfer};
use super::rails::{self, ConnectionRails};
use super::series::Series;

/// Events that are shown, the newest.
const EVENTS: usize = 16;

/// A process between two pages. Rates are `null` when the process was restarted in between.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) version: String,
    pub(super) host: String,
    pub(super) pid: u32,
    /// Seconds since 1970.
    pub(super) time: f64,
    pub(super) uptime_seconds: f64,
    /// What the rates and percentiles are of.
    pub(super) interval_seconds: f64,
    pub(super) totals: Totals,
    pub(super) devices: Vec<Device>,
    /// The ones that move most come first.
    pub(super) peers: Vec<Peer>,
    /// Of each connection its rails and its control channel.
    pub(super) connections: Vec<ConnectionRails>,
    pub(super) slow_transfers: Vec<SlowTransfer>,
    /// The oldest first.
    pub(super) events: Vec<Event>,
}

#[derive(Debug, Serialize)]
pub(super) struct Totals {
    pub(super) connections: f64,
    #[serde(flatten)]
    pub(super) traffic: Traffic,
    pub(super) waiting: f64,
    /// Control channels that have failed and were dialled again, since the start.
    pub(super) channels_lost: f64,
    pub(super) channels_resumed: f64,
    pub(super) p50_seconds: Option<f64>,
    pub(super) p99_seconds: Option<f64>,
}

/// What moves, and what does not.
#[derive(Debug, Serialize)]
pub(super) struct Traffic {
    pub(super) write_bytes_per_second: Option<f64>,
    pub(super) read_bytes_per_second: Option<f64>,
    pub(super) transfers_per_second: Option<f64>,
    pub(super) in_flight: f64,
    pub(super) in_flight_bytes: f64,
    pub(super) oldest_age_seconds: f64,
    pub(super) retries: f64,
    pub(super) rebuilds: f64,
    /// Transfers that ended otherwise than done, since the start.
    pub(super) failures: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Device {
    pub(super) device: String,
    pub(super) port: String,
    pub(super) provider: String,
    /// `null` if it reports no events.
    pub(super) up: Option<bool>,
    pub(super) requests_per_second: Option<f64>,
    pub(super) waiting: f64,
    pub(super) p50_seconds: Option<f64>,
    pub(super) p99_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Peer {
    pub(super) peer: String,
    pub(super) path: String,
    pub(super) connections: f64,
    pub(super) lanes: f64,
    pub(super) healthy_lanes: f64,
    #[serde(flatten)]
    pub(super) traffic: Traffic,
}

/// The metrics of one scope: the process's, or the peers'.
struct Names {
    ended: &'static str,
    ended_bytes: &'static str,
    in_flight: &'static str,
    in_flight_bytes: &'static str,
    oldest: &'static str,
    retries: &'static str,
    rebuilds: &'static str,
}

const PROCESS: Names = Names {
    ended: "flagcx_p2p_transfers_ended",
    ended_bytes: "flagcx_p2p_ended_bytes",
    in_flight: "flagcx_p2p_transfers_in_flight",
    in_flight_bytes: "flagcx_p2p_in_flight_bytes",
    oldest: "flagcx_p2p_oldest_transfer_age_seconds",
    retries: "flagcx_p2p_lane_retries",
    rebuilds: "flagcx_p2p_lane_rebuilds",
};
const PEER: Names = Names {
    ended: "flagcx_p2p_peer_transfers_ended",
    ended_bytes: "flagcx_p2p_peer_ended_bytes",
    in_flight: "flagcx_p2p_peer_transfers_in_flight",
    in_flight_bytes: "flagcx_p2p_peer_in_flight_bytes",
    oldest: "flagcx_p2p_peer_oldest_transfer_age_seconds",
    retries: "flagcx_p2p_peer_lane_retries",
    rebuilds: "flagcx_p2p_peer_lane_rebuilds",
};
const CONNECTIONS: &str = "flagcx_p2p_connections";
const CHANNELS_LOST: &str = "flagcx_p2p_channels_lost";
const CHANNELS_RESUMED: &str = "flagcx_p2p_channels_resumed";
const WAITING: &str = "flagcx_p2p_transfers_waiting";
const LATENCY: &str = "flagcx_p2p_transfer_latency_seconds";
const DEVICE: &str = "flagcx_p2p_device_info";
const DEVICE_UP: &str = "flagcx_p2p_device_up";
const POSTED: &str = "flagcx_p2p_requests_posted";
const PEER_CONNECTIONS: &str = "flagcx_p2p_peer_connections";
const PEER_LANES: &str = "flagcx_p2p_peer_lanes";
const PEER_HEALTHY_LANES: &str = "flagcx_p2p_peer_healthy_lanes";

impl Summary {
    pub(super) fn between(before: &Page, now: &Page) -> Self {
        let series = Series::new(before, now);
        let mut peers: Vec<_> =
            names_of(now, "peer").into_iter().map(|name| peer(&series, now, name)).collect();
        peers.sort_by(|one, other| moved(other).total_cmp(&moved(one)));
        let newest = now.events.len().saturating_sub(EVENTS);
        Self {
            version: now.version.clone(),
            host: now.host.clone(),
            pid: now.pid,
            time: now.time,
            uptime_seconds: now.uptime_seconds,
            interval_seconds: series.seconds,
            totals: Totals {
                connections: series.sum(CONNECTIONS, &[]),
                traffic: traffic(&series, &PROCESS, &[]),
                waiting: series.sum(WAITING, &[]),
                channels_lost: series.sum(CHANNELS_LOST, &[]),
                channels_resumed: series.sum(CHANNELS_RESUMED, &[]),
                p50_seconds: series.percentile(LATENCY, &[], 50.0),
                p99_seconds: series.percentile(LATENCY, &[], 99.0),
            },
            devices: devices(&series),
            peers,
            connections: rails::between(before, now, series.seconds),
            slow_transfers: now.slow_transfers.clone(),
            events: now.events.get(newest..).unwrap_or_default().to_vec(),
        }
    }
}

/// The values of a label of the metrics of peers.
fn names_of<'a>(page: &'a Page, label: &str) -> BTreeSet<&'a str> {
    let of_peers = page.metrics.iter().filter(|metric| metric.name.starts_with("flagcx_p2p_peer_"));
    of_peers.filter_map(|metric| metric.labels.get(label)).map(String::as_str).collect()
}

fn moved(peer: &Peer) -> f64 {
    let Traffic { write_bytes_per_second, read_bytes_per_second, .. } = peer.traffic;
    write_bytes_per_second.unwrap_or(0.0) + read_bytes_per_second.unwrap_or(0.0)
}

fn peer(series: &Series<'_>, page: &Page, name: &str) -> Peer {
    let labels = [("peer", name)];
    let is_of_peer = |label: Option<&String>| label.is_some_and(|found| found == name);
    // Of the connections there are, else of what has moved.
    let paths = |lanes_only: bool| {
        let metrics = page.metrics.iter().filter(|metric| {
            is_of_peer(metric.labels.get("peer")) && (!lanes_only || metric.name == PEER_LANES)
        });
        let paths: BTreeSet<_> = metrics.filter_map(|metric| metric.labels.get("path")).cloned().collect();
        paths.into_iter().collect::<Vec<_>>().join("+")
    };
    let path = Some(paths(true)).filter(|path| !path.is_empty()).unwrap_or_else(|| paths(false));
    Peer {
        peer: name.to_owned(),
        path,
        connections: series.sum(PEER_CONNECTIONS, &labels),
        lanes: series.sum(PEER_LANES, &labels),
        healthy_lanes: series.sum(PEER_HEALTHY_LANES, &labels),
        traffic: traffic(series, &PEER, &labels),
    }
}

fn traffic(series: &Series<'_>, names: &Names, labels: &[(&str, &str)]) -> Traffic {
    let with = |label, value| [labels, &[(label, value)]].concat();
    let done = series.sum(names.ended, &with("outcome", "done"));
    Traffic {
        write_bytes_per_second: series.rate(names.ended_bytes, &with("direction", "write")),
        read_bytes_per_second: series.rate(names.ended_bytes, &with("direction", "read")),
        transfers_per_second: series.rate(names.ended, labels),
        in_flight: series.sum(names.in_flight, labels),
        in_flight_bytes: series.sum(names.in_flight_bytes, labels),
        oldest_age_seconds: series.max(names.oldest, labels),
        retries: series.sum(names.retries, labels),
        rebuilds: series.sum(names.rebuilds, labels),
        failures: series.sum(names.ended, labels) - done,
    }
}

fn devices(series: &Series<'_>) -> Vec<Device> {
    let label =
        |metric: &super::page::Metric, name: &str| metric.labels.get(name).cloned().unwrap_or_default();
    let device = |metric: &super::page::Metric| {
        let (device, port) = (label(metric, "device"), label(metric, "port"));
        let labels = [("device", device.as_str()), ("port", port.as_str())];
        Device {
            up: series.of(DEVICE_UP, &labels).next().map(|up| up.value != 0.0),
            requests_per_second: series.rate(POSTED, &labels),
            waiting: series.sum(WAITING, &labels),
            p50_seconds: series.percentile(LATENCY, &labels, 50.0),
            p99_seconds: series.percentile(LATENCY, &labels, 99.0),
            provider: label(metric, "provider"),
            port: port.clone(),
            device: device.clone(),
        }
    };
    series.of(DEVICE, &[]).map(device).collect()
}

#[cfg(test)]
mod tests {
    use flagcx_p2p::internals::observe::METRICS;

    use super::*;

    #[test]
    fn the_metrics_exist() {
        let scopes = [&PROCESS, &PEER].map(|names| {
            let Names { ended, ended_bytes, in_flight, in_flight_bytes, oldest, retries, rebuilds } = names;
            [ended, ended_bytes, in_flight, in_flight_bytes, oldest, retries, rebuilds].map(|name| *name)
        });
        let others = [
            CONNECTIONS,
            CHANNELS_LOST,
            CHANNELS_RESUMED,
            WAITING,
            LATENCY,
            DEVICE,
            DEVICE_UP,
            POSTED,
            PEER_CONNECTIONS,
            PEER_LANES,
            PEER_HEALTHY_LANES,
        ];
        for name in scopes.concat().into_iter().chain(others) {
            assert!(METRICS.iter().any(|metric| metric.name == name), "{name}");
        }
    }

    fn page(uptime: f64, ended: f64, bytes: f64) -> Page {
        let metric = |name: &str, labels: serde_json::Value, value: f64| serde_json::json!({"name": name, "kind": "gauge", "labels": labels, "value": value});
        let moved =
            serde_json::json!({"peer": "h:1", "path": "tcp", "direction": "write", "outcome": "done"});
        let failed =
            serde_json::json!({"peer": "h:1", "path": "tcp", "direction": "read", "outcome": "failed"});
        let of_peer = serde_json::json!({"peer": "h:1", "path": "tcp"});
        let page = serde_json::json!({
            "version": "1", "host": "h", "pid": 1, "time": 0.0, "uptime_seconds": uptime,
            "metrics": [
                metric(PEER.ended, moved.clone(), ended),
                metric(PEER.ended_bytes, moved, bytes),
                metric(PEER.ended, failed, 2.0),
                metric(PEER_LANES, of_peer.clone(), 4.0),
                metric(PEER_HEALTHY_LANES, of_peer.clone(), 3.0),
                metric(PEER.oldest, of_peer, 1.5),
            ],
        });
        Page::parse(&page.to_string()).unwrap()
    }

    #[test]
    fn a_peer() {
        let summary = Summary::between(&page(1.0, 10.0, 0.0), &page(2.0, 15.0, 4e9));
        let [peer] = summary.peers.as_slice() else { panic!("{:?}", summary.peers) };
        assert_eq!((peer.peer.as_str(), peer.path.as_str()), ("h:1", "tcp"));
        assert_eq!((peer.lanes, peer.healthy_lanes), (4.0, 3.0));
        let traffic = &peer.traffic;
        assert_eq!((traffic.write_bytes_per_second, traffic.transfers_per_second), (Some(4e9), Some(5.0)));
        assert_eq!((traffic.failures, traffic.oldest_age_seconds), (2.0, 1.5));
    }
}

//! What a connection reports of each of its rails, and the sums of these.

use std::collections::BTreeMap;

use super::{Label, RailInfo, RailStatus, Snapshot, metrics};
use crate::rails::PauseReason;

/// What a connection reports of a rail.
#[derive(Clone, Debug)]
pub struct RailReport {
    /// As operators are told.
    pub info: RailInfo,
    /// How often it was paused or went down, by the place of the reason in [`PauseReason::ALL`].
    pub pauses: [u64; PauseReason::ALL.len()],
}

/// Sums over rails with the same number and NIC.
#[derive(Clone, Debug, Default)]
struct RailSums {
    /// Rails that are up, paused and down.
    states: [u64; 3],
    written_bytes: u64,
    read_bytes: u64,
    in_flight_bytes: u64,
    rate: u64,
    moved_parts: u64,
    pauses: [u64; PauseReason::ALL.len()],
}

/// Sums over the rails of several connections, by the number of the rail and its NIC. The NICs are those of this host, so there are few.
#[derive(Clone, Debug, Default)]
pub(super) struct RailTotals(BTreeMap<(u8, String), RailSums>);

/// The names of the states, in the order in which they are counted.
const STATES: [&str; 3] = ["up", "paused", "down"];

impl RailTotals {
    /// Adds the rails of a connection.
    pub(super) fn add(&mut self, rails: &[RailReport]) {
        for rail in rails {
            let sums = self.of(rail);
            let state = match rail.info.status {
                RailStatus::Up => 0,
                RailStatus::Paused { .. } => 1,
                RailStatus::Down => 2,
            };
            if let Some(count) = sums.states.get_mut(state) {
                *count += 1;
            }
            sums.in_flight_bytes += rail.info.in_flight_bytes;
            sums.rate += rail.info.rate_bytes_per_second;
            sums.written_bytes += rail.info.written_bytes;
            sums.read_bytes += rail.info.read_bytes;
            sums.moved_parts += rail.info.moved_parts;
            for (sum, pauses) in sums.pauses.iter_mut().zip(rail.pauses) {
                *sum += pauses;
            }
        }
    }

    /// Adds those of `other`.
    pub(super) fn merge(&mut self, other: &Self) {
        for (key, more) in &other.0 {
            let sums = self.0.entry(key.clone()).or_default();
            sums.add_counters(more);
            sums.add_gauges(more);
        }
    }

    /// Adds the counters of connections that have ended.
    pub(super) fn merge_ended(&mut self, ended: &Self) {
        for (key, more) in &ended.0 {
            self.0.entry(key.clone()).or_default().add_counters(more);
        }
    }

    fn of(&mut self, rail: &RailReport) -> &mut RailSums {
        self.0.entry((rail.info.rail, rail.info.nic.clone())).or_default()
    }

    /// Whether one of the connections has, or had, more than one rail.
    fn has_further_rails(&self) -> bool {
        self.0.keys().any(|(rail, _)| *rail > 0)
    }

    /// Writes the sums of the process.
    pub(super) fn write(&self, out: &mut Snapshot) {
        let mut all = RailSums::default();
        for sums in self.0.values() {
            all.add_counters(sums);
            all.add_gauges(sums);
        }
        for (state, count) in STATES.iter().zip(all.states) {
            out.number(&metrics::RAILS, &[("state", (*state).to_owned())], count);
        }
        for (reason, count) in PauseReason::ALL.iter().zip(all.pauses) {
            out.number(&metrics::RAIL_PAUSES, &[("reason", reason.name().to_owned())], count);
        }
        out.number(&metrics::RAIL_MOVED_PARTS, &[], all.moved_parts);
    }

    /// Writes the series of a peer, if its connections have more than one rail: with one, the other series of the peer say all of it.
    pub(super) fn write_peer(&self, peer: &Label, out: &mut Snapshot) {
        if !self.has_further_rails() {
            return;
        }
        for ((rail, nic), sums) in &self.0 {
            let labels = [peer.clone(), ("rail", rail.to_string()), ("nic", nic.clone())];
            let with = |label: Label| [labels.as_slice(), &[label]].concat();
            for (state, count) in STATES.iter().zip(sums.states) {
                out.number(&metrics::PEER_RAILS, &with(("state", (*state).to_owned())), count);
            }
            for (direction, bytes) in [("write", sums.written_bytes), ("read", sums.read_bytes)] {
                out.number(&metrics::PEER_RAIL_BYTES, &with(("direction", direction.to_owned())), bytes);
            }
            out.number(&metrics::PEER_RAIL_IN_FLIGHT_BYTES, &labels, sums.in_flight_bytes);
            out.number(&metrics::PEER_RAIL_RATE, &labels, sums.rate);
            out.number(&metrics::PEER_RAIL_MOVED_PARTS, &labels, sums.moved_parts);
            for (reason, count) in PauseReason::ALL.iter().zip(sums.pauses) {
                // A reason that has not occurred is left out, as outcomes are.
                if count > 0 {
                    out.number(
                        &metrics::PEER_RAIL_PAUSES,
                        &with(("reason", reason.name().to_owned())),
                        count,
                    );
                }
            }
        }
    }
}

impl RailSums {
    fn add_counters(&mut self, more: &Self) {
        self.written_bytes += more.written_bytes;
        self.read_bytes += more.read_bytes;
        self.moved_parts += more.moved_parts;
        for (sum, more) in self.pauses.iter_mut().zip(more.pauses) {
            *sum += more;
        }
    }

    fn add_gauges(&mut self, more: &Self) {
        for (sum, more) in self.states.iter_mut().zip(more.states) {
            *sum += more;
        }
        self.in_flight_bytes += more.in_flight_bytes;
        self.rate += more.rate;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::{ConnectionReport, MetricRegistry, Source, Value};
    use super::*;

    /// A connection with so many rails, each with 10 bytes written for its number and one.
    struct Connection {
        peer: Arc<str>,
        rails: Vec<RailReport>,
        ended: std::sync::atomic::AtomicBool,
    }

    impl Connection {
        fn new(registry: &MetricRegistry, peer: &str, rails: u8) -> Arc<Self> {
            let rail = |rail: u8| RailReport {
                info: RailInfo {
                    rail,
                    nic: format!("mlx5_{rail}:1"),
                    peer_nic: "told by the peer".to_owned(),
                    status: if rail == 1 {
                        RailStatus::Paused { left: Duration::from_millis(4) }
                    } else {
                        RailStatus::Up
                    },
                    lanes: 8,
                    healthy_lanes: 8,
                    written_bytes: 10 * (u64::from(rail) + 1),
                    read_bytes: 1,
                    in_flight_bytes: 100,
                    rate_bytes_per_second: 1000,
                    moved_parts: 2,
                    pauses: u64::from(rail == 1),
                    last_pause: None,
                    latency: None,
                },
                pauses: [u64::from(rail == 1), 0, 0, 0],
            };
            let connection = Arc::new(Self {
                peer: registry.peer_name(peer),
                rails: (0..rails).map(rail).collect(),
                ended: false.into(),
            });
            registry.add(&connection);
            connection
        }

        fn report(&self) -> ConnectionReport {
            ConnectionReport { rails: self.rails.clone(), ..ConnectionReport::default() }
        }

        fn end(&self, registry: &MetricRegistry) {
            registry.end_connection(&self.peer, Vec::new(), || {
                self.ended.store(true, std::sync::atomic::Ordering::Relaxed);
                self.report()
            });
        }
    }

    impl Source for Connection {
        fn collect(&self, out: &mut Snapshot) {
            if !self.ended.load(std::sync::atomic::Ordering::Relaxed) {
                out.connection(&self.peer, &self.report());
            }
        }
    }

    /// Each series of rails, as `name{label values} value`.
    fn series(registry: &MetricRegistry) -> Vec<String> {
        let snapshot = registry.snapshot();
        let of_rails = snapshot.samples().iter().filter(|sample| sample.metric.name.contains("rail"));
        let text = |sample: &super::super::Sample| {
            let labels: Vec<_> = sample.labels.iter().map(|(_, value)| value.as_str()).collect();
            let Value::Number(value) = sample.value else { panic!("{sample:?}") };
            let name = sample.metric.name.trim_start_matches("flagcx_p2p_");
            format!("{name}{{{}}} {value}", labels.join(","))
        };
        of_rails.map(text).collect()
    }

    fn of_process(up: u64, paused: u64, silent: u64, moved: u64) -> Vec<String> {
        [
            format!("rails{{up}} {up}"),
            format!("rails{{paused}} {paused}"),
            "rails{down} 0".to_owned(),
            format!("rail_pauses{{silent}} {silent}"),
            "rail_pauses{errors} 0".to_owned(),
            "rail_pauses{port_down} 0".to_owned(),
            "rail_pauses{device_lost} 0".to_owned(),
            format!("rail_moved_parts{{}} {moved}"),
        ]
        .to_vec()
    }

    #[test]
    fn a_peer_with_one_rail_has_no_series_of_rails() {
        let registry = MetricRegistry::default();
        let connections = [1, 1].map(|rails| Connection::new(&registry, "a", rails));
        assert_eq!(series(&registry), of_process(2, 0, 0, 4));
        drop(connections);
    }

    #[test]
    fn rails_of_a_peer_are_summed_by_number_and_nic() {
        let registry = MetricRegistry::default();
        let connections = [2, 1].map(|rails| Connection::new(&registry, "a", rails));
        let expected = [
            "peer_rails{a,0,mlx5_0:1,up} 2",
            "peer_rails{a,0,mlx5_0:1,paused} 0",
            "peer_rails{a,0,mlx5_0:1,down} 0",
            "peer_rail_bytes{a,0,mlx5_0:1,write} 20",
            "peer_rail_bytes{a,0,mlx5_0:1,read} 2",
            "peer_rail_in_flight_bytes{a,0,mlx5_0:1} 200",
            "peer_rail_rate_bytes_per_second{a,0,mlx5_0:1} 2000",
            "peer_rail_moved_parts{a,0,mlx5_0:1} 4",
            "peer_rails{a,1,mlx5_1:1,up} 0",
            "peer_rails{a,1,mlx5_1:1,paused} 1",
            "peer_rails{a,1,mlx5_1:1,down} 0",
            "peer_rail_bytes{a,1,mlx5_1:1,write} 20",
            "peer_rail_bytes{a,1,mlx5_1:1,read} 1",
            "peer_rail_in_flight_bytes{a,1,mlx5_1:1} 100",
            "peer_rail_rate_bytes_per_second{a,1,mlx5_1:1} 1000",
            "peer_rail_moved_parts{a,1,mlx5_1:1} 2",
            "peer_rail_pauses{a,1,mlx5_1:1,silent} 1",
        ];
        let found = series(&registry);
        assert_eq!(found[..8], of_process(2, 1, 1, 6));
        assert_eq!(found[8..], expected);
        drop(connections);
    }

    #[test]
    fn counters_stay_when_connections_end_and_gauges_do_not() {
        let registry = MetricRegistry::default();
        let [one, two, other] =
            [("a", 2), ("a", 1), ("b", 3)].map(|(peer, rails)| Connection::new(&registry, peer, rails));
        one.end(&registry);
        drop(one);
        other.end(&registry);
        drop(other);
        let found = series(&registry);
        assert_eq!(found[..8], of_process(1, 0, 2, 2 * 6));
        let has = |line: &str| assert!(found.iter().any(|found| found == line), "{line}: {found:#?}");
        has("peer_rails{a,0,mlx5_0:1,up} 1");
        has("peer_rail_bytes{a,1,mlx5_1:1,write} 20");
        has("peer_rail_in_flight_bytes{a,1,mlx5_1:1} 0");
        has("peer_rails{a,1,mlx5_1:1,paused} 0");
        assert!(!found.iter().any(|line| line.contains("{b,")), "it has no connection: {found:#?}");
        drop(two);
        assert_eq!(
            series(&registry)[..8],
            of_process(0, 0, 2, 2 * 5),
            "one that is gone without its end is not counted"
        );
    }
}

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

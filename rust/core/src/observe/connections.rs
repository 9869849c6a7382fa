//! What connections report, summed up by peer and for the process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::ended_connections::EndedConnections;
use super::rail_report::{RailReport, RailTotals};
use super::{EndState, Label, Snapshot, TransferTotals, metrics};

/// What one connection reports.
#[derive(Clone, Debug, Default)]
pub struct ConnectionReport {
    /// Its transfers.
    pub transfers: TransferTotals,
    /// How long its oldest transfer has not ended.
    pub oldest: Duration,
    /// Lanes in working order.
    pub healthy_lanes: u64,
    /// How often parts were posted again and lanes rebuilt, by the lane's index.
    pub lanes: BTreeMap<usize, LaneReport>,
    /// Its rails.
    pub rails: Vec<RailReport>,
    /// Notifications sent.
    pub notifications_sent: u64,
}

/// What one lane reports.
#[derive(Clone, Copy, Debug, Default)]
pub struct LaneReport {
    /// Parts posted again after the lane had failed.
    pub retries: u64,
    /// Queue pairs that have replaced another one.
    pub rebuilds: u64,
}

/// Sums over connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    connections: u64,
    lane_count: u64,
    report: ConnectionReport,
    rails: RailTotals,
}

impl Sums {
    /// Adds a connection.
    pub(super) fn add(&mut self, report: &ConnectionReport) {
        self.connections += 1;
        self.lane_count += report.lanes.len() as u64;
        self.report.healthy_lanes += report.healthy_lanes;
        self.report.oldest = self.report.oldest.max(report.oldest);
        self.rails.add(&report.rails);
        self.add_counters(report);
    }

    /// Adds transfers of connections that have been added before.
    pub(super) fn add_transfers(&mut self, transfers: &TransferTotals) {
        self.report.transfers.merge(transfers);
    }

    /// How many connections were added.
    pub(super) fn connections(&self) -> u64 {
        self.connections
    }

    fn add_counters(&mut self, report: &ConnectionReport) {
        self.report.transfers.merge(&report.transfers);
        self.report.notifications_sent += report.notifications_sent;
        for (index, lane) in &report.lanes {
            let sum = self.report.lanes.entry(*index).or_default();
            sum.retries += lane.retries;
            sum.rebuilds += lane.rebuilds;
        }
    }
}

/// Peers that have series of their own at a time; the others share those of [`OTHER_PEERS`].
pub const MOST_PEERS: usize = 256;

/// The lanes of further rails have indices from this one on.
const LANES_OF_FIRST_RAIL: usize = 8;

/// The name of peers beyond [`MOST_PEERS`] in metrics.
pub const OTHER_PEERS: &str = "other";

/// The connections of a snapshot, by the name of their peer.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers(BTreeMap<Arc<str>, Sums>);

impl Peers {
    /// Adds a connection.
    pub(super) fn add(&mut self, peer: &Arc<str>, report: &ConnectionReport) {
        self.0.entry(Arc::clone(peer)).or_default().add(report);
    }

    /// Writes the sums of all, and those of each peer.
    pub(super) fn write(mut self, ended: &EndedConnections, unplaced: &TransferTotals, out: &mut Snapshot) {
        let mut all = Sums::default();
        for peer in self.0.values() {
            all.connections += peer.connections;
            all.report.oldest = all.report.oldest.max(peer.report.oldest);
            all.add_counters(&peer.report);
            all.rails.merge(&peer.rails);
        }
        let in_flight = all.report.transfers.in_flight();
        out.number(&metrics::IN_FLIGHT, &[], in_flight.transfers);
        out.number(&metrics::IN_FLIGHT_BYTES, &[], in_flight.bytes);
        out.seconds(&metrics::OLDEST_AGE, &[], all.report.oldest);
        out.number(&metrics::CONNECTIONS, &[], all.connections);
        out.number(&metrics::CONNECTIONS_ENDED, &[], ended.all().connections);
        all.add_counters(&ended.all().report);
        all.rails.merge_ended(&ended.all().rails);
        all.report.transfers.merge(unplaced);
        write_totals(&all.report, out);
        all.rails.write(out);
        if ended.has_others() {
            self.0.entry(Arc::from(OTHER_PEERS)).or_default();
        }
        for (peer, sums) in self.0 {
            write_peer(&peer, sums, ended.of(&peer), out);
        }
    }
}

fn write_totals(all: &ConnectionReport, out: &mut Snapshot) {
    for (direction, path, totals) in all.transfers.iter() {
        let labels = [("direction", direction.to_string()), ("path", path.to_owned())];
        out.number(&metrics::STARTED, &labels, totals.started.transfers);
        out.number(&metrics::STARTED_BYTES, &labels, totals.started.bytes);
        for (end, amount) in EndState::ALL.iter().zip(totals.ended) {
            let labels = [labels.as_slice(), &[("outcome", end.name().to_owned())]].concat();
            out.number(&metrics::ENDED, &labels, amount.transfers);
            out.number(&metrics::ENDED_BYTES, &labels, amount.bytes);
        }
    }
    out.number(&metrics::LANE_RETRIES, &[], all.lanes.values().map(|lane| lane.retries).sum());
    out.number(&metrics::LANE_REBUILDS, &[], all.lanes.values().map(|lane| lane.rebuilds).sum());
    out.number(&metrics::NOTIFICATIONS_SENT, &[], all.notifications_sent);
}

fn write_peer(peer: &str, mut sums: Sums, ended: Option<&Sums>, out: &mut Snapshot) {
    let peer: Label = ("peer", peer.to_owned());
    let labels = std::slice::from_ref(&peer);
    // Of connections that exist: what those that have ended counted is among the counters only.
    let in_flight = sums.report.transfers.in_flight();
    if let Some(ended) = ended {
        sums.add_counters(&ended.report);
        sums.rails.merge_ended(&ended.rails);
    }
    let report = &sums.report;
    out.number(&metrics::PEER_CONNECTIONS, labels, sums.connections);
    out.number(&metrics::PEER_LANES, labels, sums.lane_count);
    out.number(&metrics::PEER_HEALTHY_LANES, labels, report.healthy_lanes);
    out.number(&metrics::PEER_IN_FLIGHT, labels, in_flight.transfers);
    out.number(&metrics::PEER_IN_FLIGHT_BYTES, labels, in_flight.bytes);
    out.seconds(&metrics::PEER_OLDEST_AGE, labels, report.oldest);
    out.number(&metrics::PEER_NOTIFICATIONS_SENT, labels, report.notifications_sent);
    for (index, lane) in &report.lanes {
        // Of further rails those that have had neither are left out: with eight rails these are most of the page.
        if *index >= LANES_OF_FIRST_RAIL && lane.retries == 0 && lane.rebuilds == 0 {
            continue;
        }
        let labels = [peer.clone(), ("lane", index.to_string())];
        out.number(&metrics::PEER_LANE_RETRIES, &labels, lane.retries);
        out.number(&metrics::PEER_LANE_REBUILDS, &labels, lane.rebuilds);
    }
    sums.rails.write_peer(&peer, out);
    for (direction, path, totals) in report.transfers.iter() {
        for (end, amount) in EndState::ALL.iter().zip(totals.ended) {
            // An outcome that has not occurred is left out: with many peers these are most of the page.
            if *end == EndState::Done || amount.transfers > 0 || amount.bytes > 0 {
                let labels = [
                    peer.clone(),
                    ("direction", direction.to_string()),
                    ("path", path.to_owned()),
                    ("outcome", end.name().to_owned()),
                ];
                out.number(&metrics::PEER_ENDED, &labels, amount.transfers);
                out.number(&metrics::PEER_ENDED_BYTES, &labels, amount.bytes);
            }
        }
    }
}

//! What is told of the rails of a connection.

use super::rail_record::RailRecord;
use super::{Connection, LaneHandle};
use crate::observe::{Direction, RailInfo, RailReport, RailStatus, TransferSource, TransferTotals};
use crate::pool::LaneHealth;

/// A rail of a connection, for those that look at it.
struct SeenRail<'a> {
    record: &'a RailRecord,
    lanes: &'a [LaneHandle],
}

impl Connection {
    /// The rails of the connection as they are now, by their number: the NICs at both ends, whether transfers go over them, and
    /// what they have carried. Empty in a forked child. Takes some microseconds, and no lock of a worker.
    ///
    /// A peer that runs the original engine has one, and so has a connection of an engine with one NIC.
    pub fn rails(&self) -> Vec<RailInfo> {
        if !self.is_here() {
            return Vec::new();
        }
        self.seen_rails().map(|rail| rail.report().info).collect()
    }

    /// What the rails report to metrics.
    pub(super) fn rail_reports(&self) -> Vec<RailReport> {
        self.seen_rails().map(|rail| rail.report()).collect()
    }

    /// Every rail that has been made, by its number.
    fn seen_rails(&self) -> impl Iterator<Item = SeenRail<'_>> {
        let first = SeenRail { record: &self.first_rail, lanes: &self.lanes };
        let further = self.rails.made().filter(|(_, rail)| rail.is_added());
        let further = further.map(|(_, rail)| SeenRail { record: &rail.record, lanes: &rail.lanes });
        std::iter::once(first).chain(further)
    }
}

impl SeenRail<'_> {
    fn report(&self) -> RailReport {
        let recorded = self.record.read();
        let healthy_lanes =
            self.lanes.iter().filter(|lane| lane.status.health() == LaneHealth::Healthy).count();
        let totals = self.totals();
        let done = |direction| {
            let of_direction = totals.iter().filter(|(found, ..)| *found == direction);
            of_direction.fold(0_u64, |sum, (.., totals)| sum.wrapping_add(totals.ended[0].bytes))
        };
        let is_closed = self.lanes.iter().all(|lane| lane.status.health() == LaneHealth::Closed);
        let status = match recorded.status {
            // Of a connection that has ended.
            _ if is_closed => RailStatus::Down,
            // Its lanes fail before its state is told, and a connection that ends closes them.
            RailStatus::Up if healthy_lanes == 0 => RailStatus::Down,
            status => status,
        };
        let info = RailInfo {
            rail: self.record.rail(),
            nic: self.record.nic().to_owned(),
            peer_nic: recorded.peer_nic,
            status,
            lanes: self.lanes.iter().filter(|lane| lane.status.was_made()).count(),
            healthy_lanes,
            written_bytes: done(Direction::Write),
            read_bytes: done(Direction::Read),
            in_flight_bytes: self.in_flight_bytes(),
            rate_bytes_per_second: recorded.rate,
            moved_parts: recorded.moved_parts,
            pauses: recorded.pauses.iter().sum(),
            last_pause: recorded.last_pause,
            latency: recorded.latency,
        };
        RailReport { info, pauses: recorded.pauses }
    }

    /// Without the parts that have left for other rails, which totals know by where they began.
    fn in_flight_bytes(&self) -> u64 {
        let bytes = self.lanes.iter().map(|lane| lane.status.counts.bytes());
        bytes.fold(0, |sum, (had, ended)| sum.wrapping_add(had.saturating_sub(ended)))
    }

    /// A part may begin on one lane and end on another: what ended is read first, of all.
    fn totals(&self) -> TransferTotals {
        let mut totals = TransferTotals::default();
        self.lanes.iter().for_each(|lane| lane.status.counts.add_ended(&mut totals));
        self.lanes.iter().for_each(|lane| lane.status.counts.add_started(&mut totals));
        totals
    }
}

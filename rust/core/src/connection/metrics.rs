//! What a connection reports to operators.

use std::collections::HashMap;
use std::time::Duration;

use super::{Connection, LaneHandle};
use crate::observe::{ConnectionReport, LaneReport, SlowTransfer, Snapshot, Source, registry};
use crate::pool::{LaneHealth, UnfinishedPart};
use crate::sync::Ordering;

impl Source for Connection {
    fn collect(&self, out: &mut Snapshot) {
        if !self.reported.load(Ordering::Relaxed) {
            out.connection(&self.peer_name, &self.report());
        }
    }

    fn slow_transfers(&self, older_than: Duration, out: &mut Vec<SlowTransfer>) {
        if self.is_here() {
            self.add_slow_transfers(older_than, out);
        }
    }
}

impl Connection {
    /// Its counts become part of those of the connections that have ended. Once, after its transfers have ended.
    pub(super) fn end_report(&self) {
        registry().end_connection(&self.peer_name, || {
            self.reported.store(true, Ordering::Relaxed);
            self.report()
        });
    }

    fn report(&self) -> ConnectionReport {
        let mut report = ConnectionReport {
            notifications_sent: self.notified.load(Ordering::Relaxed),
            ..ConnectionReport::default()
        };
        for lane in &self.lanes {
            self.add_lane(lane, &mut report);
            lane.status.counts.add_to(&mut report.transfers);
            let (retries, rebuilds) = (lane.status.counts.retries(), lane.status.counts.rebuilds());
            report.lanes.push(LaneReport { retries, rebuilds });
            report.healthy_lanes += u64::from(lane.status.health() == LaneHealth::Healthy);
        }
        for lane in self.gpu.handles() {
            self.add_lane(&lane, &mut report);
        }
        self.gpu.counts.add_to(&mut report.transfers);
        report
    }

    fn add_lane(&self, lane: &LaneHandle, report: &mut ConnectionReport) {
        let oldest = lane.worker.with_state(|state| state.oldest_age(lane.key));
        report.oldest = report.oldest.max(oldest.unwrap_or_default());
    }

    /// The transfers of this connection that have not ended for at least `older_than`.
    pub(crate) fn add_slow_transfers(&self, older_than: Duration, out: &mut Vec<SlowTransfer>) {
        let (mut found, mut parts) = (Vec::new(), Vec::new());
        for (index, lane) in self.lanes.iter().chain(&self.gpu.handles()).enumerate() {
            lane.worker.with_state(|state| state.unfinished(lane.key, older_than, &mut parts));
            found.extend(parts.drain(..).map(|part| (index as u32, part)));
        }
        if found.is_empty() {
            return;
        }
        let ids = self.context.transfers.ids_by_task();
        let mut by_owner: HashMap<usize, SlowTransfer> = HashMap::new();
        for (lane, part) in found {
            let peer = &self.peer.control;
            by_owner
                .entry(part.owner)
                .or_insert_with(|| SlowTransfer {
                    id: ids.get(&part.owner).copied().unwrap_or_default(),
                    peer: peer.to_string(),
                    opcode: part.opcode.into(),
                    path: part.path,
                    bytes: 0,
                    lanes: Vec::new(),
                    pieces: 0,
                    pieces_done: 0,
                    age: Duration::ZERO,
                })
                .add(lane, &part);
        }
        out.extend(by_owner.into_values());
    }
}

impl SlowTransfer {
    fn add(&mut self, lane: u32, part: &UnfinishedPart) {
        self.bytes += part.bytes;
        self.pieces += part.requests as u64;
        self.pieces_done += part.done as u64;
        self.age = self.age.max(part.age);
        if self.lanes.last() != Some(&lane) {
            self.lanes.push(lane);
        }
    }
}

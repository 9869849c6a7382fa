//! What a connection reports to operators.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::Connection;
use crate::observe::{
    ConnectionRails, ConnectionReport, LaneReport, SlowTransfer, Snapshot, Source, TransferSource,
    TransferTotals, registry,
};
use crate::pool::{LaneHealth, UnfinishedPart};
use crate::sync::Ordering;

impl Source for Connection {
    fn collect(&self, out: &mut Snapshot) {
        if !self.reported.load(Ordering::Relaxed) {
            let mut report = self.report();
            for lane in self.all_lanes().map(|(_, lane)| lane).chain(&self.gpu.handles()) {
                // The worker's lock is taken once, however many lanes of however many connections it has.
                let ask = || lane.worker.with_state(|state| state.oldest_ages());
                let age = out.ages(Arc::as_ptr(&lane.worker).addr(), ask).get(&lane.key.number());
                report.oldest = report.oldest.max(age.copied().unwrap_or_default());
            }
            out.connection(&self.peer_name, &report);
        }
    }

    fn slow_transfers(&self, older_than: Duration, out: &mut Vec<SlowTransfer>) {
        if self.is_here() {
            self.add_slow_transfers(older_than, out);
        }
    }

    fn rails(&self) -> Option<ConnectionRails> {
        let lists = self.is_here() && !self.reported.load(Ordering::Relaxed);
        lists.then(|| ConnectionRails {
            connection: self.number,
            peer: self.peer.control.to_string(),
            channel: self.channel_record.info(),
            rails: self.rails(),
        })
    }
}

impl Connection {
    /// Its counts become part of those of the connections that have ended. Once, after its transfers have ended: all but copies that go
    /// on, which are counted when they end.
    pub(super) fn end_report(&self) {
        registry().end_connection(&self.peer_name, self.counts(), || {
            self.reported.store(true, Ordering::Relaxed);
            self.report()
        });
    }

    fn report(&self) -> ConnectionReport {
        let mut report = ConnectionReport {
            notifications_sent: self.notified.load(Ordering::Relaxed),
            transfers: self.transfers(),
            rails: self.rail_reports(),
            ..ConnectionReport::default()
        };
        for (index, lane) in self.all_lanes().filter(|(_, lane)| lane.status.was_made()) {
            let (retries, rebuilds) = (lane.status.counts.retries(), lane.status.counts.rebuilds());
            report.lanes.insert(index, LaneReport { retries, rebuilds });
            report.healthy_lanes += u64::from(lane.status.health() == LaneHealth::Healthy);
        }
        report
    }

    /// Where its transfers are counted.
    fn counts(&self) -> Vec<Arc<dyn TransferSource>> {
        let lanes =
            self.all_lanes().map(|(_, lane)| Arc::clone(&lane.status.counts) as Arc<dyn TransferSource>);
        lanes.chain([Arc::clone(&self.gpu.counts) as _, Arc::clone(&self.unplaced) as _]).collect()
    }

    /// What was counted of its transfers. A transfer may begin on one lane and end on another: what ended is read first, of all.
    pub(super) fn transfers(&self) -> TransferTotals {
        let (counts, mut totals) = (self.counts(), TransferTotals::default());
        counts.iter().for_each(|counts| counts.add_ended(&mut totals));
        counts.iter().for_each(|counts| counts.add_started(&mut totals));
        totals
    }

    /// The transfers of this connection that have not ended for at least `older_than`.
    pub(crate) fn add_slow_transfers(&self, older_than: Duration, out: &mut Vec<SlowTransfer>) {
        let (mut found, mut parts) = (Vec::new(), Vec::new());
        let gpu = self.gpu.handles();
        let of_gpu = gpu.iter().enumerate().map(|(index, lane)| (self.lanes.len() + index, lane));
        for (index, lane) in self.all_lanes().chain(of_gpu) {
            if lane.status.counts.is_idle() {
                continue;
            }
            lane.worker.with_state(|state| state.unfinished(lane.key, older_than, &mut parts));
            found.extend(parts.drain(..).map(|part| (index as u32, part)));
        }
        if found.is_empty() {
            return;
        }
        let by_record = self.context.transfers.by_record();
        let mut by_owner: HashMap<(usize, u64), SlowTransfer> = HashMap::new();
        for (lane, part) in found {
            // It may have ended meanwhile.
            let Some(id) = by_record.id(part.owner, part.generation) else { continue };
            let peer = &self.peer.control;
            by_owner
                .entry((part.owner, part.generation))
                .or_insert_with(|| SlowTransfer {
                    id,
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

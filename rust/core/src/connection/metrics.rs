//! The metrics of a connection.

use super::Connection;
use crate::observe::{Snapshot, Source, metrics};
use crate::sync::Ordering;

impl Source for Connection {
    fn collect(&self, out: &mut Snapshot) {
        if self.is_closed() {
            return;
        }
        let info = self.info();
        let labels = [("peer", info.peer), ("path", info.paths.to_string())];
        out.number(&metrics::PEER_LANES, &labels, info.lanes as u64);
        out.number(&metrics::PEER_HEALTHY_LANES, &labels, info.healthy_lanes as u64);
        out.number(&metrics::LANE_REBUILDS, &labels, self.rebuilt.load(Ordering::Relaxed));
        out.number(&metrics::PEER_NOTIFICATIONS_SENT, &labels, self.notified.load(Ordering::Relaxed));
    }
}

//! What a connection tells operators.

use super::Connection;
use crate::observe::{Snapshot, Source, metrics};

impl Source for Connection {
    fn collect(&self, out: &mut Snapshot) {
        if self.is_closed() {
            return;
        }
        let info = self.info();
        let labels = [("peer", info.peer), ("path", info.path.to_string())];
        out.number(&metrics::LANES, &labels, info.lanes as u64);
        out.number(&metrics::HEALTHY_LANES, &labels, info.healthy_lanes as u64);
    }
}

//! Closing the connections of an engine: all at once, so that many take no longer than one.

use std::sync::Arc;
use std::time::Instant;

use super::{CLOSED, CLOSED_HERE, Connection, DRAIN_LIMIT};
use crate::pool::Verdict;
use crate::sync::Ordering;

impl Connection {
    /// [`Connection::close`] of many, which are drained at the same time: no longer than one of them may take.
    pub(crate) fn close_all(connections: &[Arc<Self>]) {
        let deadline = Instant::now() + DRAIN_LIMIT;
        for connection in connections {
            connection.stop();
            for lane in &connection.lanes {
                // True or false: what is not drained yet is closed below.
                let _ = lane
                    .worker
                    .with_state(|state| state.close_lane(lane.key, Verdict::Cancelled, CLOSED_HERE));
            }
        }
        for connection in connections {
            connection.end(Verdict::Cancelled, CLOSED_HERE, deadline);
        }
    }

    /// Allows no new transfer, and no rebuild of a lane.
    pub(super) fn stop(&self) {
        self.gate.fetch_or(CLOSED, Ordering::SeqCst);
        self.questions.end();
        if let Some((recovery, _)) = self.recovery.get() {
            recovery.stop();
        }
    }
}

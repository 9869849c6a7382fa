//! The lines of the log about a connection as a whole: made, and ended. One each, at INFO or above.

use std::time::Instant;

use super::Connection;
use crate::observe::{EventKind, event_log, report};
use crate::pool::{EndState, LaneHealth};

impl Connection {
    /// It has been made. `began` is when the call to connect, or the handshake of the peer, began.
    pub(super) fn log_connected(&self, began: Instant) {
        tracing::info!(
            peer = %self.peer.control,
            path = %self.paths,
            device = self.context.pool.device().attributes().name,
            lanes = self.lanes.len(),
            role = if self.leads { "connects" } else { "accepts" },
            local = self.peer.local,
            regions = self.remote.table().len(),
            ms = began.elapsed().as_millis() as u64,
            "connected"
        );
        // Its line has fields that the event log has as text.
        let text = format!("connected: path {}, {} lanes", self.paths, self.lanes.len());
        let device = self.context.pool.device().attributes().name.clone();
        event_log().record(EventKind::Connected, Some(self.peer.control.to_string()), Some(device), text);
    }

    /// It ends, for `reason`. Called before anything of it is closed.
    pub(super) fn log_end(&self, verdict: EndState, reason: &str) {
        let peer = &self.peer.control;
        // A peer that ends while no transfer is in flight is not worth a warning. The end of its sockets may be seen before a lane
        // fails, or after. This side's end closes lanes too.
        let is_lost = verdict == EndState::Failed
            && !self.is_closed()
            && (self.lanes.iter().any(|lane| lane.status.health() != LaneHealth::Healthy)
                || self.transfers().in_flight().transfers > 0);
        if is_lost {
            report!(warn, ConnectionLost, peer = peer, "connection lost: {reason}");
        } else {
            report!(info, ConnectionEnded, peer = peer, "connection ended: {reason}");
        }
    }
}

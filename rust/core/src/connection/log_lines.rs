//! The lines of the log about a connection as a whole: made, and ended. One each, at INFO or above.

use std::time::Instant;

use super::Connection;
use super::close::Ending;
use crate::observe::{EventKind, event_log, report};
use crate::pool::LaneHealth;

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

    /// It ends as `how` says, for `reason`. Called before anything of it is closed.
    pub(super) fn log_end(&self, how: Ending, reason: &str) {
        let peer = &self.peer.control;
        let under_way = self.transfers().in_flight().transfers;
        // A peer that ends while no transfer is in flight is not worth a warning. The end of its sockets may be seen before a lane
        // fails, or after. This side's end closes lanes too, and so does the peer's before its Goodbye arrives.
        let is_lost = how == Ending::Lost
            && !self.is_closed()
            && (self.lanes.iter().any(|lane| lane.status.health() != LaneHealth::Healthy) || under_way > 0);
        if how == Ending::ClosedByPeer && under_way > 0 && !self.is_closed() {
            let transfers = if under_way == 1 { "transfer" } else { "transfers" };
            report!(
                info,
                ConnectionEnded,
                peer = peer,
                "connection ended: {reason}, with {under_way} {transfers} of this side in flight, which fail"
            );
        } else if is_lost {
            report!(warn, ConnectionLost, peer = peer, "connection lost: {reason}");
        } else {
            report!(info, ConnectionEnded, peer = peer, "connection ended: {reason}");
        }
    }
}

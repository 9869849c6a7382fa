//! The end of connections: closed by this side, one or all of an engine, or lost with the peer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{CANCELS, CLOSED, CLOSED_HERE, Connection, DRAIN_LIMIT, DeviceHealth, LaneHandle, rail_places};
use crate::control::ChannelFrame;
use crate::pool::EndState;
use crate::sync::lock;

/// What ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// This side closes it.
    ClosedHere,
    /// The peer has closed it, and has said so.
    ClosedByPeer,
    /// The peer, its host, the network or the device has failed.
    Lost,
}

impl Ending {
    /// How the transfers in flight end.
    fn end_state(self) -> EndState {
        match self {
            Self::ClosedHere => EndState::Cancelled,
            Self::ClosedByPeer | Self::Lost => EndState::Failed,
        }
    }
}

impl Connection {
    /// [`Connection::close`] for many connections, which are drained concurrently: takes no longer than one of them
    /// may take.
    pub(crate) fn close_all(connections: &[Arc<Self>]) {
        let deadline = Instant::now() + DRAIN_LIMIT;
        for connection in connections {
            connection.stop(Ending::ClosedHere);
            for (_, lane) in connection.all_lanes() {
                // The result is ignored: what is not drained yet is closed below.
                let _ = lane.worker.close_lane(lane.key, EndState::Cancelled, CLOSED_HERE);
            }
        }
        for connection in connections {
            connection.end(Ending::ClosedHere, CLOSED_HERE, deadline);
        }
    }

    /// Refuses new transfers and rebuilds of lanes from now on.
    pub(super) fn stop(&self, how: Ending) {
        let closed = if how == Ending::ClosedHere { CLOSED | CANCELS } else { CLOSED };
        rail_places::shut(&self.gate, closed);
        self.sync_requests.end();
        if let Some((recovery, _)) = self.recovery.get() {
            recovery.stop();
        }
    }

    /// It ends from outside, and every transfer in flight fails. Queue pairs that are not drained by `deadline` are
    /// destroyed.
    pub(super) fn lose(&self, how: Ending, reason: &str, deadline: Instant) {
        self.end(how, reason, deadline);
    }

    /// Ends every transfer, once. A second caller (this side closes while the peer does) waits for the first: when
    /// this returns, no transfer of the connection accesses memory any more, but for copies of a GPU that did not end in time.
    pub(super) fn end(&self, how: Ending, reason: &str, deadline: Instant) {
        let end_state = how.end_state();
        self.ended.call_once_force(|_| {
            self.log_end(how, reason);
            self.stop(how);
            // A peer that is not told waits for a channel that can be made anew.
            let says_so = how == Ending::ClosedHere || how == Ending::Lost && self.channel.is_resumable();
            if self.peer.ours && says_so {
                // Optional: the peer also sees the socket close. Not earlier: the peer closes its end at once, and
                // the recovery must not see that first and fail the transfers that are to be cancelled.
                let patience = deadline.min(Instant::now() + Duration::from_millis(100));
                let _ = self.channel.send(&ChannelFrame::Goodbye, patience);
            }
            self.channel.shutdown();
            // A rail that is being made meanwhile is closed by the thread that makes it.
            for (_, lane) in self.all_lanes() {
                self.close_lane(lane, end_state, reason, deadline);
            }
            self.rebuilds.end();
            drop(lock(&self.connected_host).take());
            let copies_ended = self.gpu.close(end_state, reason, deadline);
            // Of transfers that have ended, too.
            let patience = match how {
                Ending::ClosedHere => deadline.min(Instant::now() + Duration::from_millis(100)),
                _ => Instant::now(),
            };
            self.end_notifications(patience);
            self.end_report();
            if !copies_ended {
                tracing::warn!(
                    peer = %self.peer.control,
                    "copies of GPU memory continue after the connection has ended: their memory stays in use until they are done"
                );
            }
        });
    }

    /// Closes a lane: moves its queue pair to ERROR, drains and destroys it.
    pub(super) fn close_lane(&self, lane: &LaneHandle, end_state: EndState, reason: &str, deadline: Instant) {
        while !self.try_close_lane(lane, end_state, reason, deadline) {
            std::thread::yield_now();
        }
    }

    /// One step of [`Connection::close_lane`]; false while the queue pair is being drained. A queue pair that is not
    /// flushed by `deadline` is destroyed.
    pub(super) fn try_close_lane(
        &self,
        lane: &LaneHandle,
        end_state: EndState,
        reason: &str,
        deadline: Instant,
    ) -> bool {
        if lane.worker.close_lane(lane.key, end_state, reason) {
            return true;
        }
        let _ = lane.worker.drive_as_caller();
        // A lost device reports no completions.
        let is_lost = matches!(lane.device_health(), DeviceHealth::Lost(_));
        let is_late = is_lost || Instant::now() >= deadline;
        if is_late {
            tracing::warn!(peer = %self.peer.control, "a queue pair was not drained in time and is destroyed with its requests outstanding");
            lane.worker.destroy_lane(lane.key, end_state, reason);
        }
        is_late
    }
}

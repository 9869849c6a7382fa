//! How connections end: closed here, one or all of an engine at once, or lost with their peer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{CLOSED, CLOSED_HERE, Connection, DRAIN_LIMIT, DeviceHealth, LaneHandle};
use crate::control::ChannelFrame;
use crate::pool::{EndState, LaneHealth};
use crate::sync::{Ordering, lock};

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
                    .with_state(|state| state.close_lane(lane.key, EndState::Cancelled, CLOSED_HERE));
            }
        }
        for connection in connections {
            connection.end(EndState::Cancelled, CLOSED_HERE, deadline);
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

    /// The peer is gone: every transfer in flight fails. What is not drained by `deadline` is destroyed.
    pub(super) fn lose(&self, reason: &str, deadline: Instant) {
        if !self.is_closed() {
            // A peer that leaves while nothing is under way is no trouble.
            if self.lanes.iter().any(|lane| lane.status.health() != LaneHealth::Healthy) {
                tracing::warn!(peer = %self.peer.control, "connection lost: {reason}");
            } else {
                tracing::info!(peer = %self.peer.control, "connection ended: {reason}");
            }
        }
        self.end(EndState::Failed, reason, deadline);
    }

    /// Ends every transfer, once. A second caller (we close while the peer does) waits for the first: when this returns,
    /// nothing of the connection touches memory any more.
    pub(super) fn end(&self, verdict: EndState, reason: &str, deadline: Instant) {
        self.ended.call_once_force(|_| {
            self.stop();
            if self.peer.ours && verdict == EndState::Cancelled {
                // A courtesy: the peer sees the socket close anyway. Not before this: it hangs up at once, and the
                // recovery must not notice that first and fail what is to be cancelled.
                let patience = deadline.min(Instant::now() + Duration::from_millis(100));
                let _ = self.channel.send(&ChannelFrame::Goodbye, patience);
            }
            self.channel.shutdown();
            for lane in &self.lanes {
                self.close_lane(lane, verdict, reason, deadline);
            }
            self.rebuilds.end();
            drop(lock(&self.connected_host).take());
            if !self.gpu.close(verdict, reason, deadline) {
                tracing::warn!(
                    peer = %self.peer.control,
                    "copies of GPU memory go on after the connection has ended: their memory stays in use until they are done"
                );
            }
        });
    }

    /// Closes a lane: ERROR, drained, gone.
    pub(super) fn close_lane(&self, lane: &LaneHandle, verdict: EndState, reason: &str, deadline: Instant) {
        while !self.try_close_lane(lane, verdict, reason, deadline) {
            std::thread::yield_now();
        }
    }

    /// One step of it; false while the queue pair is being drained. A flush that does not come by `deadline` ends with the
    /// queue pair's destruction.
    pub(super) fn try_close_lane(
        &self,
        lane: &LaneHandle,
        verdict: EndState,
        reason: &str,
        deadline: Instant,
    ) -> bool {
        if lane.worker.with_state(|state| state.close_lane(lane.key, verdict, reason)) {
            return true;
        }
        let _ = lane.worker.drive_as_caller();
        // Nothing comes from a lost device.
        let is_lost = matches!(self.context.device_health(), DeviceHealth::Lost(_));
        let is_late = is_lost || Instant::now() >= deadline;
        if is_late {
            tracing::warn!(peer = %self.peer.control, "a queue pair was not drained in time and is destroyed");
            lane.worker.with_state(|state| state.destroy_lane(lane.key, verdict, reason));
        }
        is_late
    }
}

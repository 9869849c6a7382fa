//! What the recovery has done to lanes: they are broken, given up, and rebuilt.

use std::sync::Arc;
use std::time::Instant;

use super::{Connection, LaneBuilder};
use crate::control::LaneSetup as _;
use crate::control::wire::LaneRecord;
use crate::events::Wakeup;
use crate::fabric::{FabricError, PathOptions, QueuePair};
use crate::pool::{EndState, LaneHealth, LaneWatcher};

/// Called by the connection's recovery. These calls block for commands of the device, never for the peer.
impl Connection {
    pub(super) fn break_lane(&self, lane: usize, reason: &str) {
        if let Some(lane) = self.lanes.get(lane) {
            lane.worker.with_state(|state| state.break_lane(lane.key, reason));
        }
    }

    /// One step of closing a lane for good, while the others go on; false while it is being drained.
    pub(super) fn try_give_up(&self, index: usize, reason: &str, deadline: Instant) -> bool {
        let Some(lane) = self.lanes.get(index) else { return true };
        if lane.status.health() == LaneHealth::Closed {
            return true;
        }
        let is_closed = self.try_close_lane(lane, EndState::Failed, reason, deadline);
        if is_closed {
            let ms = lane.status.broken_for().as_millis() as u64;
            tracing::warn!(peer = %self.peer.control, lane = index, ms, "a lane is given up: {reason}");
        }
        is_closed
    }

    /// Puts a connected queue pair in the place of a drained one.
    pub(super) fn heal(&self, index: usize, queue_pair: Box<dyn QueuePair>) {
        let Some(lane) = self.lanes.get(index) else { return };
        let (cause, ms) = (lane.status.reason(), lane.status.broken_for().as_millis() as u64);
        // One of the two is destroyed here, without the worker's lock.
        let replaced = lane.worker.with_state(|state| state.heal_lane(lane.key, queue_pair));
        if replaced.is_err() {
            return;
        }
        tracing::info!(peer = %self.peer.control, lane = index, ms, cause, "a lane is rebuilt");
        lane.worker.kick();
    }

    /// A queue pair that can take a lane's place.
    pub(super) fn fresh_queue_pair(
        &self,
        lane: usize,
    ) -> Result<(Box<dyn QueuePair>, LaneRecord), FabricError> {
        let handle = self
            .lanes
            .get(lane)
            .ok_or_else(|| FabricError::Unsupported("the connection has no such lane".to_owned()))?;
        let queue_pair = LaneBuilder::create_on(&self.context, &handle.worker)?;
        let granted = queue_pair.caps();
        // The requests that wait were made for what the lanes were granted at first.
        if !self.policy.fits(granted.max_sge, granted.max_inline) {
            return Err(FabricError::Unsupported(format!(
                "it was granted {} entries per request and {} bytes inline, less than the one before",
                granted.max_sge, granted.max_inline
            )));
        }
        tracing::debug!(peer = %self.peer.control, lane, reason = handle.status.reason(), "rebuilding a lane");
        let capabilities = Some(LaneBuilder::new(Arc::clone(&self.context)).capabilities());
        let record = LaneRecord { address: queue_pair.address(), capabilities };
        Ok((queue_pair, record))
    }

    pub(super) fn path_options(&self, deadline: Instant) -> PathOptions {
        LaneBuilder::path_options(&self.context, self.capabilities, deadline)
    }
}

/// Passes a lane's change on to the recovery.
#[derive(Debug)]
pub(super) struct RecoveryNotifier(pub(super) Arc<Wakeup>);

impl LaneWatcher for RecoveryNotifier {
    fn lane_changed(&self) {
        self.0.wake();
    }
}

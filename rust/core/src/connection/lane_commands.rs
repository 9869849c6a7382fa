//! What the recovery has done to lanes: they are broken, given up, and rebuilt.

use std::sync::Arc;
use std::time::Instant;

use super::lanes::{LaneHandle, capabilities_of};
use super::rail::LANES_PER_RAIL;
use super::{Connection, DeviceHealth, LaneBuilder};
use crate::control::wire::LaneRecord;
use crate::events::Wakeup;
use crate::fabric::{Device, FabricError, PathOptions, QueuePair, QueuePairCaps};
use crate::observe::report;
use crate::pool::{EndState, LaneHealth, LaneWatcher};
use crate::sync::Ordering;

/// Called by the connection's recovery. These calls block for commands of the device, never for the peer.
impl Connection {
    pub(super) fn break_lane(&self, lane: usize, reason: &str) {
        if let Some(lane) = self.lane(lane) {
            lane.worker.with_state(|state| state.break_lane(lane.key, reason));
        }
    }

    /// One step of closing a lane for good, while the others go on.
    pub(super) fn try_give_up(&self, index: usize, reason: &str, deadline: Instant) -> GiveUp {
        let Some(lane) = self.lane(index) else { return GiveUp::Closed };
        if lane.status.health() == LaneHealth::Closed {
            return GiveUp::Closed;
        }
        let step = match self.has_rails() {
            true => self.try_leave_for_good(index, lane, reason, deadline),
            false => GiveUp::when(self.try_close_lane(lane, EndState::Failed, reason, deadline)),
        };
        if step == GiveUp::Closed {
            let (peer, ms) = (&self.peer.control, lane.status.broken_for().as_millis());
            report!(warn, LaneGivenUp, peer = peer, "lane {index} is given up after {ms} ms: {reason}");
            self.note_recovered(index);
        }
        step
    }

    /// One step of giving a lane up where there are other rails: what was never posted goes there, and so does what is still on its way to the
    /// lane.
    fn try_leave_for_good(&self, index: usize, lane: &LaneHandle, reason: &str, deadline: Instant) -> GiveUp {
        let (taken, closing) = lane.worker.with_state(|state| state.give_up_lane(lane.key, reason));
        let is_closed = closing.is_closed();
        // Its queue pair is destroyed without the worker's lock.
        drop(closing);
        self.place_elsewhere(index, lane, taken);
        if is_closed {
            return GiveUp::Closed;
        }
        let _ = lane.worker.drive_as_caller();
        let is_late = matches!(lane.device_health(), DeviceHealth::Lost(_)) || Instant::now() >= deadline;
        if !is_late || lane.status.health() != LaneHealth::Broken {
            return GiveUp::Draining;
        }
        if lane.worker.with_state(|state| state.can_destroy_undrained(lane.key)) {
            return GiveUp::Undrained;
        }
        GiveUp::when(self.try_close_lane(lane, EndState::Failed, reason, deadline))
    }

    /// Whether the device may still be at work on a lane that was closed: its queue pair is not destroyed yet, or could not be.
    pub(super) fn may_be_at_work(&self, lane: usize) -> bool {
        self.lane(lane).is_some_and(|lane| lane.status.health() != LaneHealth::Closed || lane.status.leaks())
    }

    /// Destroys the queue pair of a lane in ERROR that does not drain. Its parts go on elsewhere, or with the rebuild.
    pub(super) fn destroy_undrained(&self, lane: usize) {
        let Some(handle) = self.lane(lane) else { return };
        let ms = handle.status.broken_for().as_millis();
        if handle.worker.destroy_undrained(handle.key) {
            tracing::debug!(peer = %self.peer.control, lane, "a queue pair was not drained in {ms} ms and was destroyed");
        }
    }

    /// Its queue pair is to be destroyed later: until then the lane is not given up because it does not drain.
    pub(super) fn await_destroy(&self, lane: usize) {
        if let Some(lane) = self.lane(lane) {
            lane.worker.with_state(|state| state.await_destroy(lane.key));
        }
    }

    /// Puts a connected queue pair in the place of a drained one, or of none: that is no rebuild.
    pub(super) fn heal(&self, index: usize, queue_pair: Box<dyn QueuePair>) {
        let Some(lane) = self.lane(index) else { return };
        let (cause, ms) = (lane.status.reason(), lane.status.broken_for().as_millis());
        let is_rebuilt = lane.status.was_made();
        // One of the two is destroyed here, without the worker's lock.
        let replaced = lane.worker.with_state(|state| state.heal_lane(lane.key, queue_pair));
        if replaced.is_err() {
            return;
        }
        let peer = &self.peer.control;
        if is_rebuilt {
            report!(
                info,
                LaneRebuilt,
                peer = peer,
                "lane {index} is rebuilt, {ms} ms after it failed: {cause}"
            );
        }
        self.note_recovered(index);
        lane.worker.kick();
    }

    /// The recovery has found a lane out of working order. The first such find of each failure is an event.
    pub(super) fn note_broken(&self, lane: usize, reason: &str) {
        let bit = bit(lane);
        let before = self.broken_lanes.fetch_or(bit, Ordering::Relaxed);
        if before & bit != 0 {
            return;
        }
        let peer = &self.peer.control;
        report!(debug, LaneError, peer = peer, "lane {lane} left working order: {reason}");
        if before == 0 {
            report!(debug, RecoveryBegan, peer = peer, "the recovery of lanes began");
        }
    }

    /// A lane is back, or given up.
    fn note_recovered(&self, lane: usize) {
        let bit = bit(lane);
        if self.broken_lanes.fetch_and(!bit, Ordering::Relaxed) == bit {
            report!(debug, RecoveryEnded, peer = self.peer.control, "the recovery of lanes has ended");
        }
    }

    /// A queue pair that can take a lane's place.
    pub(super) fn fresh_queue_pair(
        &self,
        lane: usize,
    ) -> Result<(Box<dyn QueuePair>, LaneRecord), FabricError> {
        let handle = self
            .lane(lane)
            .ok_or_else(|| FabricError::Unsupported("the connection has no such lane".to_owned()))?;
        let device = self.device_of_lane(lane);
        let queue_pair = LaneBuilder::create_on(device, &self.context.settings, &handle.worker)?;
        self.check_grant(&queue_pair.caps()).map_err(FabricError::Unsupported)?;
        tracing::debug!(peer = %self.peer.control, lane, reason = handle.status.reason(), "rebuilding a lane");
        let capabilities = Some(capabilities_of(&**device));
        let record = LaneRecord { address: queue_pair.address(), capabilities };
        Ok((queue_pair, record))
    }

    /// Requests are made for what the lanes were granted at first.
    pub(super) fn check_grant(&self, granted: &QueuePairCaps) -> Result<(), String> {
        if self.policy.fits(granted.max_sge, granted.max_inline) {
            return Ok(());
        }
        let QueuePairCaps { max_sge, max_inline, .. } = granted;
        Err(format!(
            "a queue pair was granted {max_sge} entries a request and {max_inline} bytes inline, fewer than the first ones of the \
             connection"
        ))
    }

    pub(super) fn path_options(&self, lane: usize, deadline: Instant) -> PathOptions {
        LaneBuilder::path_options(&**self.device_of_lane(lane), self.capabilities, deadline)
    }

    fn device_of_lane(&self, lane: usize) -> &Arc<dyn Device> {
        let further = self.rails.get(lane / LANES_PER_RAIL);
        further.map_or_else(|| self.context.pool.device(), |rail| rail.nic.pool.device())
    }
}

/// What a step of giving a lane up has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GiveUp {
    Closed,
    /// It is being drained.
    Draining,
    /// It does not drain in time: its queue pair is to be destroyed, which may take long.
    Undrained,
}

impl GiveUp {
    fn when(is_closed: bool) -> Self {
        if is_closed { Self::Closed } else { Self::Draining }
    }
}

/// The place of a lane in a set; a connection has 64 at most.
pub(super) fn bit(lane: usize) -> u64 {
    u32::try_from(lane).ok().and_then(|lane| 1_u64.checked_shl(lane)).unwrap_or(0)
}

/// Passes a lane's change on to the recovery.
#[derive(Debug)]
pub(super) struct RecoveryNotifier(pub(super) Arc<Wakeup>);

impl LaneWatcher for RecoveryNotifier {
    fn lane_changed(&self) {
        self.0.wake();
    }
}

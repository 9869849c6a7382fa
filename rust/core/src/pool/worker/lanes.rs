//! Lanes as their connection handles them: added, broken, rebuilt, closed.

use std::sync::Arc;

use super::{EndState, WorkerState, condemn};
use crate::fabric::{Paths, QueuePair};
use crate::memory::{RegionId, RemoteRegion};
use crate::pool::PoolError;
use crate::pool::lane::{LaneHealth, LaneKey, LaneSetup, break_lane, make_ready};

impl WorkerState {
    /// Takes a connected queue pair as a new lane.
    pub fn add_lane(
        &mut self,
        queue_pair: Box<dyn QueuePair>,
        setup: LaneSetup,
    ) -> Result<LaneKey, PoolError> {
        self.lanes.insert(queue_pair, setup)
    }

    /// How the lane's bytes travel now, if it is there.
    pub fn paths(&mut self, key: LaneKey) -> Option<Paths> {
        self.lanes.get(key).map(|lane| lane.queue_pair.paths())
    }

    /// Whether there are lanes: without, nothing can be in flight.
    pub fn has_lanes(&self) -> bool {
        !self.lanes.is_empty()
    }

    /// Moves a lane to ERROR. Its outstanding requests will be flushed; steps go on until it is drained.
    pub fn break_lane(&mut self, key: LaneKey, reason: &str) {
        if let Some(lane) = self.lanes.get(key) {
            break_lane(lane, reason);
            self.settle_lane(key.index());
        }
    }

    /// As [`WorkerState::break_lane`], if the lane's queue pair is in ERROR already, which no completion tells where nothing is outstanding.
    pub fn notice_broken(&mut self, key: LaneKey, reason: &str) {
        if self.lanes.get(key).is_some_and(|lane| lane.queue_pair.is_broken()) {
            self.break_lane(key, reason);
        }
    }

    /// Whether the lane has no outstanding requests (or does not exist).
    pub fn is_drained(&mut self, key: LaneKey) -> bool {
        self.lanes.get(key).is_none_or(|lane| lane.outstanding == 0)
    }

    /// Replaces a drained queue pair by a fresh, connected one; interrupted parts go on.
    /// Gives the queue pair back if the lane is not waiting for one.
    pub fn heal_lane(
        &mut self,
        key: LaneKey,
        queue_pair: Box<dyn QueuePair>,
    ) -> Result<(), Box<dyn QueuePair>> {
        let Some(lane) = self.lanes.get(key).filter(|lane| lane.health() == LaneHealth::Drained) else {
            return Err(queue_pair);
        };
        lane.depth = queue_pair.caps().send_depth.max(1);
        lane.signal_every = (lane.depth / 4).max(1);
        lane.queue_pair = queue_pair;
        lane.set_health(LaneHealth::Healthy, "");
        make_ready(lane, &mut self.ready);
        Ok(())
    }

    /// Closes a lane for good: ERROR, and every part on it that has nothing outstanding ends with `reason`.
    /// True when it is drained and gone; else call again after more steps.
    pub fn close_lane(&mut self, key: LaneKey, state: EndState, reason: &str) -> bool {
        let Some(lane) = self.lanes.get(key) else { return true };
        lane.heals = false;
        break_lane(lane, reason);
        self.fail_waiting(key.index(), state, reason);
        let Some(lane) = self.lanes.get(key) else { return true };
        if lane.outstanding > 0 {
            return false;
        }
        lane.set_health(LaneHealth::Closed, reason);
        let left = lane.parts.first();
        self.lanes.remove(key);
        self.end_all(left, state, reason);
        true
    }

    /// Gives up waiting for a flush that does not come: destroys the queue pair, after which the device touches
    /// nothing of it, and ends its parts.
    pub fn destroy_lane(&mut self, key: LaneKey, state: EndState, reason: &str) {
        let Some(mut lane) = self.lanes.remove(key) else { return };
        let _ = lane.queue_pair.set_error();
        let status = Arc::clone(&lane.status);
        self.posted = self.posted.saturating_sub(lane.outstanding);
        let first = lane.parts.first();
        // Destroying the queue pair is what makes the parts' memory safe to release.
        drop(lane);
        self.end_all(first, state, reason);
        status.set(LaneHealth::Closed, reason);
    }

    /// Ends the parts of a lane that was taken out, from `first`, its oldest, on.
    fn end_all(&mut self, first: u32, state: EndState, reason: &str) {
        let mut next = first;
        while let Some(part) = self.parts.get(next) {
            let part_index = std::mem::replace(&mut next, part.behind());
            if let Some(owner) = part.owner {
                condemn(&self.early_ends, owner, state, reason);
            }
            self.end_part(part_index);
        }
    }

    /// No part that begins later uses a region that is being deregistered.
    pub fn forget_region(&mut self, region: RegionId) {
        for index in self.lanes.indices() {
            if let Some(lane) = self.lanes.at(index) {
                lane.recent.forget(region);
            }
        }
    }

    /// Regions of the lane's peer are gone: none of them is taken for granted any more.
    pub fn forget_remote(&mut self, key: LaneKey) {
        if let Some(lane) = self.lanes.get(key) {
            lane.recent.remote = RemoteRegion::default();
        }
    }

    /// Ends, as timed out, every part that uses a region, even if that costs its queue pairs: the way to get memory
    /// back from a device that goes on using it. Takes effect with the next steps.
    pub fn abort_users(&mut self, region: RegionId) {
        for part_index in 0..self.parts.capacity() {
            let Some(part) = self.parts.get(part_index) else { continue };
            let Some(owner) = part.owner else { continue };
            if part.list.uses(region) {
                owner.condemn(EndState::TimedOut);
                owner.abort();
                self.early_ends.note();
                self.next_deadline_check = 0;
            }
        }
    }
}

//! Lanes as their connection handles them: added, broken, rebuilt, closed.

use std::sync::Arc;

use super::{EndState, WorkerState, condemn};
use crate::fabric::{Paths, WorkQueue};
use crate::memory::{RegionId, RemoteRegion};
use crate::pool::PoolError;
use crate::pool::lane::{LaneHealth, LaneKey, LaneSetup, break_lane, make_ready};

impl WorkerState {
    /// Takes a connected queue pair as a new lane.
    pub fn add_lane(
        &mut self,
        queue_pair: Box<dyn WorkQueue>,
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

    /// The same if the lane's queue pair is in ERROR already, which no completion tells where nothing is outstanding.
    pub fn notice_broken(&mut self, key: LaneKey, reason: &str) {
        if self.lanes.get(key).is_some_and(|lane| lane.queue_pair.is_broken()) {
            self.break_lane(key, reason);
        }
    }

    /// Whether the lane has no outstanding requests (or does not exist).
    pub fn is_drained(&mut self, key: LaneKey) -> bool {
        self.lanes.get(key).is_none_or(|lane| lane.outstanding == 0)
    }

    /// Puts a fresh, connected queue pair in the place of a drained one; interrupted parts go on.
    /// Gives the queue pair back if the lane is not waiting for one.
    pub fn heal_lane(
        &mut self,
        key: LaneKey,
        queue_pair: Box<dyn WorkQueue>,
    ) -> Result<(), Box<dyn WorkQueue>> {
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
    pub fn close_lane(&mut self, key: LaneKey, verdict: EndState, reason: &str) -> bool {
        let Some(lane) = self.lanes.get(key) else { return true };
        lane.heals = false;
        break_lane(lane, reason);
        self.fail_waiting(key.index(), verdict, reason);
        let Some(lane) = self.lanes.get(key) else { return true };
        if lane.outstanding > 0 {
            return false;
        }
        lane.set_health(LaneHealth::Closed, reason);
        let left = lane.parts.first();
        self.lanes.take(key);
        self.end_all(left, verdict, reason);
        true
    }

    /// Gives up waiting for a flush that does not come: destroys the queue pair, after which the device touches
    /// nothing of it, and ends its parts. A lane that cannot be stopped becomes an orphan instead: its parts, and the memory that
    /// they hold, stay until the device is done with them.
    pub fn destroy_lane(&mut self, key: LaneKey, verdict: EndState, reason: &str) {
        if self.lanes.get(key).is_some_and(|lane| !lane.can_stop && lane.outstanding > 0) {
            self.orphan_lane(key, verdict, reason);
            return;
        }
        let Some(mut lane) = self.lanes.take(key) else { return };
        let _ = lane.queue_pair.set_error();
        let status = Arc::clone(&lane.status);
        self.posted = self.posted.saturating_sub(lane.outstanding);
        let first = lane.parts.first();
        // Destroying the queue pair is what makes the parts' memory safe to give back.
        drop(lane);
        self.end_all(first, verdict, reason);
        status.set(LaneHealth::Closed, reason);
    }

    #[cold]
    fn orphan_lane(&mut self, key: LaneKey, verdict: EndState, reason: &str) {
        let Some(lane) = self.lanes.get(key) else { return };
        lane.heals = false;
        lane.orphaned = Some((verdict, reason.to_owned()));
        break_lane(lane, reason);
        lane.status.set(LaneHealth::Closed, reason);
        self.fail_waiting(key.index(), verdict, reason);
    }

    /// Takes an orphan out that is drained.
    pub(super) fn end_orphan(&mut self, index: u16) {
        let Some(lane) = self.lanes.at(index) else { return };
        let (key, left) = (lane.key, lane.parts.first());
        let Some((verdict, reason)) = lane.orphaned.take() else { return };
        self.lanes.take(key);
        self.end_all(left, verdict, &reason);
    }

    /// Ends the parts of a lane that was taken out, from `first`, its oldest, on.
    fn end_all(&mut self, first: u32, verdict: EndState, reason: &str) {
        let mut next = first;
        while let Some(part) = self.parts.get(next) {
            let part_index = std::mem::replace(&mut next, part.behind());
            if let Some(task) = part.task {
                condemn(&self.early_ends, task, verdict, reason);
            }
            self.end_part(part_index);
        }
    }

    /// Lets go of a region that is being deregistered, as soon as no part uses it.
    pub fn forget_region(&mut self, region: RegionId) {
        for index in self.lanes.places() {
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
    /// back from a device that does not let go of it. Takes effect with the next steps.
    pub fn abort_users(&mut self, region: RegionId) {
        for part_index in 0..self.parts.slots() {
            let Some(part) = self.parts.get(part_index) else { continue };
            let Some(task) = part.task else { continue };
            let shared = part.list.shares_recent
                && self.lanes.at(part.lane).is_some_and(|lane| lane.recent.is_shared(region));
            if shared || part.list.holds.iter().any(|hold| hold.region().id == region) {
                task.condemn(EndState::TimedOut);
                task.abort(task.generation());
                self.early_ends.note();
                self.next_deadline_check = 0;
            }
        }
    }
}

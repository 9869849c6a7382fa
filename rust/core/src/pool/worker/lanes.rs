//! Lanes as their connection handles them: added, broken, rebuilt, closed.

use std::collections::BTreeSet;

use super::{EndState, WorkerState};
use crate::fabric::{Paths, WorkQueue};
use crate::memory::RegionId;
use crate::pool::PoolError;
use crate::pool::absent_queue_pair::AbsentQueuePair;
use crate::pool::lane::{Lane, LaneSetup, break_lane, make_ready, note_refusal, stop_lane};
use crate::pool::lane_key::LaneKey;
use crate::pool::lane_status::LaneHealth;

/// Answer of [`WorkerState::close_lane`].
#[derive(Debug)]
#[must_use = "a closed lane's queue pair is destroyed with it, which is better done without the worker's lock"]
pub enum LaneClose {
    /// Its queue pair is being drained: call again after more steps.
    Draining,
    /// It is gone; its queue pair, if it was there, is destroyed when this is dropped.
    Closed(Option<Box<dyn WorkQueue>>),
}

impl LaneClose {
    /// Whether the lane is gone.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed(_))
    }
}

impl WorkerState {
    /// Takes a connected queue pair as a new lane.
    pub fn add_lane(
        &mut self,
        queue_pair: Box<dyn WorkQueue>,
        setup: LaneSetup,
    ) -> Result<LaneKey, PoolError> {
        self.lanes.insert(queue_pair, setup)
    }

    /// Adds a lane without a queue pair, drained, for [`WorkerState::heal_lane`] to fill; `setup`'s status is best made by
    /// [`LaneStatus::absent`](crate::pool::LaneStatus::absent). Until then it takes parts as any drained lane does: that may wait, if `setup` says so.
    pub fn add_absent_lane(&mut self, setup: LaneSetup) -> Result<LaneKey, PoolError> {
        let key = self.lanes.insert(Box::new(AbsentQueuePair::new()), setup)?;
        if let Some(lane) = self.lanes.get(key) {
            lane.status.set_made(false);
            lane.set_health(LaneHealth::Drained, "not made yet");
        }
        Ok(key)
    }

    /// How the lane's bytes travel now, if it is there.
    pub fn paths(&mut self, key: LaneKey) -> Option<Paths> {
        self.lanes.get(key).map(|lane| lane.queue_pair.paths())
    }

    /// Whether there are lanes: without, nothing can be in flight.
    pub fn has_lanes(&self) -> bool {
        !self.lanes.is_empty()
    }

    /// Moves a lane to ERROR, as this end wants it. Its outstanding requests will be flushed; steps go on until it is drained.
    pub fn break_lane(&mut self, key: LaneKey, reason: &str) {
        if let Some(lane) = self.lanes.get(key) {
            stop_lane(lane, reason);
            self.settle_lane(key.index());
        }
    }

    /// Takes note of a lane of which the queue pair is in ERROR already, which no completion shows where nothing is outstanding, nor why.
    pub fn notice_broken(&mut self, key: LaneKey, reason: &str) {
        if let Some(lane) = self.lanes.get(key).filter(|lane| lane.queue_pair.is_broken()) {
            if lane.queue_pair.has_refused() {
                note_refusal(lane);
            }
            break_lane(lane, reason);
            self.settle_lane(key.index());
        }
    }

    /// Whether the lane has no outstanding requests (or does not exist).
    pub fn is_drained(&mut self, key: LaneKey) -> bool {
        let is_drained = |lane: &mut Lane| lane.outstanding == 0 && !lane.is_destroying;
        !self.lanes.is_detached(key) && self.lanes.get(key).is_none_or(is_drained)
    }

    /// Puts a fresh, connected queue pair in the place of a drained one, and answers that; interrupted parts go on.
    /// The first one of a lane that was [added without](WorkerState::add_absent_lane) is no rebuild.
    /// Gives the queue pair back as an error if the lane is not waiting for one. Either is best dropped without the worker's
    /// lock.
    pub fn heal_lane(
        &mut self,
        key: LaneKey,
        queue_pair: Box<dyn WorkQueue>,
    ) -> Result<Box<dyn WorkQueue>, Box<dyn WorkQueue>> {
        let Some(lane) = self.lanes.get(key).filter(|lane| lane.health() == LaneHealth::Drained) else {
            return Err(queue_pair);
        };
        lane.resists = false;
        lane.depth = queue_pair.caps().send_depth.max(1);
        lane.signal_every = (lane.depth / 4).max(1);
        let replaced = std::mem::replace(&mut lane.queue_pair, queue_pair);
        lane.status.set_direct(&*lane.queue_pair);
        lane.note_paths();
        if lane.status.was_made() {
            lane.status.counts.rebuilds.add(1);
        }
        lane.status.set_made(true);
        lane.set_health(LaneHealth::Healthy, "");
        let left = self.limits.left(self.posted);
        make_ready(lane, &mut self.ready, left);
        Ok(replaced)
    }

    /// Closes a lane for good: ERROR, and every part on it that has nothing outstanding ends with `reason`.
    pub fn close_lane(&mut self, key: LaneKey, state: EndState, reason: &str) -> LaneClose {
        if self.is_detached(key) {
            return LaneClose::Draining;
        }
        let Some(lane) = self.lanes.get(key) else { return LaneClose::Closed(None) };
        lane.heals = false;
        stop_lane(lane, reason);
        self.fail_waiting(key.index(), state, reason);
        let Some(lane) = self.lanes.get(key) else { return LaneClose::Closed(None) };
        if lane.outstanding > 0 || lane.is_destroying {
            return LaneClose::Draining;
        }
        lane.set_health(LaneHealth::Closed, reason);
        let left = lane.parts.first();
        let Some(lane) = self.lanes.remove(key) else { return LaneClose::Closed(None) };
        self.end_all(left, &lane.counts, state, reason);
        LaneClose::Closed(Some(lane.queue_pair))
    }

    /// The connection gives the lane up, but what is outstanding cannot be stopped: its parts, and the memory that they hold, stay
    /// until the device is done with them.
    #[cold]
    pub(super) fn orphan_lane(&mut self, key: LaneKey, state: EndState, reason: &str) {
        let Some(lane) = self.lanes.get(key) else { return };
        lane.heals = false;
        lane.orphaned = Some((state, reason.to_owned()));
        stop_lane(lane, reason);
        lane.status.set(LaneHealth::Closed, reason);
        self.fail_waiting(key.index(), state, reason);
    }

    /// Takes an orphan out that is drained.
    pub(super) fn end_orphan(&mut self, index: u16) {
        let Some(lane) = self.lanes.at(index) else { return };
        let (key, left) = (lane.key, lane.parts.first());
        let Some((state, reason)) = lane.orphaned.take() else { return };
        let Some(lane) = self.lanes.remove(key) else { return };
        self.end_all(left, &lane.counts, state, &reason);
    }

    /// No part that begins later uses regions that are being deregistered. All of them in one look at each lane and each free part.
    pub fn forget_regions(&mut self, regions: &BTreeSet<RegionId>) {
        for index in self.lanes.indices() {
            if let Some(lane) = self.lanes.at(index) {
                lane.recent.forget(regions);
            }
        }
        self.parts.forget(regions);
    }

    /// Regions of the lane's peer are gone: none of them is taken for granted any more.
    pub fn forget_remote(&mut self, key: LaneKey) {
        if let Some(lane) = self.lanes.get(key) {
            lane.recent.forget_remote();
        }
    }

    /// Ends, as timed out, every part that uses a region, even if that costs its queue pairs: the way to get memory
    /// back from a device that does not release it. Takes effect with the next steps.
    pub fn abort_users(&mut self, region: RegionId) {
        for part_index in 0..self.parts.capacity() {
            let Some(part) = self.parts.get(part_index) else { continue };
            let Some(owner) = part.owner else { continue };
            if part.list.uses(region) {
                owner.condemn(EndState::TimedOut);
                owner.abort();
                self.early_ends.note();
                (self.next_deadline_check, self.next_clock) = (0, 0);
            }
        }
    }
}

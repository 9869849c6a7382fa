//! Lanes that are destroyed before they are drained, because a flush does not come. To destroy a queue pair is a command of
//! the device, which may take long: it is given without the worker's lock, in three steps.
//!
//! 1. [`WorkerState::detach_lane`] takes the lane out of the table. Its parts stay, its place serves no other lane.
//! 2. [`DetachedLane::destroy`] destroys the queue pair: from then on the device touches nothing of it.
//! 3. [`WorkerState::end_destroyed`] ends the parts and frees the place.

use std::sync::Arc;

use super::{EndState, WorkerState, condemn};
use crate::memory::Recent;
use crate::observe::TransferCounts;
use crate::pool::lane::Lane;
use crate::pool::lane_key::LaneKey;
use crate::pool::lane_status::{LaneHealth, LaneStatus};

/// A lane without a place in its worker's table. Its queue pair may still be at work on the memory of its parts.
#[derive(Debug)]
pub(in crate::pool) struct DetachedLane {
    pub(super) lane: Box<Lane>,
    state: EndState,
    reason: String,
}

/// A lane after its queue pair was destroyed: its parts can end.
#[derive(Debug)]
pub(in crate::pool) struct DestroyedLane {
    key: LaneKey,
    status: Arc<LaneStatus>,
    counts: Arc<TransferCounts>,
    /// Its regions are held until its parts have ended.
    recent: Recent,
    first_part: u32,
    outstanding: u32,
    state: EndState,
    reason: String,
}

impl DetachedLane {
    /// Destroys the queue pair. May block; called without the worker's lock.
    pub(in crate::pool) fn destroy(self) -> DestroyedLane {
        let Self { lane, state, reason } = self;
        let Lane { key, mut queue_pair, status, counts, recent, parts, outstanding, .. } = *lane;
        let _ = queue_pair.set_error();
        if queue_pair.destroy().is_err() {
            status.set_leaks();
        }
        DestroyedLane { key, status, counts, recent, first_part: parts.first(), outstanding, state, reason }
    }
}

impl WorkerState {
    /// Takes a lane out to be destroyed, which [`WorkerState::take_detached`] hands out. One that cannot be stopped becomes an
    /// orphan instead.
    pub(in crate::pool) fn detach_lane(&mut self, key: LaneKey, state: EndState, reason: &str) {
        if self.lanes.get(key).is_some_and(|lane| !lane.can_stop && lane.outstanding > 0) {
            return self.orphan_lane(key, state, reason);
        }
        if let Some(lane) = self.lanes.get(key).filter(|lane| lane.is_destroying) {
            // Its queue pair is not here: another thread destroys it.
            lane.doomed.get_or_insert_with(|| (state, reason.to_owned()));
            return;
        }
        let Some(lane) = self.lanes.detach(key) else { return };
        self.detached.push(DetachedLane { lane, state, reason: reason.to_owned() });
    }

    /// Whether the lane was detached and has not ended yet.
    pub(in crate::pool) fn is_detached(&mut self, key: LaneKey) -> bool {
        self.lanes.is_detached(key) || self.lanes.get(key).is_some_and(|lane| lane.doomed.is_some())
    }

    /// The lanes that are to be destroyed.
    pub(in crate::pool) fn take_detached(&mut self) -> Vec<DetachedLane> {
        std::mem::take(&mut self.detached)
    }

    /// Ends the parts of a lane after its queue pair was destroyed.
    pub(in crate::pool) fn end_destroyed(&mut self, destroyed: DestroyedLane) {
        let DestroyedLane { key, status, counts, recent, first_part, outstanding, state, reason } = destroyed;
        self.posted = self.posted.saturating_sub(outstanding);
        self.end_all(first_part, &counts, state, &reason);
        drop(recent);
        self.lanes.free(key);
        status.end_requests();
        status.set(LaneHealth::Closed, &reason);
    }

    /// All three steps for the lanes that are to be destroyed: for tests of a worker's state alone.
    #[cfg(all(test, not(flagcx_p2p_loom)))]
    pub(super) fn destroy_detached(&mut self) {
        for lane in self.take_detached() {
            self.end_destroyed(lane.destroy());
        }
    }

    /// Ends the parts of a lane that was taken out, from `first`, its oldest, on.
    pub(super) fn end_all(&mut self, first: u32, counts: &TransferCounts, state: EndState, reason: &str) {
        let mut next = first;
        while let Some(part) = self.parts.get(next) {
            let part_index = std::mem::replace(&mut next, part.behind());
            if let Some(owner) = part.owner {
                condemn(&self.early_ends, owner, state, reason);
            }
            if let Some(ended) = self.end_part(part_index) {
                ended.count(counts);
            }
        }
    }
}

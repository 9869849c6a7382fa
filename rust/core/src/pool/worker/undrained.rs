//! Queue pairs that do not drain and are destroyed for that, while their lanes stay: what was interrupted goes on over another rail, or over
//! the queue pair that takes their place. And lanes that are given up while others go on.
//!
//! To destroy a queue pair is a command of the device, which may take long: it is given without the worker's lock, in three steps.
//!
//! 1. [`WorkerState::take_undrained`] takes the queue pair out. Its requests still count as outstanding: none of their parts is touched.
//! 2. The queue pair is destroyed: from then on the device touches nothing of it.
//! 3. [`WorkerState::end_undrained`]: the lane is drained.

use super::{EndState, LaneClose, RequestFailure, WorkerState, fail};
use crate::fabric::{CompletionStatus, FabricError, WorkQueue};
use crate::pool::absent_queue_pair::AbsentQueuePair;
use crate::pool::lane::{Lane, stop_lane};
use crate::pool::lane_key::LaneKey;
use crate::pool::lane_status::LaneHealth;
use crate::pool::taken_part::TakenPart;
use crate::pool::worker::completions::MAX_INTERRUPTIONS;

/// What can be done about a queue pair that does not drain.
#[derive(Debug)]
pub(in crate::pool) enum Undrained {
    /// It is to be destroyed, which the caller does.
    Destroy(Box<dyn WorkQueue>),
    /// Another thread destroys it already.
    UnderWay,
    /// Nothing: it is drained, or gone, or destroying it does not stop what is outstanding.
    Stays,
}

impl WorkerState {
    /// Whether the queue pair of a lane is in ERROR, not drained, and is being destroyed or may be.
    pub fn can_destroy_undrained(&mut self, key: LaneKey) -> bool {
        let may = |lane: &mut Lane| {
            lane.is_destroying || lane.health() == LaneHealth::Broken && lane.can_stop && lane.heals
        };
        self.lanes.get(key).is_some_and(may)
    }

    /// The queue pair of a lane is to be destroyed, if it does not drain until then: it is not given up while it waits for its turn.
    pub fn await_destroy(&mut self, key: LaneKey) {
        if let Some(lane) = self.lanes.get(key) {
            lane.awaits_destroy = true;
        }
    }

    /// Takes the queue pair of a lane out that is in ERROR and not drained.
    pub(in crate::pool) fn take_undrained(&mut self, key: LaneKey) -> Undrained {
        let Some(lane) = self.lanes.get(key) else { return Undrained::Stays };
        lane.awaits_destroy = false;
        if lane.is_destroying {
            return Undrained::UnderWay;
        }
        if lane.health() != LaneHealth::Broken || !lane.can_stop || !lane.heals {
            return Undrained::Stays;
        }
        lane.is_destroying = true;
        let absent = Box::new(AbsentQueuePair::in_place_of(&*lane.queue_pair));
        Undrained::Destroy(std::mem::replace(&mut lane.queue_pair, absent))
    }

    /// The queue pair that was taken out is destroyed: what was outstanding is interrupted, and the lane is drained. If its device could not
    /// destroy it, the lane is closed.
    pub(in crate::pool) fn end_undrained(&mut self, key: LaneKey, destroyed: Result<(), FabricError>) {
        let Some(lane) = self.lanes.get(key).filter(|lane| lane.is_destroying) else { return };
        (lane.is_destroying, lane.resists) = (false, false);
        self.posted = self.posted.saturating_sub(lane.outstanding);
        lane.outstanding = 0;
        let groups: Vec<_> = lane.groups.iter().copied().collect();
        lane.groups.clear();
        lane.status.end_requests();
        let (mut exhausted, mut over) = (Vec::new(), Vec::new());
        for group in groups {
            let Some(part) = self.parts.get(group.part) else {
                lane.end_probe(false);
                continue;
            };
            let was_outstanding = std::mem::replace(&mut part.outstanding, 0) > 0;
            if was_outstanding && part.owner.is_some_and(|owner| owner.end_state() != EndState::Done) {
                over.push(group.part);
            } else if part.rewind.is_none() {
                part.rewind = Some(group.start as usize);
                if part.interruptions >= MAX_INTERRUPTIONS + part.moves {
                    exhausted.push(group.part);
                }
            }
        }
        let reason = lane.status.reason();
        if let Err(error) = destroyed {
            lane.status.set_leaks();
            lane.doomed.get_or_insert_with(|| (EndState::Failed, error.to_string()));
        }
        if let Some((state, reason)) = lane.doomed.take() {
            return self.end_doomed(key, state, &reason);
        }
        for part_index in over {
            self.end_part(part_index);
        }
        for part_index in exhausted {
            self.fail_exhausted(part_index, &reason);
        }
        self.settle_lane(key.index());
    }

    /// One step of giving a lane up for good, while others of its connection go on. Answers the parts of which nothing was ever posted, for
    /// other lanes; the others end with `reason`. The lane stays without a queue pair: parts on their way to it are taken off it later.
    pub fn give_up_lane(&mut self, key: LaneKey, reason: &str) -> (Vec<TakenPart>, LaneClose) {
        let Some(lane) = self.lanes.get(key) else {
            let is_detached = self.is_detached(key);
            return (Vec::new(), if is_detached { LaneClose::Draining } else { LaneClose::Closed(None) });
        };
        stop_lane(lane, reason);
        let taken = self.take_unposted(key);
        self.fail_waiting(key.index(), EndState::Failed, reason);
        let Some(lane) = self.lanes.get(key) else { return (taken, LaneClose::Closed(None)) };
        if lane.outstanding > 0 || lane.is_destroying {
            return (taken, LaneClose::Draining);
        }
        lane.give_up(reason);
        let queue_pair = std::mem::replace(&mut lane.queue_pair, Box::new(AbsentQueuePair::new()));
        (taken, LaneClose::Closed(Some(queue_pair)))
    }

    /// A part was interrupted too often.
    fn fail_exhausted(&mut self, part_index: u32, reason: &str) {
        let Some(part) = self.parts.get(part_index) else { return };
        let iov = part.list.iov(part.rewind.unwrap_or(part.cursor));
        if let Some(owner) = part.owner {
            let failure = RequestFailure {
                iov,
                last_iov: iov,
                status: CompletionStatus::Flushed,
                vendor_error: 0,
                reason: reason.to_owned(),
            };
            fail(&self.early_ends, owner, failure);
            self.counters.failed();
        }
        self.end_part(part_index);
    }

    /// A lane that was to be closed, or cannot go on: its queue pair is destroyed, or leaks.
    fn end_doomed(&mut self, key: LaneKey, state: EndState, reason: &str) {
        let Some(lane) = self.lanes.remove(key) else { return };
        self.end_all(lane.parts.first(), &lane.counts, state, reason);
        lane.status.set(LaneHealth::Closed, reason);
    }
}

//! The short way of the most common transfer: one request, on a lane where nothing stands before it.
//!
//! It does what [`WorkerState::begin`] does for any transfer, for half of the instructions: everything is looked up once,
//! and stays in registers. What is out of the ordinary is left to the long way, before anything is changed.

use std::slice::from_ref;

use super::WorkerState;
use super::posting::count;
use crate::fabric::{Batch, Opcode, Posted};
use crate::memory::Recent;
use crate::pool::lane::{Group, LaneKey};
use crate::pool::slice::{Chunk, SlicePolicy};
use crate::pool::task::Task;

/// A transfer of one request. A trait, because closures would be calls that pass everything through memory: its methods
/// are to be inlined always.
pub trait OneRequest {
    /// The place of the transfer.
    type Place;

    /// READ or WRITE.
    fn opcode(&self) -> Opcode;

    /// How requests are made.
    fn policy(&self) -> &SlicePolicy;

    /// What to move, within the lane's recent regions, one of which is shared; `None`, and nothing is shared, if it is
    /// not within them.
    fn chunk(&self, recent: &mut Recent) -> Option<Chunk>;

    /// Finds a place for the transfer, and its task with one part counted.
    fn claim(&self) -> Option<(Self::Place, &'static Task)>;
}

impl WorkerState {
    /// Begins and posts a part of one request, and answers the place of its transfer. `None`, and nothing is done, if
    /// there is none, or if the part could not be posted now.
    #[inline(always)]
    pub fn begin_one<R: OneRequest>(&mut self, key: LaneKey, wanted: &R) -> Option<R::Place> {
        let lane = self.lanes.get(key)?;
        if !lane.posts_at_once() || lane.outstanding >= lane.depth || self.posted >= self.limits.posted {
            return None;
        }
        let chunk = wanted.chunk(&mut lane.recent)?;
        let Some((place, task)) = wanted.claim() else {
            lane.recent.give_back();
            return None;
        };
        let index = self.parts.claim();
        let part = self.parts.get(index)?;
        part.task = Some(task);
        part.lane = key.index;
        let opcode = wanted.opcode();
        let (request, entry) = part.list.only(opcode)?;
        (*request, *entry) = wanted.policy().request(&chunk, 0, opcode);
        let posted = lane.queue_pair.post(&Batch {
            opcode,
            first_id: key.request_id(lane.next),
            signal_every: 1,
            requests: from_ref(request),
            entries: from_ref(entry),
        });
        (part.list.bytes, part.list.first, part.list.shares_recent) = (chunk.length, true, true);
        count(lane, part, &self.counters);
        if posted.accepted > 0 {
            (part.cursor, part.outstanding) = (1, 1);
            lane.groups.push_back(Group { part: index, first: lane.next, count: 1, start: 0 });
            lane.next = lane.next.wrapping_add(1);
            lane.outstanding += 1;
            self.posted += 1;
            self.counters.posted(1);
        }
        if posted.accepted == 0 || posted.errno.is_some() {
            self.post_failed(key.index, index, posted);
        }
        Some(place)
    }

    /// The queue pair did not take the request of a part, or says that it is of no more use.
    #[cold]
    fn post_failed(&mut self, index: u16, part_index: u32, posted: Posted) {
        match posted.errno {
            Some(errno) if errno != libc::ENOMEM => self.post_refused(index, part_index, errno),
            _ => {
                self.counters.refused();
                if posted.accepted == 0 {
                    self.queue_part(index, part_index);
                }
            }
        }
    }
}

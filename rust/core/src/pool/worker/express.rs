//! The short way of the most common transfer: one request, on a lane where nothing stands before it.
//!
//! It does what [`WorkerState::begin`] does for any transfer, for half of the instructions: everything is looked up once,
//! and stays in registers. What is out of the ordinary is left to the long way, before anything is changed.

use std::num::NonZeroI32;
use std::slice::from_ref;

use super::WorkerState;
use super::posting::count;
use crate::fabric::{Batch, Opcode, Posted};
use crate::memory::Recent;
use crate::pool::groups::Group;
use crate::pool::lane::LaneKey;
use crate::pool::slice::{Chunk, SlicePolicy};
use crate::pool::task::Task;

/// A transfer of one request. A trait, because closures would be calls that pass everything through memory: its methods
/// are to be inlined always.
pub trait OneRequest {
    /// What the caller gets of it: its id.
    type Name;

    /// READ or WRITE.
    fn opcode(&self) -> Opcode;

    /// How requests are made.
    fn policy(&self) -> &SlicePolicy;

    /// What to move, within the lane's recent regions, one of which is shared; `None`, and nothing is shared, if it is
    /// not within them.
    fn chunk(&self, recent: &mut Recent) -> Option<Chunk>;

    /// Finds a place for the transfer, and its task with one part counted.
    fn claim(&self) -> Option<(Self::Name, &'static Task)>;
}

impl WorkerState {
    /// Begins and posts a part of one request, and answers the place of its transfer. `None`, and nothing is done, if
    /// there is none, or if the part could not be posted now.
    #[inline(always)]
    pub fn begin_one<R: OneRequest>(&mut self, key: LaneKey, wanted: &R) -> Option<R::Name> {
        let lane = self.lanes.get(key)?;
        if !lane.posts_at_once() || lane.outstanding >= lane.depth || self.posted >= self.limits.posted {
            return None;
        }
        let chunk = wanted.chunk(&mut lane.recent)?;
        let index = self.parts.claim();
        lane.parts.push_back(&mut self.parts, index);
        let part = self.parts.get(index)?;
        // From here on `release` gives the region back.
        (part.lane, part.list.shares_recent) = (key.index(), true);
        (part.list.bytes, part.list.first) = (chunk.length, true);
        let opcode = wanted.opcode();
        let Some((request, entry)) = part.list.only(opcode) else {
            self.release(index);
            return None;
        };
        // Before the place is looked for: what the request is made of is then needed no more.
        (*request, *entry) = wanted.policy().request(&chunk, 0, opcode);
        let (requests, entries) = (from_ref(request), from_ref(entry));
        let Some((name, task)) = wanted.claim() else {
            self.release(index);
            return None;
        };
        // All is noted as if it were posted before it is, so that next to nothing has to be kept over the call.
        (part.task, part.cursor, part.outstanding) = (Some(task), 1, 1);
        count(lane, true, chunk.length, &mut part.begun, &self.counters);
        let first_id = key.request_id(lane.next);
        let batch = Batch { opcode, first_id, signal_every: 1, requests, entries, one_each: true };
        lane.groups.push_back(Group { part: index, first: lane.next, count: 1, start: 0 });
        lane.next = lane.next.wrapping_add(1);
        lane.outstanding += 1;
        self.posted += 1;
        let posted = lane.queue_pair.post(&batch);
        if posted.accepted == 0 || posted.errno.is_some() {
            self.post_failed(key.index(), posted);
        } else {
            self.counters.posted(1);
        }
        Some(name)
    }

    /// The queue pair did not take the last request that was noted, or says that it is of no more use.
    #[cold]
    fn post_failed(&mut self, index: u16, posted: Posted) {
        let Some(lane) = self.lanes.at(index) else { return };
        let Some(group) = lane.groups.pop_back() else { return };
        let part_index = group.part;
        if posted.accepted == 0 {
            lane.next = lane.next.wrapping_sub(1);
            lane.outstanding -= 1;
            self.posted -= 1;
            if let Some(part) = self.parts.get(part_index) {
                (part.cursor, part.outstanding) = (0, 0);
            }
        } else {
            lane.groups.push_back(group);
            self.counters.posted(1);
        }
        match posted.errno.map(NonZeroI32::get) {
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

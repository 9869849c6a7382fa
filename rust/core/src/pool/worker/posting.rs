//! Posting: what a part has left, as far as the credits of its lane and of the completion queue go.

use std::num::NonZeroI32;

use super::{EndState, PartOwner, RequestFailure, WorkerLimits, WorkerState, fail};
use crate::fabric::CompletionStatus;
use crate::observe::{COUNTED, SAMPLE_EVERY, WorkerCounters};
use crate::pool::groups::Group;
use crate::pool::lane::{Lane, break_lane, make_ready};
use crate::pool::lane_key::LaneKey;
use crate::pool::part::Part;
use crate::pool::part_list::AGE;
use crate::pool::quick_clock;
use crate::pool::slow_clock::SlowClock;

/// How posting one list ended.
enum ListEnd {
    /// So many requests were posted, as many as credits allowed.
    Posted(u32),
    /// The queue pair took no more for now: its send queue is full.
    Full,
    /// The queue pair refused for good, with this errno: it is of no more use.
    Refused(i32),
}

impl WorkerState {
    /// Begins a part that was acquired for this lane: posts at once what may be posted, and queues it for the rest. `first`
    /// is whether it counts as the beginning of its transfer on the lane. `begun` is when the transfer began, on the quick clock; 0 for now.
    #[inline(always)]
    pub(in crate::pool) fn start_part(
        &mut self,
        key: LaneKey,
        index: u32,
        owner: &'static dyn PartOwner,
        first: bool,
        begun: u64,
    ) {
        let Some(lane) = self.lanes.at(key.index()) else { return };
        let links = lane.parts.link_back(&mut self.parts, index);
        let Some(part) = self.parts.get(index) else { return };
        part.links[AGE] = links;
        (part.owner, part.lane) = (Some(owner), key.index());
        (part.begun_at, part.since, part.begun) = (self.slow_clock.number(), 0, begun);
        let before = lane.counts.start(part.list.opcode.into(), u64::from(first), part.list.bytes);
        if begun != 0 || self.slow_clock.has_turn(before) {
            note_begin(
                part,
                first && before.is_multiple_of(SAMPLE_EVERY),
                &mut self.slow_clock,
                &self.counters,
            );
        }
        if part.list.is_empty() {
            // Nothing but empty pieces: done as soon as begun.
            self.end_part(index);
            return;
        }
        if lane.posts_at_once() {
            // Nothing stands before it: posted without the detour through the queues.
            loop {
                let share = lane.share(self.limits.left(self.posted));
                match post_list(lane, part, index, &mut self.posted, share, &self.limits, &self.counters) {
                    ListEnd::Posted(0) | ListEnd::Full => break,
                    ListEnd::Posted(_) if part.is_posted() => return,
                    ListEnd::Posted(_) => {}
                    ListEnd::Refused(errno) => return self.post_refused(key.index(), index, errno),
                }
            }
            self.queue_part(key.index(), index);
        } else {
            self.queue_part(key.index(), index);
            self.post_ready();
        }
    }

    /// Appends a part to those that wait on its lane.
    pub(super) fn queue_part(&mut self, index: u16, part_index: u32) {
        let (Some(lane), Some(part)) = (self.lanes.at(index), self.parts.get(part_index)) else { return };
        part.waiting = true;
        self.unposted += 1;
        lane.turns.push_back(&mut self.parts, part_index);
        make_ready(lane, &mut self.ready, self.limits.left(self.posted));
    }

    /// Queues a part that was served and has more to post: behind the others, or as the first.
    fn queue_again(&mut self, index: u16, part_index: u32) {
        self.queue_part(index, part_index);
        let Some(lane) = self.lanes.at(index).filter(|lane| lane.keeps_turn()) else { return };
        lane.turns.remove(&mut self.parts, part_index);
        lane.turns.push_front(&mut self.parts, part_index);
    }

    /// Posts lists, one lane after the other, until credits or work run out. Answers the requests posted.
    #[inline]
    pub(super) fn post_ready(&mut self) -> u32 {
        let mut total = 0;
        // A refused post leaves its lane ready for the next step; without a bound it would spin here.
        let mut refusals = 0;
        while self.posted < self.limits.posted {
            let Some(index) = self.ready.pop_front() else { break };
            match self.serve(index) {
                ListEnd::Posted(count) => total += count,
                ListEnd::Full | ListEnd::Refused(_) => refusals += 1,
            }
            if refusals > self.ready.len() {
                break;
            }
        }
        total
    }

    /// Posts one list of the part that is first in a lane's turn.
    fn serve(&mut self, index: u16) -> ListEnd {
        let Some(lane) = self.lanes.at(index) else { return ListEnd::Posted(0) };
        lane.ready = false;
        if !lane.is_healthy() {
            return ListEnd::Posted(0);
        }
        let Some(part_index) = lane.turns.pop_front(&mut self.parts) else { return ListEnd::Posted(0) };
        let Some(part) = self.parts.get(part_index) else { return ListEnd::Posted(0) };
        part.waiting = false;
        self.unposted -= 1;
        let failed = part.owner.is_some_and(|owner| owner.end_state() != EndState::Done);
        // Something else of the transfer failed: what is not posted is dropped. But for one request, if nothing else will
        // show that those outstanding are done.
        let mut limits = self.limits;
        if failed {
            limits.list = usize::from(part.outstanding > 0 && lane.is_cut_short());
        }
        let left = limits.left(self.posted);
        // What ends a list that was cut short is posted whatever the lane's share: only its completion makes room again.
        let share = if lane.is_cut_short() { lane.room(left).min(1) } else { 0 }.max(lane.share(left));
        let end = post_list(lane, part, part_index, &mut self.posted, share, &limits, &self.counters);
        if let ListEnd::Refused(errno) = end {
            self.post_refused(index, part_index, errno);
            return end;
        }
        if failed && part.outstanding == 0 {
            self.end_part(part_index);
        } else if !part.is_posted() && (!failed || lane.is_cut_short()) {
            self.queue_again(index, part_index);
        }
        if let Some(lane) = self.lanes.at(index) {
            make_ready(lane, &mut self.ready, self.limits.left(self.posted));
        }
        end
    }

    /// Posts, on a lane in ERROR after its last list was cut short, the first request that was not taken: no completion shows
    /// that the ones before it are over, but its flush does.
    #[cold]
    pub(super) fn flush_behind_cut(&mut self, index: u16) {
        let Some(lane) = self.lanes.at(index).filter(|lane| lane.is_cut_short()) else { return };
        let Some(part_index) = lane.groups.back().map(|group| group.part) else { return };
        let Some(part) = self.parts.get(part_index).filter(|part| !part.is_posted()) else { return };
        let limits = WorkerLimits { list: 1, ..self.limits };
        let room = lane.room(limits.left(self.posted));
        post_list(lane, part, part_index, &mut self.posted, room, &limits, &self.counters);
        if part.waiting && part.is_posted() {
            part.waiting = false;
            self.unposted -= 1;
            lane.turns.remove(&mut self.parts, part_index);
        }
    }

    /// A post was refused for good: the transfer has failed, and the queue pair is of no more use.
    #[cold]
    pub(super) fn post_refused(&mut self, index: u16, part_index: u32, errno: i32) {
        let (Some(lane), Some(part)) = (self.lanes.at(index), self.parts.get(part_index)) else { return };
        let reason = format!("post refused: {}", std::io::Error::from_raw_os_error(errno));
        if let Some(owner) = part.owner {
            let failure = RequestFailure {
                iov: part.list.iov(part.cursor),
                last_iov: part.list.iov(part.cursor),
                status: CompletionStatus::LocalQpOperation,
                vendor_error: 0,
                reason: reason.clone(),
            };
            fail(&self.early_ends, owner, failure);
        }
        break_lane(lane, &reason);
        if part.outstanding == 0 {
            self.end_part(part_index);
        }
        self.settle_lane(index);
    }
}

/// A part begins that is measured, or has a look at the clock when it ends for another reason.
#[cold]
fn note_begin(part: &mut Part, is_measured: bool, slow_clock: &mut SlowClock, counters: &WorkerCounters) {
    let looked = slow_clock.look_at_begin();
    if let Some((count, most)) = looked.and_then(|(_, late)| late) {
        counters.slow_many(count, most);
    }
    part.is_measured = COUNTED && is_measured;
    if part.begun == 0 && (looked.is_some() || part.is_measured) {
        part.begun = looked.map_or_else(quick_clock::now_ns, |(now, _)| now);
    }
    if part.begun != 0 {
        part.begun_at = slow_clock.long_ago();
    }
}

/// Posts the next list of a part, of so many requests at most as its lane's `share` is.
#[inline(always)]
fn post_list(
    lane: &mut Lane,
    part: &mut Part,
    part_index: u32,
    posted: &mut u32,
    share: u32,
    limits: &WorkerLimits,
    counters: &WorkerCounters,
) -> ListEnd {
    let most = limits.list.min(share as usize);
    if most == 0 {
        return ListEnd::Posted(0);
    }
    let (start, before) = (part.cursor, lane.posted());
    let first = before as u32;
    let batch = part.list.batch(start, most, lane.key.request_id(first), lane.signal_every);
    let answer = lane.queue_pair.post(&batch);
    let accepted = answer.accepted.min(batch.requests.len()) as u32;
    if accepted > 0 {
        part.cursor = start + accepted as usize;
        part.outstanding += accepted;
        lane.groups.push_back(Group { part: part_index, first, count: accepted, start: start as u32 });
        lane.note_posted(before, accepted);
        *posted += accepted;
        counters.posted(accepted);
    }
    let Some(errno) = answer.errno.map(NonZeroI32::get) else { return ListEnd::Posted(accepted) };
    if accepted > 0 {
        lane.note_cut();
    }
    if errno == libc::ENOMEM {
        counters.refused();
        ListEnd::Full
    } else {
        ListEnd::Refused(errno)
    }
}

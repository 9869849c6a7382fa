//! A worker's state and its one step: take submissions, poll completions, post what credits allow.
//!
//! Everything here runs under the worker's lock, so nothing needs to be atomic. The step is a plain function: the
//! worker's thread runs it, and so does every caller that waits for one of its transfers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::lane::{Group, Lane, LaneHealth, LaneKey, LaneSetup};
use super::part::Parts;
use super::piece::PieceList;
use super::slice::{Batch, advance};
use super::task::{RequestFailure, Task, Verdict};
use super::{PoolError, clock};
use crate::fabric::{Completion, CompletionQueue, CompletionStatus, FabricError, QueuePair};
use crate::memory::RegionId;
use crate::observe::WorkerCounters;

/// Sizes of a worker.
#[derive(Clone, Copy, Debug)]
pub struct WorkerLimits {
    /// Requests that may be outstanding over all lanes: never more than the completion queue holds.
    pub posted: u32,
    /// Longest list of one post.
    pub list: usize,
    /// Completions taken per poll.
    pub poll: usize,
}

/// What a step did.
#[derive(Clone, Copy, Debug, Default)]
pub struct StepReport {
    /// Something moved: completions came or requests were posted.
    pub progress: bool,
    /// Something is posted or waits to be.
    pub busy: bool,
    /// Something waits to be posted.
    pub backlog: bool,
}

/// Lists longer than this gain nothing: the work requests of one list must stay in the first-level cache while they
/// are built, converted and read by the device (128 bytes each as the verbs library wants them; 64 measured best).
const LIST_IN_CACHE: usize = 64;

/// The clock is read once in so many steps: a step may take 20 ns, and reading the clock a quarter of that.
const STEPS_PER_CLOCK: u32 = 8;

/// How often deadlines are looked at, in milliseconds.
const DEADLINE_CHECK_MS: u64 = 5;

/// How long a queue pair in ERROR may take to flush before it is destroyed, in milliseconds.
const DRAIN_LIMIT_MS: u64 = 2000;

/// How often a part may be interrupted by failing lanes before it fails.
const MAX_INTERRUPTIONS: u8 = 3;

/// A worker's state.
#[derive(Debug)]
pub struct WorkerState {
    queue: Box<dyn CompletionQueue>,
    limits: WorkerLimits,
    completions: Box<[Completion]>,
    lanes: Vec<LaneSlot>,
    parts: Parts,
    /// Lanes with waiting parts and free depth, served in turn.
    ready: VecDeque<u16>,
    /// Requests outstanding over all lanes.
    posted: u32,
    /// Parts that stand in some lane's `waiting`.
    unposted: u32,
    batch: Batch,
    next_deadline_check: u64,
    steps: u32,
    counters: Arc<WorkerCounters>,
    /// Steps run by callers; the worker's thread compares it to see that callers drive.
    pub(super) caller_steps: u64,
}

#[derive(Debug)]
struct LaneSlot {
    generation: u16,
    lane: Option<Box<Lane>>,
}

impl WorkerState {
    /// A worker over `queue`.
    pub fn new(queue: Box<dyn CompletionQueue>, limits: WorkerLimits, counters: Arc<WorkerCounters>) -> Self {
        let limits = WorkerLimits {
            posted: limits.posted.min(queue.depth()).max(1),
            list: limits.list.clamp(1, LIST_IN_CACHE),
            poll: limits.poll.max(1),
        };
        Self {
            queue,
            completions: vec![Completion::default(); limits.poll].into_boxed_slice(),
            batch: Batch::new(limits.list),
            limits,
            lanes: Vec::new(),
            parts: Parts::default(),
            ready: VecDeque::new(),
            posted: 0,
            unposted: 0,
            next_deadline_check: 0,
            steps: 0,
            counters,
            caller_steps: 0,
        }
    }

    /// The completion queue, to create queue pairs on and to arm.
    pub fn queue(&mut self) -> &mut dyn CompletionQueue {
        &mut *self.queue
    }

    /// Takes a connected queue pair as a new lane.
    pub fn add_lane(
        &mut self,
        queue_pair: Box<dyn QueuePair>,
        setup: LaneSetup,
    ) -> Result<LaneKey, PoolError> {
        let index = match self.lanes.iter().position(|slot| slot.lane.is_none()) {
            Some(index) => index,
            None => {
                self.lanes.push(LaneSlot { generation: 0, lane: None });
                self.lanes.len() - 1
            }
        };
        let (Ok(index), Some(slot)) = (u16::try_from(index), self.lanes.get_mut(index)) else {
            return Err(PoolError::TooManyLanes);
        };
        slot.generation = slot.generation.wrapping_add(1);
        let key = LaneKey { index, generation: slot.generation };
        slot.lane = Some(Box::new(Lane::new(key, queue_pair, setup)));
        Ok(key)
    }

    /// Moves a lane to ERROR. Its outstanding requests will be flushed; steps go on until it is drained.
    pub fn break_lane(&mut self, key: LaneKey, reason: &str) {
        if let Some(lane) = self.lane(key) {
            break_lane(lane, reason);
            self.settle_lane(key.index);
        }
    }

    /// Whether the lane has no outstanding requests (or does not exist).
    pub fn is_drained(&mut self, key: LaneKey) -> bool {
        self.lane(key).is_none_or(|lane| lane.outstanding == 0)
    }

    /// Puts a fresh, connected queue pair in the place of a drained one; interrupted parts go on.
    /// Gives the queue pair back if the lane is not waiting for one.
    pub fn heal_lane(
        &mut self,
        key: LaneKey,
        queue_pair: Box<dyn QueuePair>,
    ) -> Result<(), Box<dyn QueuePair>> {
        let Some(lane) = self.lane(key).filter(|lane| lane.status.health() == LaneHealth::Drained) else {
            return Err(queue_pair);
        };
        lane.depth = queue_pair.caps().send_depth.max(1);
        lane.signal_every = (lane.depth / 4).max(1);
        lane.queue_pair = queue_pair;
        lane.status.set(LaneHealth::Healthy, "");
        self.make_ready(key.index);
        Ok(())
    }

    /// Closes a lane for good: ERROR, and every part on it that has nothing outstanding ends with `reason`.
    /// True when it is drained and gone; else call again after more steps.
    pub fn close_lane(&mut self, key: LaneKey, verdict: Verdict, reason: &str) -> bool {
        let Some(lane) = self.lane(key) else { return true };
        lane.heals = false;
        break_lane(lane, reason);
        self.fail_waiting(key.index, verdict, reason);
        let Some(lane) = self.lane(key) else { return true };
        if lane.outstanding > 0 {
            return false;
        }
        lane.status.set(LaneHealth::Closed, reason);
        if let Some(slot) = self.lanes.get_mut(usize::from(key.index)) {
            slot.lane = None;
        }
        true
    }

    /// Gives up waiting for a flush that does not come: destroys the queue pair, after which the device touches
    /// nothing of it, and ends its parts.
    pub fn destroy_lane(&mut self, key: LaneKey, verdict: Verdict, reason: &str) {
        let Some(mut lane) = self
            .lanes
            .get_mut(usize::from(key.index))
            .and_then(|slot| slot.lane.take_if(|lane| lane.key == key))
        else {
            return;
        };
        let _ = lane.queue_pair.set_error();
        let status = Arc::clone(&lane.status);
        self.posted = self.posted.saturating_sub(lane.outstanding);
        // Destroying the queue pair is what makes the parts' memory safe to give back.
        drop(lane);
        // All of the lane's: one that was flushed whole and waits for the others' flush is in no list of the lane.
        for part_index in 0..self.parts.slots() {
            let Some(part) = self.parts.get(part_index).filter(|part| part.lane == key.index) else {
                continue;
            };
            let Some(task) = part.task.as_deref() else { continue };
            condemn(task, verdict, reason);
            self.end_part(part_index);
        }
        status.set(LaneHealth::Closed, reason);
    }

    /// Ends, as timed out, every part that uses a region, even if that costs its queue pairs: the way to get memory
    /// back from a device that does not let go of it. Takes effect with the next steps.
    pub fn abort_users(&mut self, region: RegionId) {
        for part_index in 0..self.parts.slots() {
            let Some(part) = self.parts.get(part_index) else { continue };
            let Some(task) = part.task.as_deref() else { continue };
            if part.list.holds.iter().any(|hold| hold.region().id == region) {
                task.condemn(Verdict::TimedOut);
                task.abort(task.life());
                self.next_deadline_check = 0;
            }
        }
    }

    /// Begins a part on a lane: `build` fills its (recycled) list; then it posts what credits allow. An error of
    /// `build` leaves nothing behind. The caller has counted the part in `task`.
    #[inline]
    pub fn begin<E>(
        &mut self,
        key: LaneKey,
        task: &Arc<Task>,
        build: impl FnOnce(&mut PieceList) -> Result<(), E>,
    ) -> Result<(), E> {
        let index = self.parts.claim();
        let Some(part) = self.parts.get(index) else { return Ok(()) };
        if let Err(error) = build(&mut part.list) {
            self.parts.release(index);
            return Err(error);
        }
        part.lane = key.index;
        if part.list.pieces.is_empty() {
            // Nothing but empty pieces: done as soon as begun.
            self.parts.release(index);
            task.end_part();
            return Ok(());
        }
        part.task = Some(Arc::clone(task));
        self.enqueue(key, index);
        self.post_ready();
        Ok(())
    }

    /// Begins a part whose list was built outside the lock. Answers the list that its slot had, for reuse.
    pub fn adopt(&mut self, key: LaneKey, task: Arc<Task>, list: PieceList) -> PieceList {
        let index = self.parts.claim();
        let Some(part) = self.parts.get(index) else { return list };
        let spare = std::mem::replace(&mut part.list, list);
        part.lane = key.index;
        if part.list.pieces.is_empty() {
            self.parts.release(index);
            task.end_part();
            return spare;
        }
        part.task = Some(task);
        self.enqueue(key, index);
        spare
    }

    /// One turn: poll, retire, post, now and then look at deadlines.
    #[inline]
    pub fn step(&mut self) -> StepReport {
        let report = self.turn();
        self.steps = self.steps.wrapping_add(1);
        if self.steps % STEPS_PER_CLOCK == 0 {
            self.look_at_clock();
        }
        report
    }

    /// One turn at a time of the caller's, in milliseconds of the pool's clock: for tests.
    #[cfg(all(test, not(loom)))]
    pub(super) fn step_at(&mut self, now: u64) -> StepReport {
        let report = self.turn();
        if now >= self.next_deadline_check {
            self.check_deadlines(now);
        }
        report
    }

    #[inline]
    fn turn(&mut self) -> StepReport {
        let polled = if self.posted > 0 { self.poll() } else { 0 };
        let posted = self.post_ready();
        StepReport {
            progress: polled > 0 || posted > 0,
            busy: self.parts.len() > 0 || self.posted > 0,
            backlog: self.unposted > 0,
        }
    }

    /// Ends what is past its deadline.
    pub(super) fn look_at_clock(&mut self) {
        let now = clock::now_ms();
        if now >= self.next_deadline_check {
            self.check_deadlines(now);
        }
    }

    /// Whether something waits to be posted: somebody must come back for it.
    #[inline]
    pub fn has_backlog(&self) -> bool {
        self.unposted > 0
    }

    /// Requests outstanding.
    pub fn outstanding(&self) -> u32 {
        self.posted
    }

    /// Parts in flight or waiting.
    pub fn part_count(&self) -> usize {
        self.parts.len()
    }

    #[inline]
    fn enqueue(&mut self, key: LaneKey, index: u32) {
        let posts = match self.lanes.get_mut(usize::from(key.index)).and_then(|slot| slot.lane.as_deref_mut())
        {
            Some(lane) if lane.key == key && (lane.is_healthy() || lane.heals) => {
                lane.waiting.push_back(index);
                lane.status
                    .transfers
                    .add(u64::from(self.parts.get(index).is_some_and(|part| part.list.first)));
                true
            }
            _ => false,
        };
        let measured = self.counters.begun();
        if let Some(part) = self.parts.get(index) {
            part.begun = measured.then(Instant::now);
            part.waiting = posts;
            self.unposted += u32::from(posts);
            if !posts {
                if let Some(task) = part.task.as_deref() {
                    condemn(task, Verdict::Failed, "the lane is down");
                }
                self.end_part(index);
                return;
            }
        }
        self.make_ready(key.index);
    }

    /// Queues a lane for posting if it has something to post and may; answers its health.
    #[inline]
    fn make_ready(&mut self, index: u16) -> LaneHealth {
        let Some(lane) = self.lanes.get_mut(usize::from(index)).and_then(|slot| slot.lane.as_deref_mut())
        else {
            return LaneHealth::Closed;
        };
        let health = lane.status.health();
        let may_post = !lane.ready && !lane.waiting.is_empty() && lane.outstanding < lane.depth;
        if may_post && health == LaneHealth::Healthy {
            lane.ready = true;
            self.ready.push_back(index);
        }
        health
    }

    fn lane(&mut self, key: LaneKey) -> Option<&mut Lane> {
        self.lanes.get_mut(usize::from(key.index))?.lane.as_deref_mut().filter(|lane| lane.key == key)
    }

    // ---- posting ------------------------------------------------------------------------------------------

    /// Posts lists, one lane after the other, until credits or work run out. Answers the requests posted.
    #[inline]
    fn post_ready(&mut self) -> u32 {
        let mut total = 0;
        // A refused post leaves its lane ready for the next step; without a bound it would spin here.
        let mut refusals = 0;
        while self.posted < self.limits.posted {
            let Some(index) = self.ready.pop_front() else { break };
            match self.post_list(index) {
                ListEnd::Posted(count) => total += count,
                ListEnd::Refused => refusals += 1,
            }
            if refusals > self.ready.len() {
                break;
            }
        }
        total
    }

    #[inline]
    fn post_list(&mut self, index: u16) -> ListEnd {
        let Some(lane) = self.lanes.get_mut(usize::from(index)).and_then(|slot| slot.lane.as_deref_mut())
        else {
            return ListEnd::Posted(0);
        };
        lane.ready = false;
        if !lane.is_healthy() {
            return ListEnd::Posted(0);
        }
        let Some(&part_index) = lane.waiting.front() else { return ListEnd::Posted(0) };
        let Some(part) = self.parts.get(part_index) else {
            lane.waiting.pop_front();
            return ListEnd::Posted(0);
        };
        if part.task.as_deref().is_some_and(|task| task.verdict() != Verdict::Fine) {
            // Something else of the transfer failed: what is not posted is dropped.
            lane.waiting.pop_front();
            part.waiting = false;
            self.unposted -= 1;
            let over = part.outstanding == 0;
            if over {
                self.end_part(part_index);
            }
            self.make_ready(index);
            return ListEnd::Posted(0);
        }
        let free = (lane.depth - lane.outstanding).min(self.limits.posted - self.posted);
        let max = self.limits.list.min(free as usize);
        let start = part.cursor;
        let first = lane.next;
        self.batch.fill(
            &part.list.pieces,
            &mut part.cursor,
            &lane.policy,
            part.list.opcode,
            part.list.inline,
            lane.key.request_id(first),
            max,
            lane.signal_every,
        );
        let posted = lane.queue_pair.post(&self.batch.requests, &self.batch.entries);
        let accepted = posted.accepted.min(self.batch.requests.len()) as u32;
        if posted.errno.is_some() || accepted as usize != self.batch.requests.len() {
            part.cursor = advance(&part.list.pieces, start, &lane.policy, accepted);
        }
        if accepted > 0 {
            lane.groups.push_back(Group { part: part_index, first, count: accepted, behind: 0, start });
            lane.next = first.wrapping_add(accepted);
            lane.outstanding += accepted;
            lane.status.bytes.add(self.batch.bytes);
            self.posted += accepted;
            part.outstanding += accepted;
        }
        lane.waiting.pop_front();
        part.waiting = !part.is_posted();
        if part.waiting {
            lane.waiting.push_back(part_index);
        } else {
            self.unposted -= 1;
        }
        self.counters.posted(accepted);
        if let Some(errno) = posted.errno {
            if errno != libc::ENOMEM {
                let reason = format!("post refused: {}", std::io::Error::from_raw_os_error(errno));
                if let Some(task) = part.task.as_deref() {
                    let piece = part.list.pieces.get(part.cursor.piece);
                    task.fail(RequestFailure {
                        iov: piece.map_or(0, |piece| piece.iov),
                        status: CompletionStatus::LocalQpOperation,
                        vendor_error: 0,
                        reason: reason.clone(),
                    });
                }
                break_lane(lane, &reason);
                self.settle_lane(index);
                return ListEnd::Refused;
            }
            self.counters.refused();
            self.make_ready(index);
            return ListEnd::Refused;
        }
        self.make_ready(index);
        ListEnd::Posted(accepted)
    }

    // ---- completions --------------------------------------------------------------------------------------

    #[inline]
    fn poll(&mut self) -> usize {
        let count = match self.queue.poll(&mut self.completions) {
            Ok(count) => count,
            Err(error) => {
                self.queue_failed(&error);
                return 0;
            }
        };
        for position in 0..count {
            let Some(&completion) = self.completions.get(position) else { break };
            self.complete(completion);
        }
        count
    }

    #[inline]
    fn complete(&mut self, completion: Completion) {
        let (key, sequence) = LaneKey::of_request(completion.id);
        let Some(lane) = self.lanes.get_mut(usize::from(key.index)).and_then(|slot| slot.lane.as_deref_mut())
        else {
            return;
        };
        if lane.key != key {
            return;
        }
        if completion.status == CompletionStatus::Success {
            self.retire(key.index, sequence.wrapping_add(1));
            if self.make_ready(key.index) == LaneHealth::Broken {
                // What was outstanding when it was moved to ERROR had been carried out: no flush will say so.
                self.settle_lane(key.index);
            }
        } else {
            self.retire(key.index, sequence);
            self.fail_request(key.index, sequence, completion);
        }
    }

    /// Retires, as done, every outstanding request of a lane before sequence number `end`.
    #[inline]
    fn retire(&mut self, index: u16, end: u32) {
        let Some(lane) = self.lanes.get_mut(usize::from(index)).and_then(|slot| slot.lane.as_deref_mut())
        else {
            return;
        };
        while let Some(group) = lane.groups.front_mut() {
            let done = end.wrapping_sub(group.first);
            if done == 0 || done > i32::MAX as u32 {
                break;
            }
            let done = done.min(group.count);
            let part_index = group.part;
            if done == group.count {
                lane.groups.pop_front();
            } else {
                group.first = group.first.wrapping_add(done);
                group.behind += done;
                group.count -= done;
            }
            lane.outstanding -= done;
            self.posted -= done;
            let Some(part) = self.parts.get(part_index) else { continue };
            part.outstanding -= done;
            if part.outstanding == 0 && !part.waiting && part.rewind.is_none() {
                // `end_part` borrows all of self; the part's own fields are enough here.
                if let Some(begun) = part.begun {
                    self.counters.ended(begun.elapsed());
                }
                if let Some(task) = self.parts.release(part_index) {
                    task.end_part();
                }
            }
        }
    }

    #[cold]
    fn fail_request(&mut self, index: u16, sequence: u32, completion: Completion) {
        let Some(lane) = self.lanes.get_mut(usize::from(index)).and_then(|slot| slot.lane.as_deref_mut())
        else {
            return;
        };
        let Some(group) = lane.groups.front_mut().filter(|group| group.first == sequence) else { return };
        let Some(part) = self.parts.get(group.part) else { return };
        let part_index = group.part;
        let at = advance(&part.list.pieces, group.start, &lane.policy, group.behind);
        group.first = group.first.wrapping_add(1);
        group.behind += 1;
        group.count -= 1;
        if group.count == 0 {
            lane.groups.pop_front();
        }
        lane.outstanding -= 1;
        self.posted -= 1;
        part.outstanding -= 1;
        let interrupted = is_interruption(completion.status);
        if interrupted && lane.heals && part.interruptions < MAX_INTERRUPTIONS {
            if part.rewind.is_none() {
                part.rewind = Some(at);
            }
        } else if let Some(task) = part.task.as_deref() {
            let iov = part.list.pieces.get(at.piece).map_or(0, |piece| piece.iov);
            task.fail(RequestFailure {
                iov,
                status: completion.status,
                vendor_error: completion.vendor_error,
                reason: lane.status.reason(),
            });
            self.counters.failed();
        }
        let part_over =
            part.outstanding == 0 && part.task.as_deref().is_some_and(|t| t.verdict() != Verdict::Fine);
        if lane.is_healthy() {
            break_lane(lane, &completion.status.to_string());
        }
        if part_over {
            if part.waiting {
                lane.waiting.retain(|&waiting| waiting != part_index);
            }
            self.end_part(part_index);
        }
        self.settle_lane(index);
    }

    /// Once a lane in ERROR is drained: rewinds its interrupted parts, or ends them if it does not heal.
    #[cold]
    fn settle_lane(&mut self, index: u16) {
        let Some(lane) = self.lanes.get_mut(usize::from(index)).and_then(|slot| slot.lane.as_deref_mut())
        else {
            return;
        };
        if lane.outstanding > 0 || lane.status.health() != LaneHealth::Broken {
            return;
        }
        lane.groups.clear();
        let reason = lane.status.reason();
        let heals = lane.heals;
        for part_index in 0..self.parts.slots() {
            let Some(part) = self.parts.get(part_index).filter(|part| part.lane == index) else { continue };
            if let Some(cursor) = part.rewind.take() {
                part.cursor = cursor;
                part.interruptions += 1;
                if !part.waiting {
                    part.waiting = true;
                    self.unposted += 1;
                    if let Some(lane) =
                        self.lanes.get_mut(usize::from(index)).and_then(|s| s.lane.as_deref_mut())
                    {
                        lane.waiting.push_back(part_index);
                    }
                }
            }
        }
        if !heals {
            self.fail_waiting(index, Verdict::Failed, &reason);
        }
        if let Some(lane) = self.lanes.get_mut(usize::from(index)).and_then(|slot| slot.lane.as_deref_mut()) {
            lane.status.set(LaneHealth::Drained, &reason);
        }
    }

    /// Ends what waits on a lane; parts with something outstanding end when that is drained.
    #[cold]
    fn fail_waiting(&mut self, index: u16, verdict: Verdict, reason: &str) {
        let Some(lane) = self.lanes.get_mut(usize::from(index)).and_then(|slot| slot.lane.as_deref_mut())
        else {
            return;
        };
        let waiting: Vec<u32> = lane.waiting.drain(..).collect();
        let posted: Vec<u32> = lane.groups.iter().map(|group| group.part).collect();
        for part_index in posted {
            if let Some(task) = self.parts.get(part_index).and_then(|part| part.task.as_deref()) {
                condemn(task, verdict, reason);
            }
        }
        for part_index in waiting {
            let Some(part) = self.parts.get(part_index) else { continue };
            self.unposted -= u32::from(std::mem::take(&mut part.waiting));
            part.rewind = None;
            if let Some(task) = part.task.as_deref() {
                condemn(task, verdict, reason);
            }
            if part.outstanding == 0 {
                self.end_part(part_index);
            }
        }
    }

    fn end_part(&mut self, index: u32) {
        if let Some(part) = self.parts.get(index) {
            self.unposted -= u32::from(part.waiting);
        }
        if let Some(task) = self.parts.release(index) {
            task.end_part();
        }
    }

    #[cold]
    fn check_deadlines(&mut self, now: u64) {
        self.next_deadline_check = now + DEADLINE_CHECK_MS;
        if self.parts.len() == 0 {
            return;
        }
        self.check_drains(now);
        for part_index in 0..self.parts.slots() {
            let Some(part) = self.parts.get(part_index) else { continue };
            let Some(task) = part.task.as_deref() else { continue };
            let late = task.deadline() != 0 && now >= task.deadline();
            if late && task.condemn(Verdict::TimedOut) {
                self.counters.timed_out();
            }
            let forced = late || task.is_aborted();
            if !forced && task.verdict() == Verdict::Fine {
                continue;
            }
            let (lane_index, idle) = (part.lane, part.outstanding == 0);
            if idle {
                if part.waiting
                    && let Some(lane) =
                        self.lanes.get_mut(usize::from(lane_index)).and_then(|slot| slot.lane.as_deref_mut())
                {
                    lane.waiting.retain(|&waiting| waiting != part_index);
                }
                self.end_part(part_index);
            } else if forced
                && let Some(lane) =
                    self.lanes.get_mut(usize::from(lane_index)).and_then(|slot| slot.lane.as_deref_mut())
                && lane.is_healthy()
            {
                // The only way to make the device let go of memory before it is done with it.
                break_lane(
                    lane,
                    if late { "a transfer passed its deadline" } else { "a transfer was cancelled" },
                );
            }
        }
    }

    /// A flush that does not come must not hold a transfer for ever.
    fn check_drains(&mut self, now: u64) {
        for index in 0..self.lanes.len() {
            let Some(lane) = self.lanes.get_mut(index).and_then(|slot| slot.lane.as_deref_mut()) else {
                continue;
            };
            if lane.status.health() != LaneHealth::Broken {
                lane.broken_since = None;
                continue;
            }
            if now - *lane.broken_since.get_or_insert(now) > DRAIN_LIMIT_MS {
                let key = lane.key;
                tracing::warn!("a queue pair was not drained within {DRAIN_LIMIT_MS} ms and is destroyed");
                self.destroy_lane(key, Verdict::Failed, "its queue pair was not drained in time");
            }
        }
    }

    #[cold]
    fn queue_failed(&mut self, error: &FabricError) {
        tracing::error!("completion queue failed, its lanes are closed: {error}");
        for index in 0..self.lanes.len() {
            let Some(key) = self.lanes.get(index).and_then(|slot| slot.lane.as_deref()).map(|lane| lane.key)
            else {
                continue;
            };
            self.destroy_lane(key, Verdict::Failed, &error.to_string());
        }
        self.posted = 0;
    }
}

enum ListEnd {
    Posted(u32),
    Refused,
}

/// Failures that say nothing about the request itself: it may be tried again on a rebuilt queue pair.
fn is_interruption(status: CompletionStatus) -> bool {
    matches!(
        status,
        CompletionStatus::Flushed
            | CompletionStatus::RetryExceeded
            | CompletionStatus::RnrRetryExceeded
            | CompletionStatus::Fatal
    )
}

fn break_lane(lane: &mut Lane, reason: &str) {
    if lane.status.health() != LaneHealth::Healthy {
        return;
    }
    // The time of an earlier break says nothing about this one.
    lane.broken_since = None;
    lane.status.set(LaneHealth::Broken, reason);
    if let Err(error) = lane.queue_pair.set_error() {
        tracing::warn!("a queue pair could not be moved to ERROR: {error}");
    }
}

fn condemn(task: &Task, verdict: Verdict, reason: &str) {
    if verdict == Verdict::Failed {
        task.fail(RequestFailure {
            iov: 0,
            status: CompletionStatus::Flushed,
            vendor_error: 0,
            reason: reason.to_owned(),
        });
    } else {
        task.condemn(verdict);
    }
}

//! A worker's state and its one step: take submissions, poll completions, post what credits allow.
//!
//! Everything here runs under the worker's lock, so nothing needs to be atomic. The step is a plain function: the
//! worker's thread runs it, and so does every caller that waits for one of its transfers.

mod completions;
#[cfg(all(test, not(flagcx_p2p_loom)))]
mod copy_tests;
#[cfg(all(test, not(flagcx_p2p_loom)))]
mod credit_tests;
mod deadlines;
mod detached;
#[cfg(all(test, not(flagcx_p2p_loom)))]
mod fake_nic;
mod lanes;
mod moves;
#[cfg(all(test, not(flagcx_p2p_loom)))]
mod moves_tests;
mod posting;
mod probe;
#[cfg(all(test, not(flagcx_p2p_loom)))]
mod probe_tests;
#[cfg(all(test, not(flagcx_p2p_loom)))]
mod refusal_tests;
#[cfg(all(test, not(flagcx_p2p_loom)))]
mod slow_tests;
#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests;
mod undrained;
mod unfinished;

pub(super) use detached::DetachedLane;
pub use lanes::LaneClose;
pub use probe::ProbeError;
pub(super) use undrained::Undrained;
pub use unfinished::UnfinishedPart;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::early_ends::EarlyEnds;
use super::lane_key::LaneKey;
use super::lane_table::Lanes;
use super::part::Parts;
use super::part_owner::{EndState, PartEnd, PartOwner, RequestFailure};
use super::request_list::RequestList;
use super::shared_worker::Submission;
use super::slow_clock::{SLOW, SlowClock, slow_since};
use super::{clock, quick_clock};
use crate::fabric::{Completion, CompletionQueue, CompletionStatus};
use crate::memory::Recent;
use crate::observe::{Direction, TransferCounts, WorkerCounters, process_counts};

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

impl WorkerLimits {
    /// Credits left, with so many requests outstanding.
    #[inline(always)]
    pub(super) fn left(&self, posted: u32) -> u32 {
        self.posted.saturating_sub(posted)
    }
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
    /// Lanes are to be destroyed, which the worker's thread does.
    pub detached: bool,
}

/// Lists longer than this gain nothing: the work requests of one list must stay in the first-level cache while they
/// are converted and read by the device (128 bytes each as the verbs library wants them; 64 measured best).
const LIST_IN_CACHE: usize = 64;

/// The clock is read once in so many steps, a power of two: a step may take 20 ns, and reading the clock as long.
const STEPS_PER_CLOCK: u32 = 16;

/// A worker's state.
#[derive(Debug)]
pub struct WorkerState {
    queue: Box<dyn CompletionQueue>,
    limits: WorkerLimits,
    completions: Box<[Completion]>,
    lanes: Lanes,
    parts: Parts,
    /// Lanes with waiting parts and free depth, served in turn.
    ready: VecDeque<u16>,
    /// Requests outstanding over all lanes.
    posted: u32,
    /// Parts that stand in some lane's `turns`.
    unposted: u32,
    /// Parts of owners that are to end early, and that could not be ended yet. May name others that have their
    /// indices now.
    condemned: Vec<u32>,
    /// Lanes to destroy without the lock.
    detached: Vec<DetachedLane>,
    early_ends: Arc<EarlyEnds>,
    /// Of `early_ends`: what has been looked for.
    early_ends_seen: u64,
    /// A queue pair that is to be in ERROR, and is not, is to be asked again.
    is_resisted: bool,
    next_deadline_check: u64,
    /// When the clock of deadlines is to be read again, by the quick one.
    next_clock: u64,
    slow_clock: SlowClock,
    steps: u32,
    /// The clock is read with a step if its number has none of these bits.
    clock_mask: u32,
    counters: Arc<WorkerCounters>,
    /// Steps run by callers; the worker's thread compares it to see that callers drive.
    pub(super) caller_steps: u64,
}

impl WorkerState {
    /// A worker over `queue`. All workers of a pool share `early_ends`.
    pub fn new(
        queue: Box<dyn CompletionQueue>,
        limits: WorkerLimits,
        counters: Arc<WorkerCounters>,
        early_ends: Arc<EarlyEnds>,
    ) -> Self {
        let limits = WorkerLimits {
            posted: limits.posted.min(queue.depth()).max(1),
            list: limits.list.clamp(1, LIST_IN_CACHE),
            poll: limits.poll.max(1),
        };
        Self {
            queue,
            completions: vec![Completion::default(); limits.poll].into_boxed_slice(),
            limits,
            lanes: Lanes::default(),
            parts: Parts::default(),
            ready: VecDeque::new(),
            posted: 0,
            unposted: 0,
            condemned: Vec::new(),
            detached: Vec::new(),
            early_ends,
            early_ends_seen: 0,
            is_resisted: false,
            next_deadline_check: 0,
            next_clock: 0,
            slow_clock: SlowClock::default(),
            steps: 0,
            clock_mask: STEPS_PER_CLOCK - 1,
            counters,
            caller_steps: 0,
        }
    }

    /// The completion queue, to arm it.
    pub fn queue(&mut self) -> &mut dyn CompletionQueue {
        &mut *self.queue
    }

    /// Has each step read the clock: bytes are moved between steps, which takes far longer.
    pub(in crate::pool) fn look_at_clock_often(&mut self) {
        self.clock_mask = 0;
    }

    /// A free part, to be filled and started on a lane: its index and its list, and the recent regions of the lane. `None` if the
    /// lane is not healthy.
    #[inline(always)]
    pub(in crate::pool) fn acquire_part(
        &mut self,
        key: LaneKey,
    ) -> Option<(u32, &mut RequestList, &mut Recent)> {
        let lane = self.lanes.get(key).filter(|lane| lane.is_healthy())?;
        let index = self.parts.acquire();
        Some((index, &mut self.parts.get(index)?.list, &mut lane.recent))
    }

    /// Frees a part that was acquired and is not to be started.
    #[cold]
    pub(in crate::pool) fn release_unstarted(&mut self, index: u32) {
        self.parts.release(index, None);
    }

    /// Begins a part with a list that was built without the lock. Answers another list for it, for reuse.
    pub fn adopt(&mut self, submission: Submission) -> RequestList {
        let Submission { lane, owner, mut list, first, begun } = submission;
        // This worker may have looked for parts of an early end already, and does not look again for this one.
        let goes_on = !list.is_empty() && !owner.ends_early();
        if goes_on && self.lanes.get(lane).is_some_and(|lane| lane.takes_parts()) {
            let index = self.parts.acquire();
            if let Some(part) = self.parts.get(index) {
                std::mem::swap(&mut part.list, &mut list);
            }
            self.start_part(lane, index, owner, first, begun);
        } else {
            self.refuse(lane, owner, &mut list, first, begun);
        }
        list
    }

    /// Ends a part that is not begun, because its lane is down, its transfer has failed elsewhere, or it has nothing to move.
    #[cold]
    fn refuse(
        &mut self,
        lane: LaneKey,
        owner: &dyn PartOwner,
        list: &mut RequestList,
        first: bool,
        begun: u64,
    ) {
        let (direction, bytes) = (Direction::from(list.opcode), list.bytes);
        if !list.is_empty() {
            condemn(&self.early_ends, owner, EndState::Failed, "the lane is down");
        }
        // Before the end is known: its memory may be taken away then.
        list.clear();
        let ended = EndedPart { direction, bytes, end: owner.end_part() };
        if let Some(took) = slow_since(begun).filter(|_| ended.end.is_last()) {
            self.counters.slow_many(1, took);
        }
        let counts = match self.lanes.get(lane) {
            Some(lane) => Some(Arc::clone(&lane.counts)),
            None => self.lanes.counts_of_gone(lane),
        };
        if let Some(counts) = counts {
            counts.start(direction, u64::from(first), bytes);
            ended.count(&counts);
        } else {
            let counts = process_counts().unplaced();
            counts.start(direction, u64::from(first), bytes);
            counts.end(direction, ended.end.state(), u64::from(ended.end.is_last()), bytes);
        }
    }

    /// One turn: poll, retire, post, now and then look at deadlines.
    #[inline]
    pub fn step(&mut self) -> StepReport {
        let mut report = self.turn();
        self.steps = self.steps.wrapping_add(1);
        if self.steps & self.clock_mask == 0 {
            self.look_at_clock();
            report.detached = !self.detached.is_empty();
        }
        report
    }

    #[inline]
    fn turn(&mut self) -> StepReport {
        // Also for parts that only wait, for a lane's rebuild perhaps: a queue with something to report is not armed until it is
        // polled.
        let polled = if self.posted > 0 || self.unposted > 0 { self.poll() } else { 0 };
        let posted = self.post_ready();
        StepReport {
            progress: polled > 0 || posted > 0,
            busy: self.parts.len() > 0 || self.posted > 0 || self.is_resisted,
            backlog: self.unposted > 0,
            detached: !self.detached.is_empty(),
        }
    }

    /// Whether something waits to be posted: another step must follow.
    #[inline]
    pub fn has_backlog(&self) -> bool {
        self.unposted > 0
    }

    /// Whether a queue pair is to be moved to ERROR again: steps must follow, though nothing is in flight.
    pub fn is_resisted(&self) -> bool {
        self.is_resisted
    }

    /// Requests outstanding.
    pub fn outstanding(&self) -> u32 {
        self.posted
    }

    /// Parts in flight or waiting.
    pub fn part_count(&self) -> usize {
        self.parts.len()
    }

    /// Ends a part that has nothing outstanding. Answers what is left to be counted, if its lane is not there any more.
    fn end_part(&mut self, index: u32) -> Option<EndedPart> {
        if let Some(part) = self.parts.get(index).filter(|part| part.waiting) {
            part.waiting = false;
            let lane = part.lane;
            self.unposted -= 1;
            if let Some(lane) = self.lanes.at(lane) {
                lane.turns.remove(&mut self.parts, index);
            }
        }
        let part = self.parts.get(index)?;
        // Of a lane that was destroyed, what was outstanding is so no longer.
        (part.outstanding, part.rewind) = (0, None);
        let (lane_index, direction, bytes) = (part.lane, Direction::from(part.list.opcode), part.list.bytes);
        let is_late = self.slow_clock.ends_late(part.begun_at);
        let mut lane = self.lanes.at(lane_index);
        if let Some(lane) = &mut lane {
            lane.parts.remove(&mut self.parts, index);
        }
        // Frees it, and what it keeps registered; then ends it for its owner.
        let end = self.parts.release(index, lane.as_deref().map(|lane| &lane.recent))?.end_part();
        if is_late {
            note_late(&mut self.parts, index, end, &self.counters, &mut self.slow_clock);
        }
        let ended = EndedPart { direction, bytes, end };
        let Some(lane) = self.lanes.at(lane_index) else { return Some(ended) };
        ended.count(&lane.counts);
        None
    }
}

/// What is to be counted of a part that has ended.
struct EndedPart {
    direction: Direction,
    bytes: u64,
    end: PartEnd,
}

impl EndedPart {
    #[inline(always)]
    fn count(&self, counts: &TransferCounts) {
        counts.end(self.direction, self.end.code(), self.bytes);
    }
}

/// A part has ended that had its latency measured, or took long: counts that. Its place is free already, and has its times still.
#[cold]
fn note_late(
    parts: &mut Parts,
    index: u32,
    end: PartEnd,
    counters: &WorkerCounters,
    slow_clock: &mut SlowClock,
) {
    let Some(part) = parts.get(index) else { return };
    let now = quick_clock::now_ns();
    if let Some((count, most)) = slow_clock.look(now) {
        counters.slow_many(count, most);
    }
    let took = match part.begun {
        0 => slow_clock.took(part.begun_at, late_by(part.since), now),
        begun => Duration::from_nanos(now.saturating_sub(begun)),
    };
    if std::mem::take(&mut part.is_measured) {
        counters.ended(took);
    }
    if end.is_last() && took >= SLOW {
        counters.slow_many(1, took);
    }
}

/// The time since this millisecond of the pool's clock; none since 0.
fn late_by(since: u64) -> u64 {
    // Both are rounded.
    if since == 0 { 0 } else { clock::ms(clock::now_ns()).saturating_sub(since + 1) }
}

fn condemn(early_ends: &EarlyEnds, owner: &dyn PartOwner, state: EndState, reason: &str) {
    if state == EndState::Failed {
        fail(
            early_ends,
            owner,
            RequestFailure {
                iov: 0,
                last_iov: 0,
                status: CompletionStatus::Flushed,
                vendor_error: 0,
                reason: reason.to_owned(),
            },
        );
    } else {
        owner.condemn(state);
        early_ends.note_others(owner);
    }
}

fn fail(early_ends: &EarlyEnds, owner: &dyn PartOwner, failure: RequestFailure) {
    owner.fail(failure);
    early_ends.note_others(owner);
}

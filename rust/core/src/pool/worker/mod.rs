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
mod express;
#[cfg(all(test, not(flagcx_p2p_loom)))]
mod fake_nic;
mod lanes;
mod posting;
#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests;

pub use express::OneRequest;

use std::collections::VecDeque;
use std::sync::Arc;

use super::early_ends::EarlyEnds;
use super::lane::{LaneKey, Lanes};
use super::part::Parts;
use super::request_list::RequestList;
use super::task::{EndState, RequestFailure, Task};
use crate::fabric::{Completion, CompletionQueue, CompletionStatus};
use crate::memory::Recent;
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
/// are converted and read by the device (128 bytes each as the verbs library wants them; 64 measured best).
const LIST_IN_CACHE: usize = 64;

/// The clock is read once in so many steps: a step may take 20 ns, and reading the clock a quarter of that.
const STEPS_PER_CLOCK: u32 = 8;

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
    /// Parts of transfers that were told to end early, and that could not be ended yet. May name others that have taken
    /// their places.
    condemned: Vec<u32>,
    early_ends: Arc<EarlyEnds>,
    /// Of `early_ends`: what has been looked for.
    early_ends_seen: u64,
    next_deadline_check: u64,
    steps: u32,
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
            early_ends,
            early_ends_seen: 0,
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

    /// Begins a part on a lane: `build` fills its (recycled) list, and may share the lane's recent regions; then it posts
    /// what credits allow. An error of `build` leaves nothing behind. The caller has counted the part in `task`.
    #[inline]
    pub fn begin<E>(
        &mut self,
        key: LaneKey,
        task: &'static Task,
        build: impl FnOnce(&mut RequestList, Option<&mut Recent>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(lane) = self.lanes.get(key).filter(|lane| lane.takes_parts()) else {
            let mut list = RequestList::default();
            return build(&mut list, None).map(|()| self.refuse(task, &mut list));
        };
        let index = self.parts.claim();
        lane.parts.push_back(&mut self.parts, index);
        let Some(part) = self.parts.get(index) else { return Ok(()) };
        part.lane = key.index();
        let built = build(&mut part.list, Some(&mut lane.recent));
        if built.is_err() || part.list.is_empty() {
            self.release(index);
            if built.is_ok() {
                // Nothing but empty pieces: done as soon as begun.
                task.end_part();
            }
            return built;
        }
        part.task = Some(task);
        self.start(key, index);
        Ok(())
    }

    /// Begins a part whose list was built outside the lock. Answers the list that its slot had, for reuse.
    pub fn adopt(&mut self, key: LaneKey, task: &'static Task, mut list: RequestList) -> RequestList {
        // What told this worker of an early end may have been seen already, and does not come again for this part.
        let goes_on = !list.is_empty() && !task.ends_early();
        let Some(lane) = self.lanes.get(key).filter(|lane| lane.takes_parts() && goes_on) else {
            self.refuse(task, &mut list);
            return list;
        };
        let index = self.parts.claim();
        lane.parts.push_back(&mut self.parts, index);
        let Some(part) = self.parts.get(index) else { return list };
        let spare = std::mem::replace(&mut part.list, list);
        (part.task, part.lane) = (Some(task), key.index());
        self.start(key, index);
        spare
    }

    /// Ends a part that is not begun, because its lane is down, its transfer has failed elsewhere, or it has nothing to move.
    #[cold]
    fn refuse(&self, task: &Task, list: &mut RequestList) {
        if !list.is_empty() {
            condemn(&self.early_ends, task, EndState::Failed, "the lane is down");
        }
        // Before the end is known: its memory may be taken away then.
        list.clear();
        task.end_part();
    }

    /// One turn: poll, retire, post, now and then look at deadlines.
    #[inline]
    pub fn step(&mut self) -> StepReport {
        let report = self.turn();
        self.steps = self.steps.wrapping_add(1);
        if self.steps.is_multiple_of(STEPS_PER_CLOCK) {
            self.look_at_clock();
        }
        report
    }

    #[inline]
    fn turn(&mut self) -> StepReport {
        // Also for parts that only wait, for a lane's rebuild perhaps: a software device may have something to do, and
        // says so, instead of arming its queue, until it is polled.
        let polled = if self.posted > 0 || self.unposted > 0 { self.poll() } else { 0 };
        let posted = self.post_ready();
        StepReport {
            progress: polled > 0 || posted > 0,
            busy: self.parts.len() > 0 || self.posted > 0,
            backlog: self.unposted > 0,
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

    fn end_part(&mut self, index: u32) {
        if let Some(part) = self.parts.get(index).filter(|part| part.waiting) {
            self.unposted -= 1;
            if let Some(lane) = self.lanes.at(part.lane) {
                lane.turns.remove(&mut self.parts, index);
            }
        }
        if let Some(task) = self.release(index) {
            task.end_part();
        }
    }

    /// Gives a part's slot back, and what it holds; answers its task.
    fn release(&mut self, index: u32) -> Option<&'static Task> {
        let part = self.parts.get(index)?;
        if let Some(lane) = self.lanes.at(part.lane) {
            if part.list.shares_recent {
                lane.recent.give_back();
            }
            lane.parts.remove(&mut self.parts, index);
        }
        self.parts.release(index)
    }
}

fn condemn(early_ends: &EarlyEnds, task: &Task, verdict: EndState, reason: &str) {
    if verdict == EndState::Failed {
        fail(
            early_ends,
            task,
            RequestFailure {
                iov: 0,
                status: CompletionStatus::Flushed,
                vendor_error: 0,
                reason: reason.to_owned(),
            },
        );
    } else {
        task.condemn(verdict);
        early_ends.note_others(task);
    }
}

fn fail(early_ends: &EarlyEnds, task: &Task, failure: RequestFailure) {
    task.fail(failure);
    early_ends.note_others(task);
}

//! A worker as others see it: the lock round its state, its submission queues, and the way to wake its thread.

mod lane_ends;
mod rails;
mod waking;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::{Backoff, CachePadded};
use once_cell::sync::OnceCell;

use super::PoolError;
use super::jobs::Jobs;
use super::lane_key::LaneKey;
use super::new_part::NewPart;
use super::parking::Parking;
use super::part_owner::PartOwner;
use super::request_list::RequestList;
use super::shares::Shares;
use super::spare_lists::SpareLists;
use super::worker::{StepReport, WorkerState};
use crate::events::Notifier;
use crate::fabric::{Progress, QueueHandle};
use crate::sync::{AtomicBool, AtomicU32, Ordering};

/// A part on its way to a worker, queued because another thread held the worker's lock.
#[derive(Debug)]
pub struct Submission {
    /// Where it goes.
    pub lane: LaneKey,
    /// What it is a part of, with this part counted.
    pub owner: &'static dyn PartOwner,
    /// What to move.
    pub list: RequestList,
    /// It counts as the beginning of its transfer on the lane.
    pub first: bool,
    /// When its transfer began, as [`transfer_begins`](super::transfer_begins) answered; 0 for when the worker takes it.
    pub begun: u64,
}

/// Whether a caller has left something to be posted.
#[derive(Clone, Copy, Debug)]
#[must_use = "the thread sleeps until it is woken for it"]
pub struct Backlog(pub(super) bool);

/// One worker of a pool.
#[derive(Debug)]
pub struct Worker {
    state: CachePadded<spin::Mutex<WorkerState>>,
    queues: Box<[ArrayQueue<Submission>]>,
    /// Something may be in a queue: one load instead of two per queue with every step. Set (a swap, AcqRel) by submitters
    /// after the push; swapped (AcqRel) by the holder of the lock before it empties the queues, so that a push is either
    /// found or sets it again.
    queued: AtomicBool,
    parking: CachePadded<Parking>,
    /// A caller found the lock taken. Set by callers, taken by the thread, which then lets them have it: a hint, so
    /// Relaxed.
    contended: AtomicBool,
    /// Callers that sleep until a transfer ends, and transfers that notify something of their end: the thread must drive even
    /// if callers did a moment ago. Written by those callers and at such ends, read by the thread; a hint with a wake-up
    /// behind it, so Relaxed.
    sleepers: AtomicU32,
    /// Threads that wait for the lock, control work and callers going to sleep: the worker's thread leaves them a gap, for
    /// its own next try comes too soon for another to get between. Written by those that wait, read by the worker's thread;
    /// a hint, so Relaxed.
    control: AtomicU32,
    /// Set once by the pool's drop, read by the thread after each wake-up.
    stopping: AtomicBool,
    /// Calls for the thread.
    jobs: Jobs,
    /// Set by the thread when it begins.
    thread: OnceCell<ThreadId>,
    wake: Notifier,
    /// Duplicate of the completion queue's fd, to wait on without the lock.
    completions: OwnedFd,
    /// The completion queue, to create queue pairs on without the lock.
    queue_handle: QueueHandle,
    /// Moves the bytes, where the device does not do so by itself. Without the worker's lock, so that other lanes and control
    /// work do not wait for a copy.
    progress: Option<Arc<dyn Progress>>,
    /// Callers that move bytes now, where `progress` does: the thread leaves that to them, for two that take turns at one queue pair
    /// take longer than one. Written by callers, read by the thread; a hint, so Relaxed.
    movers: AtomicU32,
    /// Whether the thread moves bytes beside callers, where the device does not.
    shares: Shares,
    /// The device moves data only while its completion queue is polled.
    device_needs_polling: bool,
    /// The pool's.
    spare_lists: Arc<SpareLists>,
}

impl Worker {
    pub(super) fn new(
        mut state: WorkerState,
        queues: usize,
        queue_depth: usize,
        device_needs_polling: bool,
        spare_lists: Arc<SpareLists>,
    ) -> Result<Self, PoolError> {
        let thread_error = |error: std::io::Error| PoolError::Thread(error.to_string());
        let wake = Notifier::new().map_err(thread_error)?;
        let completions = state.queue().fd().try_clone_to_owned().map_err(thread_error)?;
        let queue_handle = state.queue().handle();
        let progress = state.queue().detach_progress();
        if progress.is_some() {
            state.look_at_clock_often();
        }
        Ok(Self {
            state: CachePadded::new(spin::Mutex::new(state)),
            queues: (0..queues.max(1)).map(|_| ArrayQueue::new(queue_depth.max(1))).collect(),
            queued: AtomicBool::new(false),
            parking: CachePadded::default(),
            contended: AtomicBool::new(false),
            sleepers: AtomicU32::new(0),
            control: AtomicU32::new(0),
            stopping: AtomicBool::new(false),
            jobs: Jobs::default(),
            thread: OnceCell::new(),
            wake,
            completions,
            queue_handle,
            progress,
            movers: AtomicU32::new(0),
            shares: Shares::default(),
            device_needs_polling,
            spare_lists,
        })
    }

    /// A part to be acquired, filled and started right here; `None` if the worker's lock is taken. Build the list outside then,
    /// or if the lane is not healthy, and use [`Worker::submit`].
    #[inline(always)]
    pub fn try_begin(&self, lane: LaneKey) -> Option<NewPart<'_>> {
        let mut state = self.caller_lock()?;
        if !self.is_queue_empty() {
            self.take_submissions(&mut state);
        }
        Some(NewPart::new(self, state, lane))
    }

    /// Takes a part with a list that was built without the lock: at once if the lock is free, else through a submission queue.
    /// Gives the part back when the queue is full.
    ///
    /// Moves no bytes and wakes no thread: [`Worker::wake_for`] is to be called with the answer, soon.
    #[allow(clippy::result_large_err, reason = "the submission goes back to the caller whole")]
    pub fn submit(&self, submission: Submission, hint: usize) -> Result<Backlog, Submission> {
        if let Some(mut state) = self.caller_lock() {
            if !self.is_queue_empty() {
                self.take_submissions(&mut state);
            }
            state.caller_steps = state.caller_steps.wrapping_add(1);
            let spare = state.adopt(submission);
            let report = state.step();
            drop(state);
            self.note_detached(report);
            self.spare_lists.release(spare);
            return Ok(Backlog(report.backlog));
        }
        let Some(queue) = self.queues.get(hint % self.queues.len().max(1)) else { return Err(submission) };
        queue.push(submission)?;
        // A plain store would end what a submitter just before has released with its own.
        self.queued.swap(true, Ordering::AcqRel);
        // The holder of the lock may have looked at the queues already: another look is needed.
        Ok(Backlog(self.step_as_caller().is_none_or(|report| report.backlog)))
    }

    /// Submissions for which the queue of `hint` has room.
    pub fn room(&self, hint: usize) -> usize {
        self.queues.get(hint % self.queues.len().max(1)).map_or(0, |queue| queue.capacity() - queue.len())
    }

    /// Parts that wait in its submission queues.
    pub fn queued(&self) -> usize {
        self.queues.iter().map(ArrayQueue::len).sum()
    }

    /// Runs one step on behalf of a caller that waits; `None` when another thread holds the lock.
    #[inline]
    pub fn drive_as_caller(&self) -> Option<StepReport> {
        if let Some(progress) = &self.progress {
            self.movers.fetch_add(1, Ordering::Relaxed);
            progress.advance();
            self.movers.fetch_sub(1, Ordering::Relaxed);
        }
        let report = self.step_as_caller()?;
        if report.backlog {
            self.wake_if_parked();
        }
        Some(report)
    }

    /// One step on behalf of a caller, without moving bytes; `None` when another thread holds the lock.
    #[inline]
    fn step_as_caller(&self) -> Option<StepReport> {
        let mut state = self.caller_lock()?;
        state.caller_steps = state.caller_steps.wrapping_add(1);
        let report = self.step(&mut state);
        drop(state);
        self.note_detached(report);
        Some(report)
    }

    /// Runs `action` under the worker's lock, waiting for it: for control work, which is rare and may wait. What was
    /// submitted before is with its lane then.
    pub fn with_state<R>(&self, action: impl FnOnce(&mut WorkerState) -> R) -> R {
        loop {
            if let Some(mut state) = self.lock_until(None) {
                if !self.is_queue_empty() {
                    self.take_submissions(&mut state);
                }
                let result = action(&mut state);
                let is_resisted = state.is_resisted();
                drop(state);
                if is_resisted {
                    self.kick();
                }
                return result;
            }
        }
    }

    /// Where lists come from and go back to: those of its pool.
    pub fn spare_lists(&self) -> &SpareLists {
        &self.spare_lists
    }

    /// What queue pairs of this worker's lanes are created on.
    pub fn queue_handle(&self) -> &QueueHandle {
        &self.queue_handle
    }

    /// Has the thread destroy what a step of another thread's has detached.
    #[inline]
    fn note_detached(&self, report: StepReport) {
        if report.detached {
            self.kick();
        }
    }

    /// The worker's lock, waited for until then, or for as long as it takes.
    fn lock_until(&self, until: Option<Instant>) -> Option<spin::MutexGuard<'_, WorkerState>> {
        if let Some(state) = self.state.try_lock() {
            return Some(state);
        }
        self.control.fetch_add(1, Ordering::Relaxed);
        let backoff = Backoff::new();
        let state = loop {
            let state = self.state.try_lock();
            if state.is_some() || until.is_some_and(|until| Instant::now() >= until) {
                break state;
            }
            if backoff.is_completed() {
                std::thread::sleep(Duration::from_micros(20));
            } else {
                backoff.snooze();
            }
        };
        self.control.fetch_sub(1, Ordering::Relaxed);
        state
    }

    /// Has the worker's thread call `job` soon, without the worker's lock.
    pub(crate) fn run_soon(&self, job: impl FnOnce() + Send + 'static) {
        // The thread itself looks after each of its turns.
        if self.jobs.push(job) && !self.is_current_thread() {
            self.wake.notify();
        }
    }

    /// Whether the caller runs on the worker's thread.
    pub(super) fn is_current_thread(&self) -> bool {
        self.thread.get() == Some(&std::thread::current().id())
    }

    /// What the thread says when it begins.
    pub(super) fn enter_thread(&self) {
        // The cell is empty: a worker has one thread.
        let _ = self.thread.set(std::thread::current().id());
    }

    pub(super) fn run_jobs(&self) {
        self.jobs.run();
    }

    #[inline]
    pub(super) fn step(&self, state: &mut WorkerState) -> StepReport {
        if !self.is_queue_empty() {
            self.take_submissions(state);
        }
        state.step()
    }

    /// Whether callers wanted the lock and found it taken since the last look.
    pub(super) fn take_contended(&self) -> bool {
        self.contended.load(Ordering::Relaxed) && self.contended.swap(false, Ordering::Relaxed)
    }

    /// Whether control work waits for the lock.
    pub(super) fn has_control_waiting(&self) -> bool {
        self.control.load(Ordering::Relaxed) != 0
    }

    #[inline]
    fn caller_lock(&self) -> Option<spin::MutexGuard<'_, WorkerState>> {
        let state = self.state.try_lock();
        if state.is_none() {
            self.contended.store(true, Ordering::Relaxed);
        }
        state
    }

    pub(super) fn try_state(&self) -> Option<spin::MutexGuard<'_, WorkerState>> {
        self.state.try_lock()
    }

    pub(super) fn parking(&self) -> &Parking {
        &self.parking
    }

    pub(super) fn is_queue_empty(&self) -> bool {
        !self.queued.load(Ordering::Acquire)
    }

    pub(super) fn has_sleepers(&self) -> bool {
        self.sleepers.load(Ordering::Relaxed) != 0
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.kick();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    #[cold]
    fn take_submissions(&self, state: &mut WorkerState) {
        self.queued.swap(false, Ordering::AcqRel);
        for queue in &self.queues {
            // Bounded, so that submitters cannot keep the lock holder here for ever.
            for _ in 0..queue.len() {
                let Some(submission) = queue.pop() else { break };
                self.spare_lists.release(state.adopt(submission));
            }
        }
    }
}

//! The state of a transfer: shared by the workers that move its parts and the callers that ask about it.

mod notices;

use super::end_notice::EndNotice;
use crate::pool::{COPY_WORKER, EndState, PartEnd, PartOwner, RequestFailure};
use crate::sync::{AtomicU32, AtomicU64, Condvar, Mutex, Ordering, lock, wait};
use std::time::{Duration, Instant};

/// Names one use of a record. Records are reused, and a thread that comes late must not change the transfer that has it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferGeneration(u64);

impl TransferGeneration {
    fn of(word: u64) -> Self {
        Self(word >> 8)
    }

    fn next(self) -> Self {
        // 56 bits: it does not wrap. 0 is no generation, so that nothing is aborted by default.
        Self(self.0 + 1)
    }

    fn with(self, state: EndState) -> u64 {
        self.0 << 8 | state as u64
    }
}

/// How long a transfer may take, as its [`TransferRecord`] keeps it until that time begins: in milliseconds, marked; 0 for ever.
#[derive(Clone, Copy, Debug)]
pub struct TimeLimit(u64);

impl TimeLimit {
    /// No limit.
    pub const NEVER: Self = Self(0);

    /// Marks a time that is still to be counted.
    const NOT_BEGUN: u64 = 1 << 63;

    /// At least a millisecond.
    pub fn new(limit: Duration) -> Self {
        Self((limit.as_millis() as u64).max(1) | Self::NOT_BEGUN)
    }
}

/// The state of one transfer. Reused: [`TransferRecord::start`] begins a new generation.
///
/// A submitter starts it with a number of parts and hands each to a worker; each part ends exactly once, when the fabric
/// is done with its memory; the record has ended when the last part has.
#[derive(Debug)]
#[repr(C)]
pub struct TransferRecord {
    /// Parts that have not ended. Written by the submitter before the hand-over (the worker's lock or queue carries it
    /// across) and decremented by workers; callers load it. The Release store or decrement that makes it 0 pairs with the
    /// Acquire load in `is_ended`, so a thread that sees 0 sees the end state and the moved bytes.
    parts: AtomicU32,
    /// [`WATCHED`] if a caller sleeps until it has ended, or is about to, or a part has left its worker for another one; the bits below
    /// are of workers that parts came to so. The caller sets it under the lock of each worker that has a part,
    /// and then loads `parts`; the worker that ends the last part reads it under its own lock: either that worker sees it, or
    /// the caller sees 0 in `parts`. Of a part that moves it is set under the lock of the worker that it leaves, and so seen by the one that
    /// gets it, whatever callers have locked. The locks order it: Relaxed. Cleared by the submitter for the next generation.
    watched: AtomicU64,
    /// An [`EndState`] in the low byte, the number of the generation above it; the first to leave `Done` stands. Written
    /// by workers and callers, read by both; published by `parts` for the final reader, and only a hint before that,
    /// so Relaxed does for end states. A new generation is stored with Release, and readers that have found the record by an
    /// id load with Acquire: one that reads a later generation then finds, in the second look at the id, that the transfer
    /// is gone.
    state: AtomicU64,
    /// The generation that is to end now even if that costs its queue pairs. Set by callers, possibly too late, and read by
    /// workers as a hint: Relaxed.
    aborted: AtomicU64,
    /// When it times out, in milliseconds of the pool's clock; a [`TimeLimit`] until a worker looks for the first time, and
    /// for one without. Written by the submitter before the hand-over and by workers that have a part of
    /// it, which mean the same moment: Relaxed.
    deadline: AtomicU64,
    // What most transfers do not need comes last.
    /// In a box: the slot of a transfer has no room for it.
    failure: Mutex<Option<Box<RequestFailure>>>,
    /// Held by sleepers until they wait, and by the last part before it wakes them. What is told of the end, if anything is.
    gate: Mutex<Option<Box<EndNotice>>>,
    ended: Condvar,
}

impl Default for TransferRecord {
    fn default() -> Self {
        Self {
            parts: AtomicU32::new(0),
            watched: AtomicU64::new(0),
            state: AtomicU64::new(0),
            aborted: AtomicU64::new(0),
            deadline: AtomicU64::new(0),
            failure: Mutex::new(None),
            gate: Mutex::new(None),
            ended: Condvar::new(),
        }
    }
}

impl TransferRecord {
    /// One that is not freed, as those of a transfer table are, kept where it is not taken for a leak.
    #[cfg(all(test, not(flagcx_p2p_loom)))]
    pub(crate) fn lasting() -> &'static Self {
        static KEPT: Mutex<Vec<&TransferRecord>> = Mutex::new(Vec::new());
        let record = Box::leak(Box::default());
        lock(&KEPT).push(record);
        record
    }

    /// Begins a new generation of `parts` parts; its time counts from when a worker first looks at it. Only while no other
    /// thread uses the record.
    #[inline(always)]
    pub fn start(&self, parts: u32, limit: TimeLimit) {
        let last = self.state.load(Ordering::Relaxed);
        if EndState::from_code(last as u8) != EndState::Done {
            self.clear_failure();
        }
        self.state.store(TransferGeneration::of(last).next().with(EndState::Done), Ordering::Release);
        // The clock is not read here: that took a tenth of the time of a small transfer.
        self.deadline.store(limit.0, Ordering::Relaxed);
        self.watched.store(0, Ordering::Relaxed);
        self.parts.store(parts, Ordering::Release);
    }

    #[cold]
    #[inline(never)]
    fn clear_failure(&self) {
        *lock(&self.failure) = None;
    }

    /// Whether every part has ended.
    #[inline]
    pub fn is_ended(&self) -> bool {
        self.parts.load(Ordering::Acquire) == 0
    }

    /// The present generation, for [`TransferRecord::condemn_generation`].
    pub fn generation(&self) -> TransferGeneration {
        TransferGeneration::of(self.state.load(Ordering::Acquire))
    }

    /// How a generation that is over has ended; `None` if the record has begun another one since.
    fn end_state_of(&self, generation: TransferGeneration) -> Option<EndState> {
        let word = self.state.load(Ordering::Acquire);
        (TransferGeneration::of(word) == generation).then(|| EndState::from_code(word as u8))
    }

    /// The first failure, if any request failed.
    pub fn failure(&self) -> Option<RequestFailure> {
        lock(&self.failure).as_deref().cloned()
    }

    /// As [`PartOwner::condemn`], by a thread that has no part of it: nothing happens when that generation is over.
    pub fn condemn_generation(&self, generation: TransferGeneration, state: EndState) -> bool {
        let (fine, condemned) = (generation.with(EndState::Done), generation.with(state));
        self.state.compare_exchange(fine, condemned, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// As [`PartOwner::abort`], by a thread that has no part of it: nothing happens when that generation is over.
    pub fn abort_generation(&self, generation: TransferGeneration) {
        self.aborted.store(generation.0, Ordering::Relaxed);
    }

    /// Blocks until it has ended, at most until `until`; true if it has. Only wakes early if the record is being
    /// [watched](PartOwner::watch). Does not help progress.
    pub fn sleep_until_ended(&self, until: Instant) -> bool {
        let mut gate = lock(&self.gate);
        while !self.is_ended() {
            let left = until.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return false;
            }
            gate = wait(&self.ended, gate, left);
        }
        true
    }

    /// The bits of the workers that parts of it came to after it had begun.
    pub(super) fn moved_to(&self) -> u64 {
        self.watched.load(Ordering::Relaxed) & !WATCHED
    }

    /// Ends a part of a transfer that has several, or is watched.
    #[cold]
    fn end_part_of_several(&self) -> PartEnd {
        let watched = self.watched.load(Ordering::Relaxed) != 0;
        let mut left = self.parts.load(Ordering::Acquire);
        // Before the count: after it, the record may be another transfer's. Again if another part has ended since, for that may
        // have failed: what the last part finds here is how all of them went.
        let before = loop {
            let before = self.state.load(Ordering::Acquire);
            let less = left.wrapping_sub(1);
            match self.parts.compare_exchange(left, less, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break before,
                Err(now) => left = now,
            }
        };
        let (generation, is_last) = (TransferGeneration::of(before), left == 1);
        // A caller may have condemned it meanwhile.
        let after = self.state.load(Ordering::Acquire);
        let now = if TransferGeneration::of(after) == generation { after } else { before };
        let end = if is_last { PartEnd::of_last(now as u8) } else { PartEnd::of_other(now as u8) };
        if !is_last || !watched {
            return end;
        }
        // A caller that finds the record not ended holds the gate until it waits.
        let notice = self.take_notice(generation);
        self.ended.notify_all();
        // Not read from the record: a caller that is quicker may have begun another transfer in it.
        notice.into_iter().for_each(|notice| notice.fire(Some(end.state())));
        end
    }
}

impl PartOwner for TransferRecord {
    fn generation(&self) -> u64 {
        Self::generation(self).0
    }

    /// The last part wakes the sleepers, and fires the notice.
    #[inline]
    fn end_part(&self) -> PartEnd {
        // The last part has no other beside it that would write here: no need for a locked instruction.
        if self.watched.load(Ordering::Relaxed) == 0 && self.parts.load(Ordering::Acquire) == 1 {
            // Before the store: after it, the record may be another transfer's.
            let end = PartEnd::of_last(self.state.load(Ordering::Relaxed) as u8);
            self.parts.store(0, Ordering::Release);
            end
        } else {
            self.end_part_of_several()
        }
    }

    fn parts_left(&self) -> u32 {
        self.parts.load(Ordering::Relaxed)
    }

    #[inline]
    fn end_state(&self) -> EndState {
        EndState::from_code(self.state.load(Ordering::Acquire) as u8)
    }

    fn condemn(&self, state: EndState) -> bool {
        self.condemn_generation(self.generation(), state)
    }

    fn fail(&self, failure: RequestFailure) {
        let mut first = lock(&self.failure);
        if self.condemn(EndState::Failed) {
            *first = Some(Box::new(failure));
        }
    }

    fn abort(&self) {
        self.abort_generation(self.generation());
    }

    fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Relaxed) == self.generation().0
    }

    fn is_late(&self, now: u64) -> bool {
        let deadline = self.deadline.load(Ordering::Relaxed);
        if deadline & TimeLimit::NOT_BEGUN != 0 {
            self.deadline.store(now + (deadline & !TimeLimit::NOT_BEGUN), Ordering::Relaxed);
            return false;
        }
        deadline != 0 && now >= deadline
    }

    fn watch(&self) {
        self.watched.fetch_or(WATCHED, Ordering::Relaxed);
    }

    fn moves_to(&self, worker: usize) {
        // The bit of copies, which stay where they are, is that of watching.
        self.watched.fetch_or(WATCHED | 1 << worker, Ordering::Relaxed);
    }
}

/// The bit of no worker that parts move to.
const WATCHED: u64 = 1 << COPY_WORKER;

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests;

#[cfg(test)]
mod notice_tests;

#[cfg(all(test, flagcx_p2p_loom))]
mod models;

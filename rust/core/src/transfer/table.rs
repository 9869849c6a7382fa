//! The transfers of one engine by id: a slab of recycled tasks whose ids carry a sequence number, so that an old id is
//! recognised for what it is and never reaches a stranger's transfer.

mod set_aside;

use std::time::Duration;

use once_cell::race::OnceRef;

use super::failed::{FailedTransfers, Limits};
use super::free_list::{FreeList, Taken};
use super::outcomes::{End, Ends, Failures};
use super::slots::{CHUNK, Chunk, SLOT_BITS, SLOT_MASK, SPARE, Slot};
use super::worker_slots::{WORKERS, WorkerSlots};
use super::{Failure, Outcome, TransferId};
use crate::pool::{EndState, Task, TimeLimit, WorkerPool};
use crate::sync::{Mutex, Ordering, lock};

/// One less than indices allow: the highest index means none.
const CHUNKS: usize = (1 << SLOT_BITS) / CHUNK - 1;

/// Transfers that one engine may have at a time: in flight, or ended and not yet asked about. 64 places for each worker
/// are only taken by transfers of one piece.
pub const MOST_TRANSFERS: usize = CHUNKS * CHUNK;

/// All transfers of one engine.
#[derive(Debug)]
pub struct Table {
    /// Slot `i` is in chunk `i / CHUNK`.
    chunks: Box<[OnceRef<'static, Chunk>]>,
    free: FreeList,
    growth: Mutex<usize>,
    /// How transfers ended that were in none of `worker_slots`.
    ends: Box<Ends>,
    failures: Failures,
    /// Those that are not to read as ended yet.
    failed: Mutex<FailedTransfers>,
    /// One for each worker.
    worker_slots: [WorkerSlots; WORKERS],
}

impl Default for Table {
    /// A table without a hold.
    fn default() -> Self {
        Self::new(Duration::ZERO)
    }
}

impl Table {
    /// An empty table; failed transfers read as ended to callers of [`Table::has_failed_ended`] only `failed_hold` after
    /// their [`Table::set_aside`].
    pub fn new(failed_hold: Duration) -> Self {
        Self {
            chunks: (0..CHUNKS).map(|_| OnceRef::new()).collect(),
            free: FreeList::default(),
            growth: Mutex::new(0),
            ends: Box::default(),
            failures: Failures::default(),
            failed: Mutex::new(FailedTransfers::new(failed_hold, Limits::DEFAULT)),
            worker_slots: Default::default(),
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.chunks.iter().filter_map(OnceRef::get).for_each(|chunk| SPARE.get().give(chunk));
    }
}

/// A slot that a submitter has taken and not yet published.
#[derive(Debug)]
pub struct Claim {
    slot: &'static Slot,
    /// Of the transfer to come.
    id: u64,
}

impl Claim {
    /// The task to start and hand to workers.
    #[inline]
    pub fn task(&self) -> &'static Task {
        &self.slot.task
    }
}

impl Table {
    /// Takes a free slot; `None` when there are [`MOST_TRANSFERS`] slots, those of workers among them, and none is free.
    #[inline]
    pub fn claim(&self) -> Option<Claim> {
        let Taken { index, slot, number } = self.take_free().or_else(|| self.grow())?;
        Some(Claim { slot, id: number << SLOT_BITS | u64::from(index) })
    }

    /// Takes a slot for a transfer of one part, starts its task and publishes it: one of the few slots that are the
    /// worker's own, if the one whose turn it is is free. Called under the lock of `worker`. `None` as for
    /// [`Table::claim`].
    #[inline(always)]
    pub fn begin_one(&self, worker: usize, limit: TimeLimit) -> Option<(TransferId, &'static Task)> {
        let Some((slot, id)) = self.worker_slots.get(worker).and_then(WorkerSlots::take) else {
            return self.begin_elsewhere(worker, limit);
        };
        slot.task.start(1, limit);
        slot.publish(id);
        Some((TransferId(id), &slot.task))
    }

    #[inline(never)]
    fn begin_elsewhere(&self, worker: usize, limit: TimeLimit) -> Option<(TransferId, &'static Task)> {
        if let Some(worker_slots) = self.worker_slots.get(worker)
            && worker_slots.is_empty()
            && let Some((slots, first)) = self.add_chunk(&mut lock(&self.growth))
        {
            worker_slots.fill(worker, slots, first);
        }
        let claim = self.claim()?;
        let task = claim.task();
        task.start(1, limit);
        Some((self.publish(claim, 1 << worker), task))
    }

    /// Gives a slot back that was never published, and whose task no worker has.
    pub fn abandon(&self, claim: Claim) {
        claim.task().start(0, TimeLimit::NEVER);
        self.recycle((claim.id & SLOT_MASK) as u32, claim.slot);
    }

    /// Publishes a claimed slot under a new id.
    #[inline]
    pub fn publish(&self, claim: Claim, workers: u32) -> TransferId {
        claim.slot.workers.store(workers, Ordering::Relaxed);
        claim.slot.publish(claim.id);
        TransferId(claim.id)
    }

    /// The live transfer of an id.
    #[inline]
    pub fn find(&self, id: TransferId) -> Option<Live> {
        let slot = self.slot((id.0 & SLOT_MASK) as u32)?;
        (id.0 != 0 && slot.id() == id.0).then_some(Live { slot, id })
    }

    /// Releases an ended transfer if it has ended well; false if it has not, or somebody else just did.
    #[inline]
    pub fn release_done(&self, live: &Live) -> bool {
        live.slot.verdict(live.id.0) == Some(EndState::Done) && self.record_and_free(live, End::Done)
    }

    /// Releases an ended transfer and answers its outcome; `None` if somebody else just did.
    #[cold]
    pub fn release(&self, live: &Live, peer: impl FnOnce() -> String) -> Option<Outcome> {
        let (end, outcome) = self.outcome_of(live, peer)?;
        self.keep_details(live.id, &outcome);
        self.record_and_free(live, end).then_some(outcome)
    }

    /// How an ended transfer ended; `None` if its slot is not its own any more.
    fn outcome_of(&self, live: &Live, peer: impl FnOnce() -> String) -> Option<(End, Outcome)> {
        let verdict = live.slot.task.verdict();
        let failure = if verdict == EndState::Failed { live.slot.task.failure() } else { None };
        if !live.is_current() {
            return None;
        }
        Some(match verdict {
            EndState::Done => (End::Done, Outcome::Done),
            EndState::TimedOut => (End::TimedOut, Outcome::TimedOut),
            EndState::Cancelled => (End::Cancelled, Outcome::Cancelled),
            EndState::Failed => {
                let failure = Failure {
                    iov: failure.as_ref().map_or(0, |failure| failure.iov as usize),
                    status: failure.as_ref().map_or(crate::fabric::CompletionStatus::General, |f| f.status),
                    vendor_error: failure.as_ref().map_or(0, |failure| failure.vendor_error),
                    peer: peer(),
                    reason: failure.map_or_else(String::new, |failure| failure.reason),
                };
                (End::Failed, Outcome::Failed(failure))
            }
        })
    }

    fn keep_details(&self, id: TransferId, outcome: &Outcome) {
        if let Outcome::Failed(failure) = outcome {
            self.failures.keep(id, failure);
        }
    }

    /// Records how a transfer ended and frees its slot; false if somebody else just did.
    #[inline(always)]
    fn record_and_free(&self, live: &Live, end: End) -> bool {
        // Recorded before the slot is free, so that no reader finds the id in neither place.
        if let Some(ends) = self.ends_at_home(live.slot) {
            ends.record(live.id, end);
            return live.slot.clear(live.id.0);
        }
        self.ends.record(live.id, end);
        let cleared = live.slot.clear(live.id.0);
        if cleared {
            self.recycle((live.id.0 & SLOT_MASK) as u32, live.slot);
        }
        cleared
    }

    /// Frees the slot of a transfer; false if another thread just did.
    fn free(&self, live: &Live) -> bool {
        let cleared = live.slot.clear(live.id.0);
        if cleared && live.slot.worker_slots().is_none() {
            self.recycle((live.id.0 & SLOT_MASK) as u32, live.slot);
        }
        cleared
    }

    /// How transfers ended where the slot is at worker_slots, if it is with a worker.
    #[inline(always)]
    fn ends_at_home(&self, slot: &Slot) -> Option<&Ends> {
        self.worker_slots.get(slot.worker_slots()?)?.ends()
    }

    #[inline]
    fn recycle(&self, index: u32, slot: &Slot) {
        self.free.push(index, &slot.next_free);
    }

    #[inline]
    fn take_free(&self) -> Option<Taken<'static, Slot>> {
        self.free.pop(|index| self.slot(index), |slot| &slot.next_free)
    }

    /// The outcome of a released transfer, if it is among the last [`REMEMBERED`](super::REMEMBERED).
    pub fn outcome(&self, id: TransferId) -> Option<Outcome> {
        let slot = self.slot((id.0 & SLOT_MASK) as u32)?;
        match self.ends_at_home(slot).unwrap_or(&self.ends).find(id)? {
            End::Done => Some(Outcome::Done),
            End::TimedOut => Some(Outcome::TimedOut),
            End::Cancelled => Some(Outcome::Cancelled),
            End::Failed => self.failures.find(id),
        }
    }

    /// Every id in flight now.
    pub fn live_ids(&self) -> Vec<TransferId> {
        let made = *lock(&self.growth);
        (0..made as u32)
            .filter_map(|index| self.slot(index))
            .map(|slot| TransferId(slot.id()))
            .filter(|id| id.0 != 0)
            .collect()
    }

    #[inline]
    fn slot(&self, index: u32) -> Option<&'static Slot> {
        let index = index as usize;
        self.chunks.get(index / CHUNK)?.get()?.get(index % CHUNK)
    }

    #[cold]
    fn grow(&self) -> Option<Taken<'static, Slot>> {
        let mut made = lock(&self.growth);
        loop {
            if let Some(free) = self.take_free() {
                return Some(free);
            }
            let (slots, first) = self.add_chunk(&mut made)?;
            (first..*made as u32).zip(slots).rev().for_each(|(index, slot)| self.recycle(index, slot));
        }
    }

    /// More slots, and the index of the first one; `made` is how many there are.
    fn add_chunk(&self, made: &mut usize) -> Option<(&'static Chunk, u32)> {
        let slots = SPARE.get().take();
        let Some(Ok(())) = self.chunks.get(*made / CHUNK).map(|chunk| chunk.set(slots)) else {
            SPARE.get().give(slots);
            return None;
        };
        let first = *made as u32;
        *made += CHUNK;
        Some((slots, first))
    }
}

/// A transfer found by its id. It may be released by another thread at any time; what is read from it then is stale
/// but never another transfer's, because reading ends with [`Live::is_current`].
#[derive(Clone, Copy, Debug)]
pub struct Live {
    slot: &'static Slot,
    id: TransferId,
}

impl Live {
    /// Its id.
    #[inline]
    pub fn id(&self) -> TransferId {
        self.id
    }

    /// Its task.
    #[inline]
    pub fn task(&self) -> &'static Task {
        &self.slot.task
    }

    /// Whether the slot still is this transfer's.
    #[inline]
    pub fn is_current(&self) -> bool {
        self.slot.id() == self.id.0
    }

    /// Whether the worker with this index has a part of it.
    pub fn is_with(&self, worker: usize) -> bool {
        self.slot.workers.load(Ordering::Relaxed) & (1 << worker) != 0
    }

    /// Runs a step on each worker that has a part of it and is free.
    #[inline]
    pub fn drive(&self, pool: &WorkerPool) {
        let mut bits = self.slot.workers.load(Ordering::Relaxed);
        while bits != 0 {
            let index = bits.trailing_zeros() as usize;
            bits &= bits - 1;
            if let Some(worker) = pool.worker(index) {
                let _ = worker.drive_as_caller();
            }
        }
    }

    /// The workers that have a part of it.
    pub fn workers(&self) -> impl Iterator<Item = usize> + use<> {
        let bits = self.slot.workers.load(Ordering::Relaxed);
        (0..32).filter(move |index| bits & (1 << index) != 0)
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests;

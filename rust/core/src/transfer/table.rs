//! The transfers of one engine by id: a slab of recycled records. An id carries a sequence number, so that an old id is
//! recognised for what it is and never reaches another transfer.

mod by_record;
mod set_aside;

use std::time::Duration;

use once_cell::race::OnceRef;

pub(crate) use by_record::ByRecord;

use super::failed::{FailedTransfers, Limits};
use super::free_list::FreeList;
use super::outcomes::Outcomes;
use super::record::{TimeLimit, TransferRecord};
use super::slots::{BLOCK, Block, SLOT_BITS, SLOT_MASK, SPARE, Slot};
use super::{Failure, Outcome, TransferId};
use crate::pool::{EndState, PartOwner, WorkerPool};
use crate::sync::{Mutex, Ordering, lock};

/// One less than indices allow: the highest index means none.
const BLOCKS: usize = (1 << SLOT_BITS) / BLOCK - 1;

/// Transfers that one engine may have at a time: in flight, or ended and not yet asked about.
pub const MOST_TRANSFERS: usize = BLOCKS * BLOCK;

/// All transfers of one engine.
#[derive(Debug)]
pub struct Table {
    /// Slot `i` is in block `i / BLOCK`.
    blocks: Box<[OnceRef<'static, Block>]>,
    free: FreeList,
    /// Slots that there are.
    made: Mutex<usize>,
    outcomes: Box<Outcomes>,
    /// Those that are not to read as ended yet.
    failed: Mutex<FailedTransfers>,
}

impl Default for Table {
    /// A table without a hold.
    fn default() -> Self {
        Self::new(Duration::ZERO)
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.blocks.iter().filter_map(OnceRef::get).for_each(|block| SPARE.get().release(block));
    }
}

/// A slot for a transfer that has no parts yet, and no id that can be found.
#[derive(Debug)]
pub struct NewTransfer {
    slot: &'static Slot,
    /// The id to come.
    id: u64,
}

impl NewTransfer {
    /// The record to start and hand to workers.
    #[inline]
    pub fn record(&self) -> &'static TransferRecord {
        &self.slot.record
    }
}

impl Table {
    /// An empty table; failed transfers read as ended to callers of [`Table::has_failed_ended`] only `failed_hold` after
    /// their [`Table::set_aside`].
    pub fn new(failed_hold: Duration) -> Self {
        Self {
            blocks: (0..BLOCKS).map(|_| OnceRef::new()).collect(),
            free: FreeList::default(),
            made: Mutex::new(0),
            outcomes: Box::default(),
            failed: Mutex::new(FailedTransfers::new(failed_hold, Limits::DEFAULT)),
        }
    }

    /// A free slot; `None` when there are [`MOST_TRANSFERS`] slots and none is free.
    #[inline]
    pub fn acquire(&self) -> Option<NewTransfer> {
        let (slot, id) = self.pop_free().or_else(|| self.grow())?;
        Some(NewTransfer { slot, id })
    }

    /// Takes back a slot that was not published, while no worker has its record.
    pub fn release_new(&self, transfer: NewTransfer) {
        transfer.record().start(0, TimeLimit::NEVER);
        self.free.push((transfer.id & SLOT_MASK) as u32, &transfer.slot.next_free);
    }

    /// From here on the transfer is found by its id. `workers` is the bit set of the workers that have a part of it.
    #[inline]
    pub fn publish(&self, transfer: NewTransfer, workers: u32) -> TransferId {
        transfer.slot.workers.store(workers, Ordering::Relaxed);
        transfer.slot.publish(transfer.id);
        TransferId(transfer.id)
    }

    /// The transfer of an id that is not released.
    #[inline]
    pub fn find(&self, id: TransferId) -> Option<Live> {
        let slot = self.slot((id.0 & SLOT_MASK) as u32)?;
        (id.0 != 0 && slot.id() == id.0).then_some(Live { slot, id })
    }

    /// Releases an ended transfer if it has ended well; false if it has not, or another thread just did.
    #[inline]
    pub fn release_done(&self, live: &Live) -> bool {
        live.slot.end_state(live.id.0) == Some(EndState::Done) && self.record_and_free(live, EndState::Done)
    }

    /// Releases an ended transfer and answers its outcome; `None` if another thread just did.
    #[cold]
    pub fn release(&self, live: &Live, peer: impl FnOnce() -> String) -> Option<Outcome> {
        let (state, outcome) = self.outcome_of(live, peer)?;
        self.record_failure(live.id, &outcome);
        self.record_and_free(live, state).then_some(outcome)
    }

    /// How an ended transfer ended; `None` if its slot is not its own any more.
    fn outcome_of(&self, live: &Live, peer: impl FnOnce() -> String) -> Option<(EndState, Outcome)> {
        let record = &live.slot.record;
        let state = record.end_state();
        let failure = if state == EndState::Failed { record.failure() } else { None };
        if !live.is_current() {
            return None;
        }
        let failure = failure.map(|failure| Failure {
            iov: failure.iov as usize,
            last_iov: failure.last_iov as usize,
            status: failure.status,
            vendor_error: failure.vendor_error,
            peer: peer(),
            reason: failure.reason,
        });
        Some((state, Outcome::new(state, failure)))
    }

    fn record_failure(&self, id: TransferId, outcome: &Outcome) {
        if let Outcome::Failed(failure) = outcome {
            self.outcomes.record_failure(id, failure);
        }
    }

    /// Records how a transfer ended and frees its slot; false if another thread just did.
    #[inline(always)]
    fn record_and_free(&self, live: &Live, state: EndState) -> bool {
        // Recorded before the slot is free, so that no reader finds the id in neither of the two.
        self.outcomes.record(live.id, state);
        self.free(live)
    }

    /// Frees the slot of a transfer; false if another thread just did.
    #[inline(always)]
    fn free(&self, live: &Live) -> bool {
        let cleared = live.slot.clear(live.id.0);
        if cleared {
            self.free.push((live.id.0 & SLOT_MASK) as u32, &live.slot.next_free);
        }
        cleared
    }

    /// The outcome of a released transfer, if it is among the last [`REMEMBERED`](super::REMEMBERED).
    pub fn outcome(&self, id: TransferId) -> Option<Outcome> {
        let state = self.outcomes.find(id)?;
        let failure = if state == EndState::Failed { Some(self.outcomes.find_failure(id)?) } else { None };
        Some(Outcome::new(state, failure))
    }

    /// How a released transfer ended, as [`Table::outcome`].
    pub(crate) fn end_state(&self, id: TransferId) -> Option<EndState> {
        if id == TransferId::COMPLETE { Some(EndState::Done) } else { self.outcomes.find(id) }
    }

    /// Every id in flight now.
    pub fn live_ids(&self) -> Vec<TransferId> {
        let made = *lock(&self.made);
        (0..made as u32)
            .filter_map(|index| self.slot(index))
            .map(|slot| TransferId(slot.id()))
            .filter(|id| id.0 != 0)
            .collect()
    }

    /// Finds transfers by the addresses of their records.
    pub(crate) fn by_record(&self) -> ByRecord {
        let made = *lock(&self.made);
        let blocks = (0..made / BLOCK).filter_map(|block| self.blocks.get(block)?.get());
        ByRecord::new(blocks)
    }

    #[inline]
    fn slot(&self, index: u32) -> Option<&'static Slot> {
        let index = index as usize;
        self.blocks.get(index / BLOCK)?.get()?.get(index % BLOCK)
    }

    #[inline]
    fn pop_free(&self) -> Option<(&'static Slot, u64)> {
        self.free.pop(|index| self.slot(index), |slot| &slot.next_free)
    }

    /// A slot of one more block, if there may be one, and no other thread has made one.
    #[cold]
    fn grow(&self) -> Option<(&'static Slot, u64)> {
        let mut made = lock(&self.made);
        loop {
            if let Some(free) = self.pop_free() {
                return Some(free);
            }
            let block = SPARE.get().acquire();
            let Some(Ok(())) = self.blocks.get(*made / BLOCK).map(|vacant| vacant.set(block)) else {
                SPARE.get().release(block);
                return None;
            };
            let first = *made as u32;
            *made += BLOCK;
            (first..*made as u32)
                .zip(block)
                .rev()
                .for_each(|(index, slot)| self.free.push(index, &slot.next_free));
        }
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

    /// Its record.
    #[inline]
    pub fn record(&self) -> &'static TransferRecord {
        &self.slot.record
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

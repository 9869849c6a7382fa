//! The transfers of one engine by id: a slab of recycled records. An id carries a sequence number, so that an old id is
//! recognised for what it is and never reaches another transfer.

mod by_record;
mod set_aside;

use std::sync::Arc;
use std::time::Duration;

use crossbeam::utils::CachePadded;
use once_cell::race::OnceRef;

pub(crate) use by_record::ByRecord;

use super::failed::{FailedTransfers, Limits};
use super::free_list::FreeList;
use super::outcomes::Outcomes;
use super::record::{TimeLimit, TransferRecord};
use super::slots::{BLOCK, Block, FREE, SLOT_BITS, SLOT_MASK, SPARE, Slot};
use super::worker_slots::WorkerSlots;
use super::{Failure, Outcome, TransferId};
use crate::pool::{EndState, PartOwner, WORKERS_PER_POOL, Worker};
use crate::sync::{Mutex, Ordering, lock};

/// Blocks of slots in the list of free ones. Those of workers come behind them.
const BLOCKS: usize = (1 << 20) / BLOCK - 1;
/// Most workers of which transfers take slots of their own: those of the first NIC.
const WORKERS: usize = WORKERS_PER_POOL;
// The highest index means none.
const _: () = assert!((BLOCKS + WORKERS) * BLOCK < 1 << SLOT_BITS);

/// Transfers that one engine may have at a time, at least: in flight, or ended and not yet asked about.
pub const MOST_TRANSFERS: usize = BLOCKS * BLOCK;

/// All transfers of one engine.
#[derive(Debug)]
pub struct Table {
    /// Slot `i` is in block `i / BLOCK`.
    blocks: Box<[OnceRef<'static, Block>]>,
    /// By the worker's index. Each in a cache line of its own: they are written under different locks.
    workers: Box<[CachePadded<WorkerSlots>]>,
    free: FreeList,
    /// Slots that there are in the list.
    made: Mutex<usize>,
    outcomes: Outcomes,
    /// Those that are not to read as ended yet.
    failed: Mutex<FailedTransfers>,
}

impl Default for Table {
    /// A table without a hold, and without slots of workers.
    fn default() -> Self {
        Self::new(Duration::ZERO, 0)
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
    /// their [`Table::set_aside`]. `workers` are those of which transfers take slots of their own.
    pub fn new(failed_hold: Duration, workers: usize) -> Self {
        let workers = workers.min(WORKERS);
        let blocks: Box<[_]> = (0..BLOCKS + workers).map(|_| OnceRef::new()).collect();
        let of_workers = blocks.iter().enumerate().skip(BLOCKS).map(|(index, vacant)| {
            let block = SPARE.get().acquire((index * BLOCK) as u32);
            let _ = vacant.set(block);
            CachePadded::new(WorkerSlots::new(block))
        });
        Self {
            workers: of_workers.collect(),
            blocks,
            free: FreeList::default(),
            made: Mutex::new(0),
            outcomes: Outcomes::default(),
            failed: Mutex::new(FailedTransfers::new(failed_hold, Limits::DEFAULT)),
        }
    }

    /// A free slot; `None` when [`MOST_TRANSFERS`] slots are in use.
    #[inline]
    pub fn acquire(&self) -> Option<NewTransfer> {
        let slot = self.pop_free().or_else(|| self.grow())?;
        Some(NewTransfer { slot, id: slot.next_id()? })
    }

    /// A slot for a transfer that the worker with this index takes whole. The caller holds that worker's lock until it has published
    /// the transfer. `None` at times when [`Table::acquire`] has one.
    #[inline(always)]
    pub fn acquire_at(&self, worker: usize) -> Option<NewTransfer> {
        match self.workers.get(worker)?.take() {
            Some((slot, id)) => Some(NewTransfer { slot, id }),
            None => self.acquire_listed(),
        }
    }

    /// A slot that is free already: never waits, so a caller may hold a worker's lock. `None` at times when [`Table::acquire`] has one.
    #[cold]
    pub fn acquire_listed(&self) -> Option<NewTransfer> {
        let slot = self.pop_free()?;
        Some(NewTransfer { slot, id: slot.next_id()? })
    }

    /// Takes back a slot that was not published, while no worker has its record.
    pub fn release_new(&self, transfer: NewTransfer) {
        transfer.record().start(0, TimeLimit::NEVER);
        self.free.push((transfer.id & SLOT_MASK) as u32, &transfer.slot.next_free);
    }

    /// From here on the transfer is found by its id. `workers` is the set of the [bits](crate::pool::worker_bit) of the workers that
    /// have a part of it.
    #[inline]
    pub fn publish(&self, transfer: NewTransfer, workers: u64) -> TransferId {
        transfer.slot.workers.store(workers, Ordering::Relaxed);
        transfer.slot.publish(transfer.id);
        TransferId(transfer.id)
    }

    /// The transfer of an id that is not released.
    #[inline]
    pub fn find(&self, id: TransferId) -> Option<Live> {
        let slot = self.slot(id)?;
        (id.0 & FREE == 0 && slot.has(id.0)).then_some(Live { slot, id })
    }

    /// Releases an ended transfer if it has ended well; false if it has not, or another thread just did.
    #[inline]
    pub fn release_done(&self, live: &Live) -> bool {
        live.slot.end_state(live.id.0) == Some(EndState::Done) && self.free(live)
    }

    /// Releases an ended transfer and answers its outcome; `None` if another thread just did.
    #[cold]
    pub fn release(&self, live: &Live, peer: impl FnOnce() -> String) -> Option<Outcome> {
        let outcome = self.outcome_of(live, peer)?;
        self.record(live, &outcome);
        self.free(live).then_some(outcome)
    }

    /// How an ended transfer ended; `None` if its slot is not its own any more.
    fn outcome_of(&self, live: &Live, peer: impl FnOnce() -> String) -> Option<Outcome> {
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
        Some(Outcome::new(state, failure))
    }

    /// Records how a transfer ended, if it was not done: before its slot is free.
    fn record(&self, live: &Live, outcome: &Outcome) {
        if *outcome != Outcome::Done {
            self.outcomes.record(live.id, live.slot, outcome.clone());
        }
    }

    /// Frees the slot of a transfer; false if another thread just did.
    #[inline(always)]
    fn free(&self, live: &Live) -> bool {
        let cleared = live.slot.clear(live.id.0);
        let index = (live.id.0 & SLOT_MASK) as u32;
        if cleared && index < MOST_TRANSFERS as u32 {
            self.free.push(index, &live.slot.next_free);
        }
        cleared
    }

    /// The outcome of a released transfer, if it is among the last [`REMEMBERED`](super::REMEMBERED).
    pub fn outcome(&self, id: TransferId) -> Option<Outcome> {
        self.outcomes.find(id, self.slot(id)?)
    }

    /// How a released transfer ended, as [`Table::outcome`].
    pub(crate) fn end_state(&self, id: TransferId) -> Option<EndState> {
        if id == TransferId::COMPLETE { Some(EndState::Done) } else { Some(self.outcome(id)?.state()) }
    }

    /// Every id in flight now.
    pub fn live_ids(&self) -> Vec<TransferId> {
        self.blocks().flatten().map(|slot| TransferId(slot.id())).filter(|id| id.0 != 0).collect()
    }

    /// Finds transfers by the addresses of their records.
    pub(crate) fn by_record(&self) -> ByRecord {
        ByRecord::new(self.blocks())
    }

    /// All that there are.
    fn blocks(&self) -> impl Iterator<Item = &'static Block> {
        let listed = *lock(&self.made) / BLOCK;
        let (listed, of_workers) = (self.blocks.iter().take(listed), self.blocks.iter().skip(BLOCKS));
        listed.chain(of_workers).filter_map(OnceRef::get)
    }

    #[inline(always)]
    fn slot(&self, id: TransferId) -> Option<&'static Slot> {
        self.slot_at((id.0 & SLOT_MASK) as u32)
    }

    #[inline(always)]
    fn slot_at(&self, index: u32) -> Option<&'static Slot> {
        let index = index as usize;
        self.blocks.get(index / BLOCK)?.get()?.get(index % BLOCK)
    }

    fn pop_free(&self) -> Option<&'static Slot> {
        self.free.pop(|index| self.slot_at(index), |slot| &slot.next_free)
    }

    /// A slot of one more block, if there may be one, and no other thread has made one.
    #[cold]
    fn grow(&self) -> Option<&'static Slot> {
        let mut made = lock(&self.made);
        loop {
            if let Some(free) = self.pop_free() {
                return Some(free);
            }
            let first = *made as u32;
            let vacant = self.blocks.get(*made / BLOCK).filter(|_| *made < MOST_TRANSFERS)?;
            let block = SPARE.get().acquire(first);
            let _ = vacant.set(block);
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
        self.slot.has(self.id.0)
    }

    /// Whether the worker with this bit was given a part of it when it began.
    pub fn is_with(&self, worker: usize) -> bool {
        self.slot.workers.load(Ordering::Relaxed) & (1 << worker) != 0
    }

    /// Runs a step on each worker that was given a part of it when it began, and is free. `worker` finds one by its bit. Parts that came
    /// to other workers since are moved on by the threads of these.
    #[inline]
    pub fn drive<'a>(&self, worker: impl Fn(usize) -> Option<&'a Arc<Worker>>) {
        let mut bits = self.slot.workers.load(Ordering::Relaxed);
        while bits != 0 {
            let bit = bits.trailing_zeros() as usize;
            bits &= bits - 1;
            if let Some(worker) = worker(bit) {
                let _ = worker.drive_as_caller();
            }
        }
    }

    /// The bits of the workers that have a part of it, or had one.
    pub fn workers(&self) -> impl Iterator<Item = usize> + use<> {
        let bits = self.slot.workers.load(Ordering::Relaxed) | self.slot.record.moved_to();
        (0..u64::BITS as usize).filter(move |bit| bits & (1 << bit) != 0)
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod race_tests;
#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests;

//! Where transfers are kept: slots that live as long as the process, so that workers can refer to them without counting
//! references: two locked instructions less for each transfer.

use std::sync::{Mutex, PoisonError};

use super::record::TransferRecord;
use crate::fork::PerProcess;
use crate::pool::{EndState, PartOwner};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Low bits of an id: the slot's index. The rest counts how often the slot was taken and freed.
pub(super) const SLOT_BITS: u32 = 21;
pub(super) const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;

/// The lowest bit of that count: set while the slot is free, so in no id. To take a slot adds as much, and so does freeing it.
pub(super) const FREE: u64 = 1 << SLOT_BITS;

/// Slots are made so many at a time. Models have little room on their stacks.
pub(super) const BLOCK: usize = if cfg!(flagcx_p2p_loom) { 2 } else { 64 };

/// Slots that are made together.
pub(super) type Block = [Slot; BLOCK];

/// Room for one transfer. What each one needs lies in one cache line, which no other transfer is in: nor in the next one, for some
/// processors keep or fetch two together.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(super) struct Slot {
    /// The id of the transfer in it; while it is free, that of its last one and [`FREE`]. Stored by the submitter (Release) once
    /// the record has been started and `workers` is set; exchanged by the thread that releases it (AcqRel), of which there is one
    /// so. Readers load it before (Acquire) and check it again after using the slot; a thread that takes one of a worker's slots
    /// loads it (Acquire), and so sees all that was done with the slot.
    word: AtomicU64,
    /// Bit set of the workers that were given a part of it, see [`worker_bit`](crate::pool::worker_bit). Written by the submitter before
    /// `word` is published; read by callers that drive: Relaxed under `word`'s ordering.
    pub(super) workers: AtomicU64,
    /// The next free slot's index, see [`FreeList`](super::free_list::FreeList).
    pub(super) next_free: AtomicU32,
    /// What workers share.
    pub(super) record: TransferRecord,
    /// Up to this id, how its transfers ended is forgotten. Written and read under the lock of
    /// [`Outcomes`](super::outcomes::Outcomes), and by the thread that gives the slot to a table: Relaxed.
    forgotten: AtomicU64,
}

#[cfg(not(flagcx_p2p_loom))]
const _: () = assert!(size_of::<Slot>() == 128);

impl Slot {
    /// The id of the transfer in it; 0 while it is free.
    #[inline(always)]
    pub(super) fn id(&self) -> u64 {
        let word = self.word.load(Ordering::Acquire);
        if word & FREE == 0 { word } else { 0 }
    }

    /// Whether this transfer, if it is one, is in it.
    #[inline(always)]
    pub(super) fn has(&self, id: u64) -> bool {
        self.word.load(Ordering::Acquire) == id
    }

    /// The id of the transfer that takes it; `None` if it is not free.
    #[inline(always)]
    pub(super) fn next_id(&self) -> Option<u64> {
        let word = self.word.load(Ordering::Acquire);
        if word & FREE == 0 {
            return None;
        }
        // 0 is no transfer's.
        Some(word.checked_add(FREE).unwrap_or((2 * FREE) | (word & SLOT_MASK)))
    }

    /// Makes it a transfer's, after its record has been started. Only while it is free and no other thread's.
    #[inline(always)]
    pub(super) fn publish(&self, id: u64) {
        self.word.store(id, Ordering::Release);
    }

    /// How the transfer with this id ended; `None` if the slot is not that transfer's any more.
    #[inline(always)]
    pub(super) fn end_state(&self, id: u64) -> Option<EndState> {
        let state = self.record.end_state();
        self.has(id).then_some(state)
    }

    /// Frees it of a transfer; false if another thread just did.
    #[inline(always)]
    pub(super) fn clear(&self, id: u64) -> bool {
        self.word.compare_exchange(id, id | FREE, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Its word, of which the count says how many transfers have taken it: [`takings`].
    pub(super) fn word(&self) -> u64 {
        self.word.load(Ordering::Acquire)
    }

    /// How a transfer ended is forgotten now, and so of those before it.
    pub(super) fn forget(&self, id: u64) {
        self.forgotten.fetch_max(id, Ordering::Relaxed);
    }

    /// Whether it has forgotten how this transfer ended.
    pub(super) fn has_forgotten(&self, id: u64) -> bool {
        id <= self.forgotten.load(Ordering::Relaxed)
    }
}

/// How many transfers had taken a slot when this was its word, or the id of one.
pub(super) const fn takings(word: u64) -> u64 {
    word / (2 * FREE)
}

/// Blocks that no table has. The process keeps as many as tables had at a time, and those with a transfer that never ends,
/// as copies of GPU memory may that their connection gave up.
#[derive(Debug)]
pub(super) struct SpareBlocks(Mutex<Vec<&'static Block>>);

/// Those of the process.
pub(super) static SPARE: PerProcess<SpareBlocks> = PerProcess::new(SpareBlocks::new);

impl SpareBlocks {
    const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// A block of free slots; `first` is the index of the first one in its table.
    pub(super) fn acquire(&self, first: u32) -> &'static Block {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A worker may still be at the end of a transfer after its table was dropped.
        let position = spare.iter().rposition(|block| block.iter().all(|slot| slot.record.is_ended()));
        let block = match position {
            Some(position) => spare.swap_remove(position),
            None => Box::leak(Box::new(std::array::from_fn(|_| Slot::default()))),
        };
        for (index, slot) in (first..).zip(block) {
            slot.word.store(u64::from(index) | FREE, Ordering::Relaxed);
            slot.forgotten.store(0, Ordering::Relaxed);
        }
        block
    }

    /// Takes a block back in which no thread looks for transfers any more. Workers may still have parts of some.
    pub(super) fn release(&self, block: &'static Block) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(block);
    }
}

#[cfg(all(test, flagcx_p2p_loom))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod models {
    use super::*;
    use crate::sync::Arc;
    use crate::transfer::TimeLimit;

    /// Two callers ask about a transfer that has timed out, while another one, which is fine, takes the slot as soon as it is
    /// free: one of the two callers releases it, and neither takes the other transfer's end state for the first one's.
    #[test]
    fn an_end_state_is_of_the_transfer_that_was_asked_about() {
        const FIRST: u64 = 2 * FREE;
        const SECOND: u64 = 4 * FREE;
        // All orders in which threads are interrupted at most three times; without the bound it takes 20 s.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let slot = Arc::new(Slot::default());
            slot.record.start(1, TimeLimit::NEVER);
            slot.record.condemn(EndState::TimedOut);
            slot.record.end_part();
            slot.publish(FIRST);
            let ask = |slot: Arc<Slot>| {
                if slot.id() != FIRST || !slot.record.is_ended() {
                    return false;
                }
                let Some(state) = slot.end_state(FIRST) else { return false };
                assert_eq!(state, EndState::TimedOut);
                slot.clear(FIRST)
            };
            let other = {
                let slot = slot.clone();
                loom::thread::spawn(move || ask(slot))
            };
            let submitter = {
                let slot = slot.clone();
                loom::thread::spawn(move || {
                    let next = slot.next_id();
                    if let Some(id) = next {
                        assert_eq!(id, SECOND);
                        slot.record.start(1, TimeLimit::NEVER);
                        slot.publish(id);
                    }
                    next.is_some()
                })
            };
            let released = [ask(slot.clone()), other.join().unwrap()];
            assert_ne!(released[0], released[1]);
            let taken = submitter.join().unwrap();
            assert_eq!(slot.id(), if taken { SECOND } else { 0 });
        });
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::transfer::TimeLimit;

    #[test]
    fn ids_begin_anew_when_all_were_given() {
        let slot = Slot::default();
        let last = !SLOT_MASK & !FREE | 7;
        slot.publish(last);
        assert!(slot.next_id().is_none() && slot.clear(last));
        assert_eq!((slot.id(), slot.next_id()), (0, Some((2 * FREE) | 7)));
    }

    #[test]
    fn a_block_is_used_again_once_its_transfers_have_ended() {
        let spare = SpareBlocks::new();
        let first = spare.acquire(0);
        first[7].publish((9 * FREE) | 7);
        first[7].record.start(1, TimeLimit::NEVER);
        spare.release(first);
        let second = spare.acquire(0);
        assert!(!std::ptr::eq(first, second), "a worker has a part of one");
        first[7].record.end_part();
        assert!(std::ptr::eq(first, spare.acquire(64)));
        assert_eq!((first[7].id(), first[7].next_id()), (0, Some((2 * FREE) | 71)));
        // The process keeps them, so that they are not taken for leaks.
        SPARE.get().release(first);
        SPARE.get().release(second);
    }
}

//! Where transfers are kept: slots that live as long as the process, so that workers can refer to them without counting
//! references: two locked instructions less for each transfer.

use std::sync::{Mutex, PoisonError};

use super::record::TransferRecord;
use crate::fork::PerProcess;
use crate::pool::{EndState, PartOwner};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Low bits of an id: the slot's index. The rest is a sequence number: of the taking of the slot.
pub(super) const SLOT_BITS: u32 = 20;
pub(super) const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;

/// Slots are made so many at a time.
pub(super) const BLOCK: usize = 64;

/// Slots that are made together.
pub(super) type Block = [Slot; BLOCK];

/// Room for one transfer. What each one needs lies in one cache line, which no other transfer is in: nor in the next one, for some
/// processors keep or fetch two together.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(super) struct Slot {
    /// The id of the transfer in it, 0 when free. Stored by the submitter (Release) once the record has been started and
    /// `workers` is set; swapped to 0 by the thread that releases it (AcqRel), of which there is one so. Readers load it before
    /// (Acquire) and check it again after using the slot.
    id: AtomicU64,
    /// Bit set of the workers that have a part of it, by their index in the pool. Written by the submitter before
    /// `id` is published; read by callers that drive: Relaxed under `id`'s ordering.
    pub(super) workers: AtomicU32,
    /// The next free slot's index, see [`FreeList`](super::free_list::FreeList).
    pub(super) next_free: AtomicU32,
    /// What workers share.
    pub(super) record: TransferRecord,
}

#[cfg(not(flagcx_p2p_loom))]
const _: () = assert!(size_of::<Slot>() == 128);

impl Slot {
    /// The id of the transfer in it; 0 when free.
    #[inline(always)]
    pub(super) fn id(&self) -> u64 {
        self.id.load(Ordering::Acquire)
    }

    /// Makes it a transfer's, after its record has been started. Only while it is free and no other thread's.
    #[inline(always)]
    pub(super) fn publish(&self, id: u64) {
        self.id.store(id, Ordering::Release);
    }

    /// How the transfer with this id ended; `None` if the slot is not that transfer's any more.
    #[inline(always)]
    pub(super) fn end_state(&self, id: u64) -> Option<EndState> {
        let state = self.record.end_state();
        (self.id() == id).then_some(state)
    }

    /// Frees it of a transfer; false if another thread just did.
    #[inline(always)]
    pub(super) fn clear(&self, id: u64) -> bool {
        self.id.compare_exchange(id, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
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

    /// A block of free slots.
    pub(super) fn acquire(&self) -> &'static Block {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A worker may still be at the end of a transfer after its table was dropped.
        let position = spare.iter().rposition(|block| block.iter().all(|slot| slot.record.is_ended()));
        let Some(block) = position.map(|position| spare.swap_remove(position)) else {
            return Box::leak(Box::new(std::array::from_fn(|_| Slot::default())));
        };
        for slot in block {
            slot.id.store(0, Ordering::Relaxed);
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
        const FIRST: u64 = 1 << SLOT_BITS;
        const SECOND: u64 = 2 << SLOT_BITS;
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
                    let free = slot.id() == 0;
                    if free {
                        slot.record.start(1, TimeLimit::NEVER);
                        slot.publish(SECOND);
                    }
                    free
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
    fn a_block_is_used_again_once_its_transfers_have_ended() {
        let spare = SpareBlocks::new();
        let first = spare.acquire();
        first[7].id.store(9, Ordering::Relaxed);
        first[7].record.start(1, TimeLimit::NEVER);
        spare.release(first);
        let second = spare.acquire();
        assert!(!std::ptr::eq(first, second), "a worker has a part of one");
        first[7].record.end_part();
        assert!(std::ptr::eq(first, spare.acquire()));
        assert_eq!(first[7].id.load(Ordering::Relaxed), 0);
        // The process keeps them, so that they are not taken for leaks.
        SPARE.get().release(first);
        SPARE.get().release(second);
    }
}

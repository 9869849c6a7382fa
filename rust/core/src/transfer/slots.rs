//! Where transfers are kept: slots that live as long as the process, so that workers can refer to them without counting
//! references, which would be two of the dozen locked instructions of a small transfer.

use std::sync::{Mutex, PoisonError};

use crate::pool::Task;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Low bits of an id: the slot's index. The rest is a sequence number: of the taking of the slot.
pub(super) const SLOT_BITS: u32 = 20;
pub(super) const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;

/// Slots are made so many at a time.
pub(super) const CHUNK: usize = 64;

/// Slots that belong together.
pub(super) type Chunk = [Slot; CHUNK];

/// One transfer. What each one needs lies in one cache line, which no other transfer is in.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Slot {
    /// The id of the transfer in it, 0 when free. Stored by the submitter (Release) once the task has been started and
    /// `workers` is set; swapped to 0 by whoever releases it (AcqRel), which settles who that is. Readers load it before
    /// (Acquire) and check it again after using the slot.
    pub(super) id: AtomicU64,
    /// Bit set of the workers that have a part of it, by their index in the pool. Written by the submitter before
    /// `id` is published, read by callers that drive: Relaxed under `id`'s ordering.
    pub(super) workers: AtomicU32,
    /// The list of free slots goes on there, see [`FreeList`](super::free_list::FreeList); or whose it is for good, see
    /// [`Home`](super::home::Home), stored before the first id (Relaxed).
    pub(super) next_free: AtomicU32,
    /// What workers share.
    pub(super) task: Task,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Slot>() == 128);

/// Chunks that no table has. The process keeps as many as were in use at a time, and those with a transfer that never ends,
/// as copies of device memory may that their connection gave up.
#[derive(Debug)]
pub(super) struct SpareChunks(Mutex<Vec<&'static Chunk>>);

/// Those of the process.
pub(super) static SPARE: SpareChunks = SpareChunks::new();

impl SpareChunks {
    const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// A chunk of free slots.
    pub(super) fn take(&self) -> &'static Chunk {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A worker may still be at the end of a transfer whose table is gone.
        let position = spare.iter().rposition(|chunk| chunk.iter().all(|slot| slot.task.is_ended()));
        let Some(chunk) = position.map(|position| spare.swap_remove(position)) else {
            return Box::leak(Box::new(std::array::from_fn(|_| Slot::default())));
        };
        for slot in chunk {
            slot.id.store(0, Ordering::Relaxed);
        }
        chunk
    }

    /// Gives a chunk back that nobody looks for transfers in any more. Workers may still have some of them.
    pub(super) fn give(&self, chunk: &'static Chunk) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(chunk);
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::pool::TimeLimit;

    #[test]
    fn a_chunk_is_used_again_once_its_transfers_have_ended() {
        let spare = SpareChunks::new();
        let first = spare.take();
        first[7].id.store(9, Ordering::Relaxed);
        first[7].task.start(1, TimeLimit::NEVER);
        spare.give(first);
        let second = spare.take();
        assert!(!std::ptr::eq(first, second), "a worker has a part of one");
        first[7].task.end_part();
        assert!(std::ptr::eq(first, spare.take()));
        assert_eq!(first[7].id.load(Ordering::Relaxed), 0);
        // The process keeps them, so that they are not taken for leaks.
        SPARE.give(first);
        SPARE.give(second);
    }
}

//! Slots that one worker keeps for itself. They are taken under its lock, in turn, and free again as soon as their id is
//! cleared: of the locked instructions of a small transfer two less than with the list of free slots.

use once_cell::race::{OnceBox, OnceRef};

use super::outcomes::Ends;
use super::slots::{CHUNK, Chunk, SLOT_BITS, Slot};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Workers that may have one: as many as a slot's bit set names.
pub(super) const WORKERS: usize = 32;

/// The slots of one worker. Empty until they are needed.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct WorkerSlots {
    slots: OnceRef<'static, Chunk>,
    /// The index of the first of them. Written once, before `slots`, which publishes it: Relaxed.
    first: AtomicU32,
    /// How often a slot was looked for here: the sequence numbers of what is taken. Written under the worker's lock:
    /// Relaxed.
    number: AtomicU64,
    ends: OnceBox<Ends>,
}

impl WorkerSlots {
    /// Takes the slot whose turn it is, and answers it with the id of a new transfer. `None` if that slot is in use, or if
    /// there are none yet. Called under the worker's lock.
    #[inline(always)]
    pub(super) fn take(&self) -> Option<(&'static Slot, u64)> {
        let slots = self.slots.get()?;
        let number = self.number.load(Ordering::Relaxed).wrapping_add(1);
        self.number.store(number, Ordering::Relaxed);
        let place = number as u32 % CHUNK as u32;
        let slot = slots.get(place as usize)?;
        let sequence = number << SLOT_BITS;
        if slot.id() != 0 {
            return None;
        }
        // Sequence numbers begin anew after 2^44, and 0 is none. (As one condition with the other it took four instructions
        // more.)
        if sequence == 0 {
            return None;
        }
        Some((slot, sequence | u64::from(self.first.load(Ordering::Relaxed) + place)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.get().is_none()
    }

    /// Makes `slots`, the first of which has the index `first`, those of `worker`. Called under that worker's lock.
    #[cold]
    #[inline(never)]
    pub(super) fn fill(&self, worker: usize, slots: &'static Chunk, first: u32) {
        for slot in slots {
            slot.settle(worker);
        }
        self.first.store(first, Ordering::Relaxed);
        let _ = self.ends.set(Box::default());
        let _ = self.slots.set(slots);
    }

    /// How transfers that were here have ended.
    #[inline(always)]
    pub(super) fn ends(&self) -> Option<&Ends> {
        self.ends.get()
    }
}

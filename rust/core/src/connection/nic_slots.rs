//! The NICs of an engine over which its connections have lanes, by the bits that their workers have.

use std::sync::Arc;

use once_cell::sync::OnceCell;

use super::nic_context::NicContext;
use crate::pool::{COPY_WORKER, Worker, worker_of_bit};
use crate::rails::MAX_RAILS;

/// The NICs that rails use, in the order in which they were first used. Submitters and waiters look without a lock.
#[derive(Debug)]
pub(super) struct NicSlots([OnceCell<Arc<NicContext>>; MAX_RAILS]);

impl NicSlots {
    /// The first NIC alone.
    pub(super) fn new(first: Option<Arc<NicContext>>) -> Self {
        let slots = [const { OnceCell::new() }; MAX_RAILS];
        if let (Some(slot), Some(first)) = (slots.first(), first) {
            let _ = slot.set(first);
        }
        Self(slots)
    }

    /// The slot of a NIC; `None` once all are in use by others.
    pub(super) fn of(&self, nic: &Arc<NicContext>) -> Option<usize> {
        self.0.iter().position(|slot| Arc::ptr_eq(slot.get_or_init(|| Arc::clone(nic)), nic))
    }

    /// Whether there is a slot for a NIC, which is not open yet if it is `None`.
    pub(super) fn have_room_for(&self, nic: Option<&Arc<NicContext>>) -> bool {
        let has_it = |used: &Arc<NicContext>| nic.is_some_and(|nic| Arc::ptr_eq(used, nic));
        self.0.iter().any(|slot| slot.get().is_none_or(has_it))
    }

    /// The NIC of the first slot.
    pub(super) fn first(&self) -> Option<&Arc<NicContext>> {
        self.0.first()?.get()
    }

    /// The worker with this bit.
    #[inline]
    pub(super) fn worker(&self, bit: usize) -> Option<&Arc<Worker>> {
        match worker_of_bit(bit) {
            Some((slot, index)) => self.0.get(slot)?.get()?.pool.workers().get(index),
            None => self.first()?.pool.worker(COPY_WORKER),
        }
    }
}

//! The allocations of this process by address: what memory that is registered belongs to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::uses::{Allocation, AllocationUse, BeingFreed};
use crate::fork::PerProcess;
use crate::memory::range_index::holds;

/// By start.
type Allocations = BTreeMap<u64, Arc<Allocation>>;

/// A forked child begins with none: it registers such memory as what it is there, a mapped file.
static ALLOCATIONS: PerProcess<Mutex<Allocations>> = PerProcess::new(Mutex::default);

pub(super) fn add(allocation: &Arc<Allocation>) {
    lock().insert(allocation.address(), Arc::clone(allocation));
}

pub(super) fn remove(address: u64) {
    let removed = lock().remove(&address);
    // Outside of the lock.
    drop(removed);
}

/// Whether the engine has allocated all of `address..address + length`.
pub fn is_allocated(address: u64, length: u64) -> bool {
    holder(&lock(), address, length).is_some()
}

impl AllocationUse {
    /// The allocation that holds `address..address + length`, for a registration of that range; `None` for other memory.
    pub(crate) fn of_range(address: u64, length: u64) -> Result<Option<Self>, BeingFreed> {
        holder(&lock(), address, length).map(|found| found.use_from(address)).transpose()
    }
}

fn holder(allocations: &Allocations, address: u64, length: u64) -> Option<&Arc<Allocation>> {
    let (start, found) = allocations.range(..=address).next_back()?;
    holds(*start, found.length(), address, length).then_some(found)
}

fn lock() -> MutexGuard<'static, Allocations> {
    ALLOCATIONS.get().lock().unwrap_or_else(PoisonError::into_inner)
}

//! Memory that an engine has allocated for a caller that names it by its address.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::allocate::{AllocateOptions, Allocated};
use super::{Engine, EngineError};
use crate::fork::PerProcess;
use crate::memory::{Allocation, AllocationError, RegionId};

/// What the engine frees, at the latest when it is closed. By start.
#[derive(Debug, Default)]
pub(super) struct Allocations(Mutex<BTreeMap<u64, Owned>>);

#[derive(Debug)]
struct Owned {
    allocated: Allocated,
    outlives_engine: bool,
}

/// Memory that its engine has left to the caller when it was closed. By start.
static KEPT: PerProcess<Mutex<BTreeMap<u64, Arc<Allocation>>>> = PerProcess::new(Mutex::default);

impl Engine {
    /// Allocates zeroed memory and registers its first `length` bytes; returns its address, which begins a page, and the id of
    /// the registration. `outlives_engine`: closing the engine ends the registration and leaves the memory to
    /// [`free_kept`].
    ///
    /// # Errors
    /// Those of [`Engine::allocate_with`].
    #[doc(hidden)]
    pub fn allocate_at_address(
        &self,
        length: usize,
        options: AllocateOptions,
        outlives_engine: bool,
    ) -> Result<(u64, RegionId), EngineError> {
        let allocated = self.allocate_region(length, options)?;
        let (address, region) = (allocated.allocation.address(), allocated.region);
        self.allocations.lock().insert(address, Owned { allocated, outlives_engine });
        Ok((address, region))
    }

    /// Ends the registration of what [`Engine::allocate_at_address`] has returned, as [`Engine::deregister`] does, and
    /// gives the memory back. Refused, with nothing changed, while the program has other registrations inside.
    ///
    /// # Errors
    /// [`EngineError::Allocation`].
    #[doc(hidden)]
    pub fn free(&self, address: u64) -> Result<(), EngineError> {
        let context = self.chosen()?.ok_or(AllocationError::NotAllocated { address })?;
        // Whichever of two threads takes it out frees it.
        let owned = self.allocations.lock().remove(&address);
        let owned = owned.ok_or(AllocationError::NotAllocated { address })?;
        let Allocated { allocation, region } = &owned.allocated;
        let refuse = |registrations, owned: Owned| {
            let bytes = owned.allocated.allocation.length();
            self.allocations.lock().insert(address, owned);
            Err(AllocationError::Registered { address, bytes, registrations }.into())
        };
        let is_registered = self.find_region_by_id(*region).is_some();
        if let Err(more) = allocation.close_unless_used(usize::from(is_registered)) {
            return refuse(more, owned);
        }
        match context.registry.remove_sole(*region) {
            Ok(removed) => {
                // False is in the log; what cannot be unmapped yet, or ever, is left as it is.
                let _ = context.retire(removed.into_iter().collect(), Instant::now());
                allocation.release();
                Ok(())
            }
            Err(more) => {
                allocation.reopen();
                refuse(more, owned)
            }
        }
    }

    /// Frees everything, after the registrations have ended.
    pub(super) fn free_all(&self) {
        for (address, owned) in std::mem::take(&mut *self.allocations.lock()) {
            let allocation = owned.allocated.allocation;
            if owned.outlives_engine {
                kept().insert(address, allocation);
            } else {
                allocation.release();
            }
        }
    }
}

/// Frees memory that has outlived its engine.
///
/// # Errors
/// [`AllocationError::NotKept`], also for memory of an engine that is not closed.
#[doc(hidden)]
pub fn free_kept(address: u64) -> Result<(), AllocationError> {
    let allocation = kept().remove(&address).ok_or(AllocationError::NotKept { address })?;
    allocation.release();
    Ok(())
}

impl Allocations {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Owned>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn kept() -> MutexGuard<'static, BTreeMap<u64, Arc<Allocation>>> {
    KEPT.get().lock().unwrap_or_else(PoisonError::into_inner)
}

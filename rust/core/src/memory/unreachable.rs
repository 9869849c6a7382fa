//! Device memory that the software fabric cannot reach.

use std::time::Instant;

use crate::fabric::{FabricError, MemoryRegion};

/// A registration that gives no access: the range is known, so that the device runtime can be asked to copy to and
/// from it, but its keys open nothing.
#[derive(Debug)]
pub(super) struct UnreachableMemory;

impl MemoryRegion for UnreachableMemory {
    /// No registration of the software fabric has this key.
    fn lkey(&self) -> u32 {
        0
    }

    fn rkey(&self) -> u32 {
        0
    }

    fn revoke(&self, _deadline: Instant) -> Result<(), FabricError> {
        Ok(())
    }
}

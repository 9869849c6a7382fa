//! GPU memory that the software fabric cannot reach.

use std::time::Instant;

use crate::fabric::{FabricError, MemoryRegion};

/// A registration that gives no access: the range is known, so that the GPU runtime can copy to and from it, but its
/// keys are invalid.
#[derive(Debug)]
pub(super) struct UnreachableMemory;

/// The key of such a registration. No other registration of the software fabric has it.
pub const NO_KEY: u32 = 0;

impl MemoryRegion for UnreachableMemory {
    fn lkey(&self) -> u32 {
        NO_KEY
    }

    fn rkey(&self) -> u32 {
        NO_KEY
    }

    fn revoke(&self, _deadline: Instant) -> Result<(), FabricError> {
        Ok(())
    }
}

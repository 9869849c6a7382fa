//! The dma-buf of a region for its further NICs: those that register it at about the same time share one export.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::gpu_memory::{ExportedPiece, export_whole};
use crate::gpu::GpuError;

/// One export at a time, closed when the last NIC has registered it.
#[derive(Debug)]
pub(super) struct SharedExport<E = ExportedPiece>(Mutex<Weak<E>>);

impl SharedExport {
    /// The whole range as one dma-buf, which another NIC may be registering.
    pub(super) fn of_range(&self, address: u64, length: u64) -> Result<Arc<ExportedPiece>, GpuError> {
        self.get_or_make(|| export_whole(address, length))
    }
}

impl<E> SharedExport<E> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    /// What is in use, else what `make` makes. A thread that comes meanwhile waits for that.
    fn get_or_make(&self, make: impl FnOnce() -> Result<E, GpuError>) -> Result<Arc<E>, GpuError> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(export) = current.upgrade() {
            return Ok(export);
        }
        let made = Arc::new(make()?);
        *current = Arc::downgrade(&made);
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_is_shared_and_what_was_is_made_again() {
        let shared = SharedExport::new();
        let export = |number: u32| shared.get_or_make(|| Ok(number)).map(|export| (*export, export));
        let refused =
            || shared.get_or_make(|| Err(GpuError::Unsupported { runtime: "played", operation: "export" }));
        assert!(refused().is_err(), "and nothing is kept of it");
        let (first, kept) = export(1).unwrap();
        let (second, also_kept) = export(2).unwrap();
        assert_eq!((first, second), (1, 1));
        drop(kept);
        assert_eq!(export(3).unwrap().0, 1);
        drop(also_kept);
        assert_eq!(export(4).unwrap().0, 4);
    }
}

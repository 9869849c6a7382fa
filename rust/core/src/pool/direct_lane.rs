//! The direct copies of a lane: made by submitters, without the worker and its lock.

use std::sync::Arc;

use crate::fabric::{DirectCopy, DirectPiece, NotDirect, Opcode};
use crate::observe::SAMPLE_EVERY;
use crate::sync::{AtomicU64, Ordering, Swap};

/// Copies by way of the lane's queue pair, as long as the lane is healthy.
#[derive(Debug)]
pub struct DirectLane {
    /// Of the queue pair that the lane has now; none while it is not healthy. Replaced under the worker's lock, read by
    /// submitters.
    copy: Swap<Option<Arc<dyn DirectCopy>>>,
    /// Counts of transfers and bytes that were copied. Added to by submitters, read for metrics: Relaxed.
    transfers: AtomicU64,
    bytes: AtomicU64,
}

impl Default for DirectLane {
    fn default() -> Self {
        Self { copy: Swap::from_pointee(None), transfers: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }
}

impl DirectLane {
    /// The lane has another queue pair, or is not healthy any more.
    pub(super) fn set(&self, copy: Option<Arc<dyn DirectCopy>>) {
        self.copy.store(Arc::new(copy));
    }

    /// Whether the lane's queue pair has direct copies now.
    pub fn is_there(&self) -> bool {
        self.copy.load().is_some()
    }

    /// Copies the pieces of one transfer, of `bytes` in all, and counts it.
    #[inline]
    pub fn copy(&self, opcode: Opcode, pieces: &[DirectPiece], bytes: u64) -> Result<(), NotDirect> {
        let copy = self.copy.load();
        let Some(copy) = &**copy else { return Err(NotDirect) };
        copy.copy(opcode, pieces)?;
        self.transfers.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the next transfer is one of those that have their latency measured.
    #[inline]
    pub fn is_sampled(&self) -> bool {
        self.transfers().is_multiple_of(SAMPLE_EVERY)
    }

    /// Transfers copied so far.
    #[inline]
    pub fn transfers(&self) -> u64 {
        self.transfers.load(Ordering::Relaxed)
    }

    /// Bytes copied so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

//! A counter with one writer.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts up, wrapping after 2^64. One thread at a time may add: its owner, or the holder of its owner's lock. Any
/// thread may read.
#[derive(Debug, Default)]
pub struct Counter {
    /// Written by the one writer, read by any thread. It guards no other memory, so every access is Relaxed; a change
    /// of the writer is ordered by the owner's lock.
    value: AtomicU64,
}

impl Counter {
    /// Adds. A plain load and store: with two writers at the same time an addition is lost.
    #[inline]
    pub fn add(&self, amount: u64) {
        self.value.store(self.value.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// The count, which may be slightly out of date.
    pub fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

//! A counter with one writer.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts up, wrapping after 2^64. One thread at a time may add: the owner, or the holder of the owner's lock. Any thread
/// may read.
#[derive(Debug, Default)]
pub struct Counter {
    /// Written by the one writer, read by any thread. It guards no other memory, so every access is Relaxed; handing the
    /// writer's role on is ordered by the lock that goes with it.
    value: AtomicU64,
}

impl Counter {
    /// Adds. A plain load and store: with two writers at the same time an addition is lost.
    #[inline]
    pub fn add(&self, amount: u64) {
        self.value.store(self.value.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// The count as of now, or of a moment ago.
    pub fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

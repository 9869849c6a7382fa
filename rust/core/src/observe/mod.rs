//! Counters.
use std::sync::atomic::{AtomicU64, Ordering};
/// What a worker counts. Written by whoever holds the worker's lock, read by anyone: Relaxed.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    posted: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    timed_out: AtomicU64,
}
fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}
impl WorkerCounters {
    /// Requests posted.
    #[inline]
    pub fn posted(&self, requests: u32) {
        add(&self.posted, u64::from(requests));
    }
    /// A post was refused.
    pub fn refused(&self) {
        add(&self.refused, 1);
    }
    /// A request failed.
    pub fn failed(&self) {
        add(&self.failed, 1);
    }
    /// A transfer timed out.
    pub fn timed_out(&self) {
        add(&self.timed_out, 1);
    }
}

//! What a worker counts.

use std::time::Duration;

use crossbeam::utils::CachePadded;

use super::{Counter, Histogram};

/// One transfer of a lane in this many has its latency recorded: often enough for percentiles, too rarely to cost measurable time.
pub const SAMPLE_EVERY: u64 = 64;

/// What a worker counts. Written by the holder of the worker's lock, read by any thread. On cache lines of its own, so
/// that counting does not slow other threads.
#[derive(Debug, Default)]
pub struct WorkerCounters(CachePadded<Counters>);

#[derive(Debug, Default)]
struct Counters {
    posted: Counter,
    refused: Counter,
    failed: Counter,
    slow: Histogram,
    latency: Histogram,
}

impl WorkerCounters {
    /// Requests were posted.
    #[inline]
    pub fn posted(&self, requests: u32) {
        self.0.posted.add(u64::from(requests));
    }

    /// A post was refused, and will be tried again.
    pub fn refused(&self) {
        self.0.refused.add(1);
    }

    /// A request failed.
    pub fn failed(&self) {
        self.0.failed.add(1);
    }

    /// So many transfers took longer than a millisecond: at most so long, each.
    #[cold]
    pub fn slow_many(&self, count: u32, latency: Duration) {
        (0..count).for_each(|_| self.0.slow.record(latency));
    }

    /// A share that was to be measured has ended after `latency`.
    pub fn ended(&self, latency: Duration) {
        self.0.latency.record(latency);
    }

    /// Requests posted so far.
    pub fn posted_count(&self) -> u64 {
        self.0.posted.get()
    }

    /// Posts refused so far.
    pub fn refused_count(&self) -> u64 {
        self.0.refused.get()
    }

    /// Requests failed so far.
    pub fn failed_count(&self) -> u64 {
        self.0.failed.get()
    }

    /// Those that took longer than a millisecond.
    pub fn slow_latency(&self) -> &Histogram {
        &self.0.slow
    }

    /// The sampled latencies.
    pub fn latency(&self) -> &Histogram {
        &self.0.latency
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_do_not_share_cache_lines() {
        assert!(align_of::<WorkerCounters>() >= 64);
    }
}

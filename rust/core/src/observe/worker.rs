//! What a worker counts.

use std::time::Duration;

use crossbeam::utils::CachePadded;

use super::{Counter, Histogram};

/// One transfer in this many has its latency recorded: often enough for percentiles, too rarely to be felt.
pub const SAMPLE_EVERY: u64 = 64;

/// What a worker counts. Written by whoever holds the worker's lock, read by anyone. On cache lines of its own, so
/// that counting never slows a neighbour.
#[derive(Debug, Default)]
pub struct WorkerCounters(CachePadded<Counters>);

#[derive(Debug, Default)]
struct Counters {
    posted: Counter,
    refused: Counter,
    failed: Counter,
    timed_out: Counter,
    ended: Counter,
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

    /// A transfer timed out.
    pub fn timed_out(&self) {
        self.0.timed_out.add(1);
    }

    /// A transfer's share of this worker has ended. `latency` is asked for a sample of them only, and may answer
    /// `None` when the time of submission is not known.
    #[inline]
    pub fn ended(&self, latency: impl FnOnce() -> Option<Duration>) {
        let ended = self.0.ended.get();
        if ended % SAMPLE_EVERY == 0 {
            if let Some(latency) = latency() {
                self.0.latency.record(latency);
            }
        }
        self.0.ended.add(1);
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

    /// Transfers timed out so far.
    pub fn timed_out_count(&self) -> u64 {
        self.0.timed_out.get()
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
    fn one_latency_in_so_many_is_asked_for() {
        let counters = WorkerCounters::default();
        let mut asked = 0;
        for _ in 0..3 * SAMPLE_EVERY {
            counters.ended(|| {
                asked += 1;
                Some(Duration::from_micros(5))
            });
        }
        assert_eq!((asked, counters.latency().snapshot().count()), (3, 3));
    }

    #[test]
    fn workers_do_not_share_cache_lines() {
        assert!(align_of::<WorkerCounters>() >= 64);
    }
}

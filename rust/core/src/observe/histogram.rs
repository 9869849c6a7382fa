//! Latencies: counts by size, three buckets a decade.
//!
//! One writer adds without a lock or a locked instruction while any thread reads, and the buckets are those that Prometheus
//! gets. The crate `hdrhistogram`, which the tool's `bench` uses, needs an exclusive reference for that, or a channel.

use std::time::Duration;

use super::Counter;

/// Buckets with an upper bound. One more counts what is longer.
const BOUNDED: usize = 28;

/// The upper bounds in nanoseconds: 0.1, 0.2, 0.5, 1 us, ... 50, 100 s.
const BOUNDS: [u64; BOUNDED] = bounds();

const fn bounds() -> [u64; BOUNDED] {
    let (mut bounds, mut decade, mut place) = ([0; BOUNDED], 100, 0);
    #[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
    while place < BOUNDED {
        bounds[place] = match place % 3 {
            0 => decade,
            1 => 2 * decade,
            _ => 5 * decade,
        };
        place += 1;
        if place % 3 == 0 {
            decade *= 10;
        }
    }
    bounds
}

/// Durations from 0.1 us to 100 s. One writer at a time, like [`Counter`].
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BOUNDED + 1],
    nanoseconds: Counter,
}

/// A histogram's content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// Counts per bucket, not cumulative: what took at most 0.1, 0.2, 0.5, 1 us and so on up to 100 s, and more than the bucket
    /// before; the last has no end.
    pub counts: [u64; BOUNDED + 1],
    /// Sum of all durations in nanoseconds.
    pub nanoseconds: u64,
}

impl Histogram {
    /// Counts one duration.
    #[inline]
    pub fn record(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < nanoseconds);
        if let Some(counter) = self.buckets.get(bucket) {
            counter.add(1);
        }
        self.nanoseconds.add(nanoseconds);
    }

    /// Its content now.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let mut snapshot = HistogramSnapshot { nanoseconds: self.nanoseconds.get(), ..Default::default() };
        for (count, bucket) in snapshot.counts.iter_mut().zip(&self.buckets) {
            *count = bucket.get();
        }
        snapshot
    }
}

impl HistogramSnapshot {
    /// Number of durations.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.wrapping_add(*count))
    }

    /// Adds another histogram's content.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count = count.wrapping_add(more);
        }
        self.nanoseconds = self.nanoseconds.wrapping_add(other.nanoseconds);
    }

    /// The end of the bucket in which the given percentile lies; `None` without durations, [`Duration::MAX`] beyond
    /// the last bound.
    pub fn percentile(&self, percent: u32) -> Option<Duration> {
        let rank = self.count().checked_mul(u64::from(percent))?.div_ceil(100).max(1);
        let mut seen = 0_u64;
        let bucket = self.counts.iter().position(|count| {
            seen = seen.saturating_add(*count);
            seen >= rank
        })?;
        Some(BOUNDS.get(bucket).map_or(Duration::MAX, |bound| Duration::from_nanos(*bound)))
    }

    /// Ends of the buckets in seconds (infinite for the last one) with their counts.
    pub(super) fn in_seconds(&self) -> Vec<(f64, u64)> {
        let ends = BOUNDS.iter().map(|bound| *bound as f64 / 1e9).chain([f64::INFINITY]);
        ends.zip(self.counts).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bucket_of(duration: Duration) -> usize {
        let histogram = Histogram::default();
        histogram.record(duration);
        histogram.snapshot().counts.iter().position(|count| *count == 1).unwrap()
    }

    #[test]
    fn bounds() {
        for (nanoseconds, bucket) in
            [(0, 0), (100, 0), (101, 1), (200, 1), (201, 2), (500, 2), (501, 3), (1000, 3)]
        {
            assert_eq!(bucket_of(Duration::from_nanos(nanoseconds)), bucket, "{nanoseconds} ns");
        }
        assert_eq!(bucket_of(Duration::from_secs(100)), BOUNDED - 1);
        assert_eq!(bucket_of(Duration::from_nanos(100_000_000_001)), BOUNDED);
        assert_eq!(bucket_of(Duration::MAX), BOUNDED);
    }

    #[test]
    fn percentiles_name_the_bucket() {
        let histogram = Histogram::default();
        assert_eq!(histogram.snapshot().percentile(50), None);
        (1..=99).for_each(|_| histogram.record(Duration::from_micros(3)));
        histogram.record(Duration::from_secs(101));
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.percentile(50), Some(Duration::from_micros(5)));
        assert_eq!(snapshot.percentile(99), Some(Duration::from_micros(5)));
        assert_eq!(snapshot.percentile(100), Some(Duration::MAX));
    }

    proptest! {
        #[test]
        fn every_duration_lies_in_its_bucket(nanoseconds in 0_u64..200_000_000_000) {
            let bucket = bucket_of(Duration::from_nanos(nanoseconds));
            prop_assert!(bucket == BOUNDED || nanoseconds <= BOUNDS[bucket]);
            prop_assert!(bucket == 0 || nanoseconds > BOUNDS[bucket - 1]);
        }

        #[test]
        fn merging_is_counting_both(a in proptest::collection::vec(0_u64..1 << 40, 0..20),
                                    b in proptest::collection::vec(0_u64..1 << 40, 0..20)) {
            let of = |values: &[u64]| {
                let histogram = Histogram::default();
                values.iter().for_each(|value| histogram.record(Duration::from_nanos(*value)));
                histogram.snapshot()
            };
            let mut merged = of(&a);
            merged.merge(&of(&b));
            prop_assert_eq!(merged, of(&[a, b].concat()));
        }
    }
}

//! How long each transfer took.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::worker::TRANSFER_TIMEOUT;
use crate::error::{CliError, Result};

/// Times of transfers in nanoseconds, to three significant digits. All of its memory is allocated at the start, so that
/// counting a transfer costs the measurement next to nothing.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Result<Self> {
        let most = u64::try_from(TRANSFER_TIMEOUT.as_nanos()).unwrap_or(u64::MAX);
        let histogram = Histogram::new_with_bounds(1, most, 3);
        histogram.map(Self).map_err(|error| CliError::other(format!("create the latency histogram: {error}")))
    }

    /// Counts one transfer; one beyond the timeout counts as the timeout.
    pub(crate) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Counts all that another has counted.
    pub(crate) fn add(&mut self, other: &Self) {
        // Both have the same bounds, which is what adding can fail for.
        let added = self.0.add(&other.0);
        debug_assert!(added.is_ok());
    }

    /// In microseconds; zero without any transfer.
    pub(crate) fn percentile(&self, percent: f64) -> f64 {
        self.0.value_at_percentile(percent) as f64 / 1000.0
    }

    /// The longest, in microseconds.
    pub(crate) fn longest(&self) -> f64 {
        self.0.max() as f64 / 1000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_thousandth() {
        let mut latencies = Latencies::new().unwrap();
        assert_eq!(latencies.percentile(50.0), 0.0);
        // More transfers than any list of samples would keep.
        for micros in (1..=2000).cycle().take(2_000_000) {
            latencies.record(Duration::from_micros(micros));
        }
        let mut twice = latencies.clone();
        twice.add(&latencies);
        for (percent, micros) in [(50.0, 1000.0), (99.0, 1980.0), (100.0, 2000.0)] {
            let found = twice.percentile(percent);
            assert!((found / micros - 1.0).abs() < 1e-3, "{percent} %: {found} us");
        }
    }

    #[test]
    fn a_transfer_beyond_the_timeout_is_counted() {
        let mut latencies = Latencies::new().unwrap();
        latencies.record(Duration::MAX);
        assert!(latencies.longest() >= TRANSFER_TIMEOUT.as_secs_f64() * 1e6);
    }
}

//! How often connections with something under way look at their rails, when they are many.

use super::Connection;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// The looks of all connections of an engine, which one event loop carries out: each connection looks the more rarely the more there are, so
/// that all of them together take a twentieth of a processor's time.
///
/// Written by tasks of the event loop's thread, and by threads that drop a connection. Numbers are estimates and stand alone: Relaxed.
#[derive(Debug, Default)]
pub(super) struct LookPace {
    /// Connections that look now.
    looking: AtomicU32,
    /// Nanoseconds that a look takes, smoothed; 0 before the first.
    cost: AtomicU64,
}

/// Looks take this part of a processor's time at most: a twentieth.
const PART_OF_TIME: u64 = 20;

/// A look enters the smoothed cost by an eighth.
const SMOOTHING: u64 = 8;

/// One that took longer was more than a look: 100 us. With the wait before it one takes 10 to 30 us.
const LONGEST: u64 = 100_000;

impl LookPace {
    /// A connection looks from now on.
    pub(super) fn begin(&self) {
        self.looking.fetch_add(1, Ordering::Relaxed);
    }

    /// It does not any more.
    pub(super) fn end(&self) {
        self.looking.fetch_sub(1, Ordering::Relaxed);
    }

    /// A look, and all that the loop did for it, took so many nanoseconds of processor time.
    pub(super) fn took(&self, nanos: u64) {
        let (cost, nanos) = (self.cost.load(Ordering::Relaxed), nanos.min(LONGEST));
        let smoothed = if cost == 0 { nanos } else { cost - cost / SMOOTHING + nanos / SMOOTHING };
        self.cost.store(smoothed, Ordering::Relaxed);
    }

    /// Nanoseconds that are at least between two looks of a connection.
    pub(super) fn least_interval(&self) -> u64 {
        let looks = u64::from(self.looking.load(Ordering::Relaxed)) * self.cost.load(Ordering::Relaxed);
        looks.saturating_mul(PART_OF_TIME)
    }
}

impl Connection {
    /// Its task has looked at its rails, which took so many nanoseconds of processor time.
    pub(super) fn look_took(&self, nanos: u64) {
        self.context.look_pace.took(nanos);
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests {
    use super::*;

    #[test]
    fn all_looks_take_a_twentieth() {
        let pace = LookPace::default();
        (0..1_000).for_each(|_| pace.begin());
        assert_eq!(pace.least_interval(), 0, "nothing is known of a look");
        (0..100).for_each(|_| pace.took(2_000));
        let looks_in_a_second = 1_000 * 1_000_000_000 / pace.least_interval();
        assert_eq!(looks_in_a_second * 2_000, 50_000_000);
        (0..1_000).for_each(|_| pace.end());
        assert_eq!(pace.least_interval(), 0);
    }

    #[test]
    fn the_cost_follows_what_looks_take_but_for_other_work() {
        let pace = LookPace::default();
        pace.begin();
        (0..100).for_each(|_| pace.took(1_000));
        pace.took(50_000_000);
        assert!(pace.least_interval() < 20 * 14_000, "{}", pace.least_interval());
        (0..100).for_each(|_| pace.took(2_000));
        let cost = pace.least_interval() / 20;
        assert!((1_990..2_010).contains(&cost), "{cost}");
    }
}

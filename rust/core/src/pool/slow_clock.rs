//! Tells parts that took longer than a millisecond from others, without a look at the clock for each.

use std::time::Duration;

/// A tick, in nanoseconds.
const TICK: u64 = 250_000;

/// What takes longer is slow.
pub(super) const SLOW: Duration = Duration::from_millis(1);

/// A part that has seen so many ticks begin has taken at least four of them: a millisecond.
const SLOW_TICKS: u32 = 5;

/// Counts ticks of a worker while its steps look at the clock now and then. A part keeps the count from when it began.
///
/// It counts a tick only if all of it lies after the looks before: so a part that sees five begin has taken four whole ones.
#[derive(Debug, Default)]
pub(super) struct SlowClock {
    ticks: u32,
    /// When the last tick was counted, in nanoseconds.
    last: u64,
    /// A part has begun since.
    begun: bool,
}

impl SlowClock {
    /// The count now, for a part that begins.
    #[inline(always)]
    pub(super) fn begin(&mut self) -> u32 {
        self.begun = true;
        self.ticks
    }

    /// A count for a part that is to be looked at when it ends, however soon.
    pub(super) fn long_ago(&self) -> u32 {
        self.ticks.wrapping_sub(u32::MAX / 2)
    }

    /// Whether a part that began at this count took longer than a millisecond, or was to be looked at.
    #[inline(always)]
    pub(super) fn is_slow(&self, begun: u32) -> bool {
        self.ticks.wrapping_sub(begun) >= SLOW_TICKS
    }

    /// A look at the clock.
    #[inline]
    pub(super) fn look(&mut self, now: u64) {
        let passed = now.saturating_sub(self.last) / TICK;
        if passed == 0 {
            return;
        }
        // A part that began since the last look may have begun a moment ago: for it, only one tick can begin now.
        let counted = if self.begun { 1 } else { passed.min(u64::from(u32::MAX / 4)) };
        self.ticks = self.ticks.wrapping_add(counted as u32);
        (self.last, self.begun) = (now, false);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_part_that_is_looked_at_all_the_time_is_slow_after_a_millisecond_and_a_quarter() {
        let mut clock = SlowClock::default();
        clock.look(MS);
        let begun = clock.begin();
        for now in (MS..).step_by(20_000).take_while(|now| *now < 2 * MS) {
            clock.look(now);
            assert!(!clock.is_slow(begun), "{now}");
        }
        (2 * MS..=2 * MS + 300_000).step_by(20_000).for_each(|now| clock.look(now));
        assert!(clock.is_slow(begun));
    }

    #[test]
    fn a_part_that_a_sleeping_thread_waits_for_is_slow() {
        let mut clock = SlowClock::default();
        clock.look(MS);
        let begun = clock.begin();
        // The last look before the thread sleeps, and the first after.
        clock.look(2 * MS);
        clock.look(9 * MS);
        assert!(clock.is_slow(begun));
        assert!(clock.is_slow(clock.long_ago()));
    }

    proptest! {
        /// Whatever looks there are, and whatever else begins: no part that took less than a millisecond is slow.
        #[test]
        fn no_quick_part_is_slow(
            before in 0_u64..1_000_000_000,
            looks in proptest::collection::vec((0_u64..400_000, any::<bool>()), 0..40),
        ) {
            let (mut clock, mut now) = (SlowClock::default(), 0);
            clock.look(now);
            now += before;
            let (began, begun) = (now, clock.begin());
            for (pause, another) in looks {
                now += pause;
                clock.look(now);
                if clock.is_slow(begun) {
                    prop_assert!(now - began >= MS, "{} ns", now - began);
                }
                if another {
                    clock.begin();
                }
            }
        }
    }
}

//! Tells parts that took longer than a millisecond from others, and how long they took, without a look at the clock for each.

use std::time::Duration;

use super::clock;

/// Looks at the clock count that are so many nanoseconds apart.
const TICK: u64 = 250_000;

/// What takes longer is slow.
pub(super) const SLOW: Duration = Duration::from_millis(1);

/// A part that has seen fewer looks has not taken long, as far as they tell.
const LOOKS: u32 = 2;

/// Looks of which the times are kept: the last 32 ms, or more.
const KEPT: u32 = 128;

/// Keeps the times of a worker's looks at the clock, a tick or more apart. A part keeps the number of the last one before it began,
/// and began no later than the next one: what has passed since that one is the least that it can have taken.
#[derive(Debug)]
pub(super) struct SlowClock {
    /// The number of the last look.
    looks: u32,
    /// When that was, in nanoseconds.
    last: u64,
    /// When the last [`KEPT`] looks were, each at the remainder of its number.
    times: Box<[u64]>,
}

impl Default for SlowClock {
    fn default() -> Self {
        Self { looks: 0, last: 0, times: vec![0; KEPT as usize].into() }
    }
}

impl SlowClock {
    /// The number for a part that begins.
    #[inline(always)]
    pub(super) fn begin(&self) -> u32 {
        self.looks
    }

    /// A number for a part that is to be looked at when it ends, however soon.
    pub(super) fn long_ago(&self) -> u32 {
        self.looks.wrapping_sub(u32::MAX / 2)
    }

    /// Whether a part that began with this number may have taken longer than a millisecond, or was to be looked at.
    #[inline(always)]
    pub(super) fn may_be_slow(&self, begun: u32) -> bool {
        self.looks.wrapping_sub(begun) >= LOOKS
    }

    /// The least that a part has taken at `now` that began with this number. `since` is when deadlines were first looked at for it, in
    /// milliseconds, or 0: it tells more of one that began before the looks that are kept.
    pub(super) fn took(&self, begun: u32, since: u64, now: u64) -> Duration {
        let time = |look: u32| self.times.get((look % KEPT) as usize).copied().unwrap_or(now);
        match self.looks.wrapping_sub(begun) {
            0 => Duration::ZERO,
            1..=KEPT => Duration::from_nanos(now.saturating_sub(time(begun.wrapping_add(1)))),
            _ => {
                let kept = now.saturating_sub(time(self.looks.wrapping_add(1)));
                // Both are rounded.
                let waited = if since == 0 { 0 } else { clock::ms(now).saturating_sub(since + 1) };
                Duration::from_nanos(kept).max(Duration::from_millis(waited))
            }
        }
    }

    /// A look at the clock.
    #[inline]
    pub(super) fn look(&mut self, now: u64) {
        if now.saturating_sub(self.last) < TICK {
            return;
        }
        self.looks = self.looks.wrapping_add(1);
        self.last = now;
        if let Some(time) = self.times.get_mut((self.looks % KEPT) as usize) {
            *time = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    fn is_slow(clock: &SlowClock, begun: u32, now: u64) -> bool {
        clock.may_be_slow(begun) && clock.took(begun, 0, now) >= SLOW
    }

    #[test]
    fn a_part_that_is_looked_at_all_the_time_is_slow_after_a_millisecond_and_a_quarter() {
        let mut clock = SlowClock::default();
        clock.look(MS);
        let begun = clock.begin();
        for now in (MS..).step_by(20_000).take_while(|now| *now < 2 * MS) {
            clock.look(now);
            assert!(!is_slow(&clock, begun, now), "{now}");
        }
        (2 * MS..=2 * MS + 300_000).step_by(20_000).for_each(|now| clock.look(now));
        assert!(is_slow(&clock, begun, 2 * MS + 300_000));
    }

    #[test]
    fn a_part_that_a_sleeping_thread_waits_for_is_slow() {
        let mut clock = SlowClock::default();
        clock.look(MS);
        let begun = clock.begin();
        // The last look before the thread sleeps, and the first after.
        clock.look(2 * MS);
        clock.look(9 * MS);
        assert!(is_slow(&clock, begun, 9 * MS));
        assert!(clock.may_be_slow(clock.long_ago()));
    }

    #[test]
    fn a_part_among_many_that_begin_is_slow_however_long_steps_take() {
        let mut clock = SlowClock::default();
        clock.look(MS);
        let begun = clock.begin();
        for step in 2..5 {
            clock.look(step * MS);
            clock.begin();
        }
        assert!(is_slow(&clock, begun, 4 * MS));
        assert_eq!(clock.took(begun, 0, 4 * MS), Duration::from_millis(2));
    }

    #[test]
    fn how_long_is_known_beyond_the_looks_that_are_kept() {
        let mut clock = SlowClock::default();
        clock.look(MS);
        let begun = clock.begin();
        (MS..9000 * MS).step_by(TICK as usize).for_each(|now| clock.look(now));
        let took = |since| clock.took(begun, since, 9000 * MS).as_millis();
        assert!((30..=32).contains(&took(0)), "{}", took(0));
        assert!((8994..=8999).contains(&took(5)), "{}", took(5));
    }

    proptest! {
        /// Whatever looks there are: no part is said to have taken longer than it has, and of one that is looked at often no more than
        /// some ticks are missing.
        #[test]
        fn no_part_took_longer_than_it_did(
            before in 0_u64..1_000_000_000,
            looks in proptest::collection::vec(0_u64..400_000, 0..300),
        ) {
            let (mut clock, mut now) = (SlowClock::default(), 0);
            clock.look(now);
            now += before;
            let (began, begun) = (now, clock.begin());
            for (number, pause) in looks.into_iter().enumerate() {
                now += pause;
                clock.look(now);
                let took = clock.took(begun, 0, now).as_nanos() as u64;
                prop_assert!(took <= now - began, "{took} of {} ns", now - began);
                if number < KEPT as usize {
                    prop_assert!(took + 3 * TICK >= now - began, "{took} of {} ns", now - began);
                }
            }
        }
    }
}

//! Which copies of a thread took longer than a millisecond: only those count that had a look at the clock before and behind them.
//!
//! A thread makes one copy after the other. So if little time has passed between two looks, each copy between them was quick. If much has, one of them was slow
//! or the program did something else in between, and nothing shows which: none of them counts, and from there on each copy has looks of its own, until
//! a long row has come without a pause and without a slow copy. Then one copy in 16 has a look, for two for each take a tenth of a copy of 4 KiB.

use std::cell::Cell;
use std::time::Duration;

use super::slow_clock::SLOW;

/// Of so many copies one has a look: a look takes 10 to 18 ns, a copy of 4 KiB 150.
const EVERY: u32 = 16;

/// A longer time between two copies, or between two looks, is a pause, in nanoseconds: half of what is slow, and longer than 16 copies take.
const PAUSE: u64 = 500_000;

const SLOW_NS: u64 = SLOW.as_nanos() as u64;

/// So many copies have looks of their own after a pause or a slow copy.
const CLOSELY: u32 = 8192;

/// A thread's looks. Only that thread has it.
#[derive(Debug)]
pub(super) struct CopyClock {
    /// Copies that may still come before the next look.
    left: Cell<u32>,
    /// Copies that still have looks of their own.
    closely: Cell<u32>,
    /// When the last look was, in nanoseconds.
    last: Cell<u64>,
}

/// What the looks before and behind a copy show of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CopyTimes {
    /// Its time, if it was slow.
    pub(super) slow: Option<Duration>,
    /// Its time, if it is one of those that have their latency kept.
    pub(super) sampled: Option<Duration>,
}

impl CopyClock {
    pub(super) const fn new() -> Self {
        Self { left: Cell::new(0), closely: Cell::new(CLOSELY), last: Cell::new(0) }
    }

    /// Whether the next copy has no look.
    #[inline(always)]
    pub(super) fn passes(&self, is_sampled: bool) -> bool {
        let left = self.left.get();
        let passes = left > 0 && !is_sampled;
        if passes {
            self.left.set(left - 1);
        }
        passes
    }

    /// Makes a copy that does not pass. Answers what it answers, and its time, if that is to be counted.
    pub(super) fn look<T>(
        &self,
        is_sampled: bool,
        now: impl Fn() -> u64,
        copy: impl FnOnce() -> T,
    ) -> (T, Option<CopyTimes>) {
        let begun = now();
        let is_pause = begun.saturating_sub(self.last.replace(begun)) > PAUSE;
        let closely = if is_pause { CLOSELY } else { self.closely.get() };
        if !is_sampled && closely == 0 {
            // The first one of a row.
            self.left.set(EVERY - 1);
            return (copy(), None);
        }
        let answer = copy();
        let ended = now();
        self.last.set(ended);
        let took = ended.saturating_sub(begun);
        let is_slow = took >= SLOW_NS;
        let closely = if is_slow { CLOSELY } else { closely.saturating_sub(1) };
        self.closely.set(closely);
        self.left.set(if closely > 0 { 0 } else { EVERY - 1 });
        let took = Duration::from_nanos(took);
        let times = CopyTimes { slow: is_slow.then_some(took), sampled: is_sampled.then_some(took) };
        (answer, (is_slow || is_sampled).then_some(times))
    }
}

/// A copy with looks before and behind it, of a thread that has no clock of its own.
pub(super) fn look_closely<T>(
    is_sampled: bool,
    now: impl Fn() -> u64,
    copy: impl FnOnce() -> T,
) -> (T, Option<CopyTimes>) {
    CopyClock::new().look(is_sampled, now, copy)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    /// A thread, its time, and what has been counted of it.
    struct Copier {
        clock: CopyClock,
        now: Cell<u64>,
        made: u64,
        slow: u64,
        sampled: u64,
    }

    impl Copier {
        fn new() -> Self {
            Self { clock: CopyClock::new(), now: Cell::new(7 * MS), made: 0, slow: 0, sampled: 0 }
        }

        /// After a long row without a pause.
        fn hurried() -> Self {
            let mut copier = Self::new();
            (0..=CLOSELY).for_each(|_| copier.copy(150));
            assert_eq!((copier.clock.closely.get(), copier.slow), (0, 0));
            copier
        }

        fn pass(&self, nanoseconds: u64) {
            self.now.set(self.now.get() + nanoseconds);
        }

        fn copy(&mut self, takes: u64) {
            let is_sampled = self.made.is_multiple_of(64);
            self.made += 1;
            if self.clock.passes(is_sampled) {
                self.pass(takes);
                return;
            }
            let now = || self.now.get();
            let ((), times) = self.clock.look(is_sampled, now, || self.pass(takes));
            self.count(times);
        }

        fn count(&mut self, times: Option<CopyTimes>) {
            let Some(times) = times else { return };
            self.slow += u64::from(times.slow.is_some());
            self.sampled += u64::from(times.sampled.is_some());
        }
    }

    /// Pauses, and how long the copies after each take.
    fn plan() -> impl Strategy<Value = Vec<(u64, Vec<u64>)>> {
        let pause = prop_oneof![3 => 0..2000_u64, 1 => 0..MS, 1 => 0..20 * MS];
        let takes = prop_oneof![20 => 100..300_u64, 1 => 0..MS, 1 => MS..3 * MS];
        vec((pause, vec(takes, 0..80)), 1..12)
    }

    fn run(copier: &mut Copier, plan: &[(u64, Vec<u64>)]) {
        for (pause, copies) in plan {
            copier.pass(*pause);
            copies.iter().for_each(|takes| copier.copy(*takes));
        }
    }

    /// The copies that count as slow.
    fn slow(copies: &[u64]) -> u64 {
        copies.iter().filter(|takes| **takes >= SLOW_NS).count() as u64
    }

    /// How many copies come before the first pause, or are over with the first one that takes as long as a pause.
    fn before_pause(plan: &[(u64, Vec<u64>)]) -> usize {
        let mut before = 0;
        for (pause, copies) in plan {
            if *pause > PAUSE && !copies.is_empty() {
                return before;
            }
            if let Some(long) = copies.iter().position(|takes| *takes > PAUSE) {
                return before + long + 1;
            }
            before += copies.len();
        }
        before
    }

    proptest! {
        #[test]
        fn after_a_pause_the_slow_copies_count_and_no_other(plan in plan()) {
            let mut copier = Copier::new();
            run(&mut copier, &plan);
            let copies: Vec<_> = plan.into_iter().flat_map(|(_, copies)| copies).collect();
            prop_assert_eq!(copier.slow, slow(&copies));
        }

        #[test]
        fn after_a_long_row_no_other_counts_and_16_copies_behind_a_pause_each_slow_one(plan in plan()) {
            let mut copier = Copier::hurried();
            run(&mut copier, &plan);
            let seen = before_pause(&plan) + EVERY as usize;
            let copies: Vec<_> = plan.into_iter().flat_map(|(_, copies)| copies).collect();
            let required = slow(copies.get(seen..).unwrap_or_default());
            prop_assert!((required..=slow(&copies)).contains(&copier.slow), "{} of {required}", copier.slow);
        }
    }

    #[test]
    fn a_pause_after_a_long_row_counts_no_copy() {
        for pause in [MS / 2, 3 * MS / 2, 1000 * MS] {
            let mut copier = Copier::hurried();
            copier.pass(pause);
            (0..1000).for_each(|_| copier.copy(150));
            assert_eq!(copier.slow, 0, "{pause}");
        }
    }

    #[test]
    fn each_slow_copy_counts_of_those_that_have_fewer_than_8192_between_them() {
        let mut copier = Copier::new();
        for round in 1..=4 {
            (1..CLOSELY).for_each(|_| copier.copy(150));
            copier.copy(2 * MS);
            assert_eq!(copier.slow, round);
        }
    }

    #[test]
    fn one_in_64_is_sampled_and_few_are_looked_at() {
        let mut copier = Copier::hurried();
        let before = copier.sampled;
        let looks = Cell::new(0);
        for _ in 0..64 * 100 {
            let is_sampled = copier.made.is_multiple_of(64);
            copier.made += 1;
            if copier.clock.passes(is_sampled) {
                copier.pass(150);
                continue;
            }
            let now = || {
                looks.set(looks.get() + 1);
                copier.now.get()
            };
            let ((), times) = copier.clock.look(is_sampled, now, || copier.pass(150));
            copier.count(times);
        }
        assert_eq!((copier.sampled - before, copier.slow), (100, 0));
        assert!(looks.get() <= 5 * 100 + 1, "{}", looks.get());
    }
}

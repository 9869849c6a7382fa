//! Which copies of a thread took longer than a millisecond, with a look at the clock for one in 16.
//!
//! A thread makes one copy after the other. So if little time has passed between two looks, each copy between them was quick. If much has, one of them was slow
//! or the program did something else in between: after such a pause each copy has looks of its own, before and behind it, until a long row of
//! copies has come without a pause.

use std::cell::Cell;
use std::time::Duration;

use super::slow_clock::SLOW;

/// Of so many copies one has a look: a look takes 10 to 18 ns, a copy of 4 KiB 150.
const EVERY: u32 = 16;

/// A longer time between two copies, or between two looks, is a pause, in nanoseconds: half of what is slow, and longer than 16 copies take.
const PAUSE: u64 = 500_000;

const SLOW_NS: u64 = SLOW.as_nanos() as u64;

/// So many copies have looks of their own after a pause.
const CLOSELY: u32 = 8192;

/// A thread's looks. Only that thread has it.
#[derive(Debug)]
pub(super) struct CopyClock {
    /// Copies that may still come before the next look.
    left: Cell<u32>,
    /// Copies since the last look that had none, and those of `left`.
    row: Cell<u32>,
    /// Copies that still have looks of their own.
    closely: Cell<u32>,
    /// When the last look was, in nanoseconds.
    last: Cell<u64>,
}

/// What looks tell of copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CopyTimes {
    /// How many copies may have been slow of those without a look: no more than the time between the looks allows.
    pub(super) unseen: u32,
    /// The most that each of these took.
    pub(super) most: Duration,
    /// The time of the copy that had a look before and behind it, if that was slow.
    pub(super) slow: Option<Duration>,
    /// Its time, if it is one of those that have their latency kept.
    pub(super) sampled: Option<Duration>,
}

impl CopyClock {
    pub(super) const fn new() -> Self {
        Self { left: Cell::new(0), row: Cell::new(0), closely: Cell::new(CLOSELY), last: Cell::new(0) }
    }

    /// As after a pause, and nothing is unseen.
    pub(super) fn renew(&self) {
        self.closely.set(CLOSELY);
        self.begin_row(0);
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

    /// Makes a copy that does not pass. Answers what it answers, and what is to be counted, if anything is.
    pub(super) fn look<T>(
        &self,
        is_sampled: bool,
        now: impl Fn() -> u64,
        copy: impl FnOnce() -> T,
    ) -> (T, Option<CopyTimes>) {
        let begun = now();
        let unseen = self.unseen(begun);
        let pause = begun.saturating_sub(self.last.replace(begun)) > PAUSE;
        self.closely.set(if pause { CLOSELY } else { self.closely.get().saturating_sub(1) });
        if !is_sampled && self.closely.get() == 0 {
            // The first one of a row.
            let answer = copy();
            self.begin_row(1);
            return (answer, unseen);
        }
        let answer = copy();
        let ended = now();
        self.last.set(ended);
        self.begin_row(0);
        let took = ended.saturating_sub(begun);
        let is_slow = took >= SLOW_NS;
        if !is_slow && !is_sampled {
            return (answer, unseen);
        }
        let took = Duration::from_nanos(took);
        let (slow, sampled) = (is_slow.then_some(took), is_sampled.then_some(took));
        (answer, Some(CopyTimes { slow, sampled, ..unseen.unwrap_or_default() }))
    }

    /// Which copies since the last look may have been slow.
    #[inline]
    pub(super) fn unseen(&self, now: u64) -> Option<CopyTimes> {
        let copies = self.row.get().saturating_sub(self.left.get());
        let most = now.saturating_sub(self.last.get());
        if copies == 0 || most < SLOW_NS {
            return None;
        }
        let unseen = u64::from(copies).min(most / SLOW_NS) as u32;
        Some(CopyTimes { unseen, most: Duration::from_nanos(most), ..CopyTimes::default() })
    }

    fn begin_row(&self, copies: u32) {
        let left = if self.closely.get() > 0 { 0 } else { EVERY - 1 };
        self.left.set(left);
        self.row.set(left + copies);
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
            self.slow += u64::from(times.unseen) + u64::from(times.slow.is_some());
            self.sampled += u64::from(times.sampled.is_some());
        }

        /// The thread ends.
        fn end(&mut self) {
            self.count(self.clock.unseen(self.now.get()));
        }
    }

    /// Pauses, and how long the copies after each take.
    fn plan() -> impl Strategy<Value = Vec<(u64, Vec<u64>)>> {
        let pause = prop_oneof![3 => 0..2000_u64, 1 => 0..MS, 1 => 0..20 * MS];
        let takes = prop_oneof![20 => 100..300_u64, 1 => 0..MS, 1 => MS..3 * MS];
        vec((pause, vec(takes, 0..80)), 1..12)
    }

    fn run(copier: &mut Copier, plan: &[(u64, Vec<u64>)]) -> u64 {
        for (pause, copies) in plan {
            copier.pass(*pause);
            copies.iter().for_each(|takes| copier.copy(*takes));
        }
        copier.end();
        plan.iter().flat_map(|(_, copies)| copies).filter(|takes| **takes >= MS).count() as u64
    }

    proptest! {
        #[test]
        fn each_slow_copy_is_counted_wherever_it_stands_in_a_row(plan in plan()) {
            let mut copier = Copier::hurried();
            let slow = run(&mut copier, &plan);
            prop_assert!(copier.slow >= slow, "{} of {slow}", copier.slow);
        }

        #[test]
        fn and_after_a_pause_no_other_is(plan in plan()) {
            let mut copier = Copier::new();
            let slow = run(&mut copier, &plan);
            let near = plan.iter().flat_map(|(_, copies)| copies);
            let near = near.filter(|takes| (990_000..MS).contains(*takes)).count() as u64;
            prop_assert!((slow..=slow + near).contains(&copier.slow), "{} of {slow}", copier.slow);
        }
    }

    #[test]
    fn a_pause_after_a_long_row_counts_no_more_than_it_allows() {
        for (pause, most) in [(MS / 2, 0), (3 * MS / 2, 1), (3 * MS + 1, 3), (1000 * MS, 15)] {
            let mut copier = Copier::hurried();
            copier.pass(pause);
            (0..2 * EVERY).for_each(|_| copier.copy(150));
            assert!(copier.slow <= most, "{pause}: {}", copier.slow);
            let slow = copier.slow;
            (0..1000).for_each(|_| {
                copier.pass(pause);
                copier.copy(150);
            });
            assert_eq!(copier.slow, slow, "{pause}: each has its own looks now");
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

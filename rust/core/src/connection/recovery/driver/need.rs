//! When the task of a connection with one rail looks whether it needs another one.

use crate::connection::rail_need::Trouble;
use crate::rails::{MILLISECOND, RailCounts};

/// The looks of one connection. Without a clock: times are arguments, in nanoseconds of the pool's clock.
///
/// A connection that moves nothing is not looked at. One that does is, more and more seldom: what it has under way changes slowly, and a
/// thousand of them share one event loop.
#[derive(Debug, Default)]
pub(super) struct NeedWatch {
    state: State,
    interval: u64,
    /// The bytes that had ended at the last look.
    done: u64,
    trouble: Trouble,
    /// The completions at the last look, and since when there were no others while something was in flight.
    completions: u64,
    still_since: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// There is no other rail to be made.
    #[default]
    Off,
    Looking {
        at: u64,
    },
    /// A transfer wakes the task. What began while that was arranged is seen by one look more.
    Armed {
        last: Option<u64>,
    },
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Nothing,
    /// Ask whether a rail is to be made.
    Ask,
    /// The same; the rail that there is ends nothing.
    AskStuck,
    /// Have the next transfer wake the task.
    Arm,
}

/// As often as the demand may be asked for, at first; so a burst is seen. Then twice as seldom each time.
const FIRST: u64 = MILLISECOND;
const LONGEST: u64 = 256 * MILLISECOND;

/// A rail that ends nothing for so long carries nothing: the peer's port may be down, which only the peer is told. With a second rail it is asked.
const STILL: u64 = 100 * MILLISECOND;

impl NeedWatch {
    /// There is no other rail to be made, or there are several rails.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// A turn of the task. `is_armed`: no transfer has begun since [`Need::Arm`]; `trouble`: what the rail lacks now; `count` says what its
    /// lanes count.
    pub(super) fn turn(
        &mut self,
        now: u64,
        is_armed: bool,
        trouble: Trouble,
        count: impl FnOnce() -> RailCounts,
    ) -> Need {
        let is_woken = matches!(self.state, State::Armed { .. }) && !is_armed;
        let is_new = is_woken || self.state == State::Off || trouble > self.trouble;
        self.trouble = trouble;
        let is_due = self.deadline().is_some_and(|at| now >= at);
        if !is_new && !is_due {
            return Need::Nothing;
        }
        let counts = count();
        let has_work = counts.bytes_in_flight > 0 || trouble == Trouble::Ends;
        let is_active = has_work || counts.bytes_done != self.done;
        self.done = counts.bytes_done;
        let was_armed = matches!(self.state, State::Armed { .. }) && is_armed;
        let is_quiet = was_armed || self.state == State::Off || self.interval >= LONGEST;
        // What has woken the task may not be counted yet.
        let rests = !is_active && !is_woken && (is_quiet || trouble == Trouble::Lost);
        if rests {
            let last = (!was_armed).then(|| now.saturating_add(LONGEST));
            self.state = State::Armed { last };
            return Need::Arm;
        }
        self.interval = if is_new || was_armed { FIRST } else { (2 * self.interval).clamp(FIRST, LONGEST) };
        self.state = State::Looking { at: now.saturating_add(self.interval) };
        match (has_work, self.is_stuck(now, counts)) {
            (true, true) => Need::AskStuck,
            (true, false) => Need::Ask,
            (false, _) => Need::Nothing,
        }
    }

    fn is_stuck(&mut self, now: u64, counts: RailCounts) -> bool {
        if counts.in_flight == 0 || counts.completions != self.completions {
            (self.completions, self.still_since) = (counts.completions, None);
        }
        let waits = counts.in_flight > 0;
        let since = waits.then(|| *self.still_since.get_or_insert(now));
        since.is_some_and(|since| now.saturating_sub(since) >= STILL)
    }

    /// When to look next.
    pub(super) fn deadline(&self) -> Option<u64> {
        match self.state {
            State::Off => None,
            State::Looking { at } => Some(at),
            State::Armed { last } => last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = MILLISECOND;

    /// A connection in virtual time: its task, and a program that moves `rate` bytes a millisecond until `end`.
    struct World {
        watch: NeedWatch,
        now: u64,
        is_armed: bool,
        trouble: Trouble,
        in_flight: u64,
        done: u64,
        looks: u64,
        asked: Vec<u64>,
    }

    impl World {
        fn new() -> Self {
            let watch = NeedWatch::default();
            let mut world = Self {
                watch,
                now: 0,
                is_armed: false,
                trouble: Trouble::None,
                in_flight: 0,
                done: 0,
                looks: 0,
                asked: vec![],
            };
            world.turn();
            world
        }

        fn turn(&mut self) {
            let (looks, counts) = (
                &mut self.looks,
                RailCounts {
                    bytes_in_flight: self.in_flight,
                    bytes_done: self.done,
                    ..RailCounts::default()
                },
            );
            let count = || {
                *looks += 1;
                counts
            };
            match self.watch.turn(self.now, self.is_armed, self.trouble, count) {
                Need::Nothing => {}
                Need::Ask | Need::AskStuck => self.asked.push(self.now),
                Need::Arm => self.is_armed = true,
            }
        }

        /// A transfer begins, and wakes the task if it must.
        fn begin(&mut self, bytes: u64) {
            self.in_flight += bytes;
            if std::mem::take(&mut self.is_armed) {
                self.turn();
            }
        }

        fn run_until(&mut self, end: u64) {
            while let Some(at) = self.watch.deadline().filter(|at| *at <= end) {
                self.now = self.now.max(at);
                self.turn();
            }
            self.now = end;
        }
    }

    #[test]
    fn a_connection_that_moves_nothing_is_not_looked_at() {
        let mut world = World::new();
        world.run_until(60_000 * MS);
        assert_eq!((world.looks, world.is_armed, world.watch.deadline()), (2, true, None));
    }

    #[test]
    fn the_first_transfer_behind_a_pause_is_seen_at_once() {
        let mut world = World::new();
        world.run_until(5_000 * MS);
        world.begin(1);
        assert_eq!(world.asked, [5_000 * MS]);
        world.run_until(5_004 * MS);
        assert_eq!(world.asked, [5_000 * MS, 5_001 * MS, 5_003 * MS]);
        (world.in_flight, world.done) = (0, 1);
        let looks = world.looks;
        world.run_until(60_000 * MS);
        assert!(world.is_armed && world.looks - looks < 12, "{}", world.looks - looks);
    }

    #[test]
    fn a_busy_connection_is_looked_at_four_times_a_second() {
        let mut world = World::new();
        world.begin(1);
        world.run_until(1_000 * MS);
        let looks = world.looks;
        world.run_until(11_000 * MS);
        assert!((38..42).contains(&(world.looks - looks)), "{}", world.looks - looks);
        assert!(!world.is_armed, "transfers take their shortest path");
    }

    #[test]
    fn a_rail_that_is_lost_is_asked_for_at_once_if_there_is_work() {
        let mut world = World::new();
        world.begin(1);
        world.run_until(10_100 * MS);
        let asked = world.asked.len();
        world.trouble = Trouble::Lost;
        world.turn();
        assert_eq!(world.asked.get(asked), Some(&(10_100 * MS)));
        world.run_until(10_102 * MS);
        assert_eq!(world.asked.get(asked + 1), Some(&(10_101 * MS)), "and again, soon");
    }

    #[test]
    fn a_connection_that_ends_without_another_rail_asks_for_it_without_work() {
        let mut world = World::new();
        world.run_until(5_000 * MS);
        assert!(world.is_armed && world.asked.is_empty());
        world.trouble = Trouble::Ends;
        world.turn();
        world.run_until(5_003 * MS);
        assert_eq!(world.asked, [5_000 * MS, 5_001 * MS, 5_003 * MS], "until it has one");
    }

    #[test]
    fn parts_that_wait_are_looked_at_soon() {
        let mut world = World::new();
        world.begin(1);
        world.run_until(10_100 * MS);
        let looks = world.looks;
        world.trouble = Trouble::Waits;
        world.turn();
        world.run_until(10_132 * MS);
        assert_eq!(world.looks - looks, 6, "at once, and after 1, 3, 7, 15 and 31 ms");
    }

    #[test]
    fn a_rail_that_ends_nothing_is_told_from_one_that_is_busy() {
        let mut watch = NeedWatch::default();
        let mut completions = 0;
        let mut stuck = |completes: bool, now: u64| {
            completions += u64::from(completes);
            let counts =
                RailCounts { bytes_in_flight: 1, in_flight: 1, completions, ..RailCounts::default() };
            watch.turn(now * MS, false, Trouble::None, || counts) == Need::AskStuck
        };
        assert!([0, 1, 3].iter().all(|at| !stuck(true, *at)));
        assert!([7, 15, 31, 63].iter().all(|at| !stuck(false, *at)), "for 60 ms");
        assert!(stuck(false, 127) && stuck(false, 255));
        assert!(!stuck(true, 511), "it goes on");
    }

    /// The task is faster than the transfer that has woken it.
    #[test]
    fn what_is_not_counted_yet_is_seen_a_little_later() {
        let mut world = World::new();
        world.trouble = Trouble::Lost;
        world.run_until(5_000 * MS);
        world.begin(0);
        world.in_flight = 1;
        world.run_until(5_001 * MS);
        assert_eq!(world.asked, [5_001 * MS]);
    }

    #[test]
    fn a_rail_that_is_lost_without_work_is_asked_for_by_the_next_transfer() {
        let mut world = World::new();
        world.begin(1);
        world.run_until(10_000 * MS);
        (world.in_flight, world.done) = (0, 1);
        world.run_until(10_200 * MS);
        world.trouble = Trouble::Lost;
        world.run_until(10_300 * MS);
        world.turn();
        world.run_until(10_900 * MS);
        assert!(world.is_armed);
        let (looks, asked) = (world.looks, world.asked.len());
        world.run_until(60_000 * MS);
        assert_eq!(world.looks, looks, "it costs nothing meanwhile");
        world.begin(1);
        assert_eq!(world.asked.get(asked), Some(&(60_000 * MS)));
    }
}

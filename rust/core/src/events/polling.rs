//! How long a thread polls before it sleeps: while that pays, and while no other thread wants its core.
//!
//! To be woken takes a thread 20 to 50 us on a virtual machine with an idle core; a peer answers a small request within 10.
//! But a thread that polls while cores are short takes its time from the very thread that it waits for. So it polls:
//! * as long as the last waits were short: a short wait that polling missed doubles the time, a long one ends it. Without
//!   traffic, or with little, nothing is polled;
//! * with `sched_yield` every few microseconds. A thread that is ready to run on this core runs then, and the call takes long: the
//!   core is not idle. Then this wait sleeps, for the kernel wakes a thread on an idle core if there is one. Where the call
//!   takes very long, nothing is polled for a while, longer each time;
//! * on more than one processor only.

use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::sync::{Mutex, lock};

/// The first time that is polled after a wait that was short. Shorter ones see the answer to one small request.
const SHORTEST: Duration = Duration::from_micros(25);
/// A `sched_yield` that takes longer has run a thread that is neither the peer's nor one of ours at work: those copy 1 MiB in less.
/// Without another thread it takes 0.3 us; one at `nice -n 19` that is always ready keeps the core for 1 to 4 ms. With 100 us for
/// this, a READ of 4 KiB took 28 us beside a machine's other work where it takes 17 with 300.
const TAKEN: Duration = Duration::from_micros(300);
/// One that takes longer than this has run another thread at work, such as the one that is waited for: two that poll for each
/// other on one core take turns of 100 us, and the kernel does not part them while both are always ready.
const SHARED: Duration = Duration::from_micros(30);
/// How often it is called. To call it between any two looks takes as long as the look itself.
const BETWEEN_YIELDS: Duration = Duration::from_micros(4);
/// How long nothing is polled once the core was taken: at first, and when that goes on. Each try costs the wait that makes it up to
/// 4 ms, so a thread that is always ready takes 8 % of the time at first and 0.4 % in the end.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What the waits of one kind have shown: of a thread, or of the callers of one engine.
#[derive(Debug)]
pub(crate) struct Polling {
    longest: Duration,
    window: Mutex<Window>,
}

/// One wait.
#[derive(Debug)]
pub(crate) struct Wait<'a> {
    polling: &'a Polling,
    began: Instant,
    until: Instant,
    /// When `sched_yield` is called next; `None`: not at all, for a thread that is always ready has just taken the core.
    next_yield: Option<Instant>,
}

impl Polling {
    /// Polls for no longer than `longest`.
    pub(crate) fn new(longest: Duration) -> Self {
        Self { longest, window: Mutex::default() }
    }

    /// A wait begins.
    pub(crate) fn begin(&self) -> Wait<'_> {
        let began = Instant::now();
        let window = *lock(&self.window);
        let time = if has_several_processors() { window.time(began) } else { Duration::ZERO };
        let next_yield = (!window.is_paused(began)).then_some(began);
        Wait { polling: self, began, until: began + time, next_yield }
    }
}

impl Wait<'_> {
    /// Whether to look once more before sleeping. Lets another thread have the core first, if one wants it.
    pub(crate) fn polls_on(&mut self) -> bool {
        let now = Instant::now();
        if now >= self.until {
            return false;
        }
        self.give_way(now);
        true
    }

    /// Between two looks, the next of which comes in any case: lets another thread have the core, if one wants it.
    pub(crate) fn give_way(&mut self, now: Instant) {
        if self.next_yield.is_none_or(|next| now < next) {
            std::hint::spin_loop();
            return;
        }
        thread::yield_now();
        let after = Instant::now();
        self.next_yield = Some(after + BETWEEN_YIELDS);
        if after - now > SHARED {
            self.until = self.began;
        }
        if after - now > TAKEN {
            self.next_yield = None;
            lock(&self.polling.window).note_taken(after);
        }
    }

    /// What was waited for has come, whether it was polled or slept for.
    pub(crate) fn end(self) {
        let waited = self.began.elapsed();
        // Within the time that was polled there is nothing to learn.
        if waited >= self.until - self.began {
            lock(&self.polling.window).note_wait(waited, self.polling.longest);
        }
    }
}

fn has_several_processors() -> bool {
    /// 0: not asked yet. Written and read by any thread, Relaxed: all find the same.
    static SEVERAL: AtomicU8 = AtomicU8::new(0);
    let known = SEVERAL.load(Ordering::Relaxed);
    if known != 0 {
        return known == 2;
    }
    let several = thread::available_parallelism().is_ok_and(|count| count.get() > 1);
    SEVERAL.store(1 + u8::from(several), Ordering::Relaxed);
    several
}

/// The rule.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    length: Duration,
    /// Until when nothing is polled, and how long that was meant to last.
    paused: Option<(Instant, Duration)>,
}

impl Window {
    /// For how long to poll.
    fn time(&self, now: Instant) -> Duration {
        if self.is_paused(now) { Duration::ZERO } else { self.length }
    }

    fn is_paused(&self, now: Instant) -> bool {
        self.paused.is_some_and(|(until, _)| now < until)
    }

    fn note_wait(&mut self, waited: Duration, longest: Duration) {
        if waited > longest {
            self.length = Duration::ZERO;
        } else if waited > self.length {
            self.length = (self.length * 2).clamp(SHORTEST.min(longest), longest);
        }
    }

    fn note_taken(&mut self, now: Instant) {
        let pause = match self.paused {
            Some((until, pause)) if now.saturating_duration_since(until) < LONGEST_PAUSE => {
                (pause * 2).min(LONGEST_PAUSE)
            }
            _ => SHORTEST_PAUSE,
        };
        self.paused = Some((now + pause, pause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_micros(200);

    fn after(waits: &[u64]) -> Duration {
        let mut window = Window::default();
        waits.iter().for_each(|waited| window.note_wait(Duration::from_micros(*waited), LONGEST));
        window.time(Instant::now())
    }

    #[test]
    fn short_waits_are_polled_for_and_long_ones_are_not() {
        assert_eq!(after(&[]), Duration::ZERO);
        assert_eq!(after(&[10]), SHORTEST);
        assert_eq!(after(&[10, 10]), SHORTEST);
        assert_eq!(after(&[30, 30, 60, 150, 150]), LONGEST);
        assert_eq!(after(&[30, 30, 60, 150, 150, 201]), Duration::ZERO);
    }

    #[test]
    fn a_core_that_is_taken_is_not_polled_on_for_longer_and_longer() {
        let (mut window, mut now) = (Window::default(), Instant::now());
        window.note_wait(SHORTEST, LONGEST);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            window.note_taken(now);
            let (until, pause) = window.paused.unwrap();
            assert_eq!((window.time(now), window.time(until)), (Duration::ZERO, SHORTEST));
            pauses.push(pause);
            now = until;
        }
        assert_eq!(pauses.first(), Some(&SHORTEST_PAUSE));
        assert_eq!(pauses.last(), Some(&LONGEST_PAUSE));
        assert!(pauses.is_sorted());
        window.note_taken(now + LONGEST_PAUSE * 2);
        assert_eq!(window.paused.unwrap().1, SHORTEST_PAUSE);
    }

    #[test]
    fn a_longest_time_of_zero_is_never_polled_for() {
        let mut window = Window::default();
        [0, 10, 30]
            .into_iter()
            .for_each(|waited| window.note_wait(Duration::from_micros(waited), Duration::ZERO));
        assert_eq!(window.time(Instant::now()), Duration::ZERO);
    }

    /// A thread that is always ready would get the core for milliseconds at each `sched_yield`.
    #[test]
    fn a_core_that_is_taken_is_not_offered_again_for_a_while() {
        let polling = Polling::new(LONGEST);
        assert!(polling.begin().next_yield.is_some());
        lock(&polling.window).note_taken(Instant::now() + Duration::from_secs(60));
        let mut wait = polling.begin();
        assert_eq!(wait.next_yield, None);
        wait.give_way(Instant::now());
        assert_eq!(wait.next_yield, None);
    }

    #[test]
    fn a_wait_without_a_window_looks_no_second_time() {
        let polling = Polling::new(LONGEST);
        let mut wait = polling.begin();
        assert!(!wait.polls_on());
        wait.end();
    }
}

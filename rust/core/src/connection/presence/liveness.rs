//! Liveness of a peer without a visible process: the rules alone.

use std::time::{Duration, Instant};

/// Decides when to ping a silent peer and when to declare it lost. Has no clock and no socket.
///
/// The peer is pinged after one period without data from it and again a period later; after the third period it is
/// declared lost. Any data from the peer counts, so of two sides that watch each other mostly only one sends pings.
#[derive(Debug)]
pub(super) struct Liveness {
    period: Duration,
    /// When data of the peer was last received, or when the silence was last excused by a stop of this process.
    received: Instant,
    /// Pings sent since.
    silent: u32,
    /// Start of the ticks, which are the same for all connections of the process.
    epoch: Instant,
}

/// The step to take now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LivenessStep {
    /// Nothing is due.
    Wait,
    /// Send a ping on one connection.
    Ping,
    /// Send a ping on every connection: it is the last one.
    PingAll,
    /// The peer is lost.
    Gone,
}

impl Liveness {
    /// A peer that is alive now, and is declared lost after a third of `keepalive` without data, but not before three
    /// of the shortest periods. `epoch` is the same for all connections.
    pub(super) fn new(keepalive: Duration, epoch: Instant, now: Instant) -> Self {
        let period = (keepalive / PERIODS).max(SHORTEST_PERIOD);
        Self { period, received: now, silent: 0, epoch }
    }

    /// Data of the peer was received.
    pub(super) fn received(&mut self, now: Instant) {
        self.received = now;
        self.silent = 0;
    }

    /// The step to take at `now`. Data received until then must have been reported before.
    pub(super) fn check(&mut self, now: Instant) -> LivenessStep {
        let due = self.next();
        if now < due {
            return LivenessStep::Wait;
        }
        // This check is so late that the process or the machine must have been stopped, maybe together with the peer.
        // The peer's data may not have arrived yet.
        if now >= due + self.period {
            self.received(now);
        } else if self.silent == UNANSWERED_PINGS {
            return LivenessStep::Gone;
        }
        self.silent += 1;
        if self.silent == UNANSWERED_PINGS { LivenessStep::PingAll } else { LivenessStep::Ping }
    }

    /// When to call [`Liveness::check`] next.
    pub(super) fn next(&self) -> Instant {
        let due = self.received + self.period * (self.silent + 1);
        if self.silent == UNANSWERED_PINGS { due } else { self.tick_before(due) }
    }

    /// The silence after which a peer is declared lost.
    pub(super) fn limit(&self) -> Duration {
        self.period * (UNANSWERED_PINGS + 1)
    }

    /// Rounds down to a tick: so many idle connections wake the loop a few times per period, not once each.
    fn tick_before(&self, time: Instant) -> Instant {
        let tick = (self.period / TICKS).as_nanos().max(1);
        let over = time.saturating_duration_since(self.epoch).as_nanos() % tick;
        time - Duration::from_nanos(u64::try_from(over).unwrap_or_default())
    }
}

/// Periods in the keepalive time, after which the kernel gives up a silent host as well.
const PERIODS: u32 = 9;

/// Unanswered pings before a peer is declared lost.
const UNANSWERED_PINGS: u32 = 2;

/// The shortest period: with a shorter one a busy process would be taken for a dead one.
const SHORTEST_PERIOD: Duration = Duration::from_millis(50);

/// Ticks in a period.
const TICKS: u32 = 8;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const KEEPALIVE: Duration = Duration::from_secs(9);
    const PERIOD: Duration = Duration::from_secs(1);

    /// Runs checks at the times that `next` gives, until the peer is declared lost.
    fn run(liveness: &mut Liveness, received: impl Fn(Instant) -> Option<Instant>) -> (Instant, usize) {
        let mut asked = 0;
        loop {
            let now = liveness.next();
            if let Some(time) = received(now) {
                liveness.received(time);
            }
            match liveness.check(now) {
                LivenessStep::Wait => {}
                LivenessStep::Ping | LivenessStep::PingAll => asked += 1,
                LivenessStep::Gone => return (now, asked),
            }
        }
    }

    #[test]
    fn a_peer_that_falls_silent_is_missed_after_a_third_of_the_keepalive_time() {
        let epoch = Instant::now();
        let start = epoch + Duration::from_millis(4321);
        let mut liveness = Liveness::new(KEEPALIVE, epoch, start);
        assert_eq!(liveness.limit(), KEEPALIVE / 3);
        assert_eq!(liveness.check(start + PERIOD / 2), LivenessStep::Wait);
        assert_eq!(run(&mut liveness, |_| None), (start + KEEPALIVE / 3, 2));
    }

    /// For example from a peer that drains a lane meanwhile.
    #[test]
    fn an_answer_within_two_periods_of_the_first_question_is_early_enough() {
        let start = Instant::now();
        let mut liveness = Liveness::new(KEEPALIVE, start, start);
        let mut now = start;
        for _ in 0..1000 {
            now = liveness.next();
            assert_eq!(liveness.check(now), LivenessStep::Ping);
            assert_eq!(liveness.check(liveness.next()), LivenessStep::PingAll);
            let answered = now + 2 * PERIOD - Duration::from_millis(1);
            assert_eq!(liveness.check(answered), LivenessStep::Wait);
            liveness.received(answered);
        }
        assert!(now > start + 1000 * PERIOD);
    }

    #[test]
    fn a_peer_that_sends_all_the_time_is_not_pinged() {
        let start = Instant::now();
        let mut liveness = Liveness::new(KEEPALIVE, start, start);
        for tenth in 0..1000 {
            let now = start + tenth * (PERIOD / 10);
            assert_eq!(liveness.check(now), LivenessStep::Wait);
            liveness.received(now);
        }
    }

    #[test]
    fn a_process_that_was_stopped_itself_asks_before_it_gives_up() {
        let start = Instant::now();
        for questions in 0..=UNANSWERED_PINGS {
            let mut liveness = Liveness::new(KEEPALIVE, start, start);
            for _ in 0..questions {
                assert_ne!(liveness.check(liveness.next()), LivenessStep::Wait);
            }
            let woken = start + Duration::from_secs(3600);
            assert_eq!(liveness.check(woken), LivenessStep::Ping);
            assert_eq!(run(&mut liveness, |_| None).0, woken + KEEPALIVE / 3);
        }
    }

    #[test]
    fn a_thousand_idle_connections_wake_the_loop_a_few_times_a_period() {
        let epoch = Instant::now();
        let connections =
            (0..1000).map(|n| Liveness::new(KEEPALIVE, epoch, epoch + n * Duration::from_micros(1777)));
        let wakes: BTreeSet<_> = connections.map(|liveness| liveness.next()).collect();
        // They were made within 1.8 periods.
        assert!(wakes.len() <= 2 * TICKS as usize, "{} times", wakes.len());
    }

    proptest! {
        /// Whatever the peer sends and when, it is declared lost a third of the keepalive time after its last data
        /// and not before, and checks are not more frequent than periods and data.
        #[test]
        fn silence_is_what_ends_it(
            keepalive_ms in 1u64..100_000,
            offset in 0u64..1_000_000,
            gaps in proptest::collection::vec(0u64..3000, 0..30),
        ) {
            let epoch = Instant::now();
            let keepalive = Duration::from_millis(keepalive_ms);
            let mut liveness = Liveness::new(keepalive, epoch, epoch + Duration::from_micros(offset));
            let limit = liveness.limit();
            prop_assert!(limit <= keepalive / 3 || keepalive < PERIODS * SHORTEST_PERIOD);
            let mut now = epoch + Duration::from_micros(offset);
            for gap in gaps {
                // In thousandths of the limit: longer gaps end it.
                let word = now + limit * gap.min(999) as u32 / 1000;
                while liveness.next() < word {
                    prop_assert!(matches!(liveness.check(liveness.next()), LivenessStep::Ping | LivenessStep::PingAll));
                }
                liveness.received(word);
                now = word;
            }
            let (end, asked) = run(&mut liveness, |_| None);
            prop_assert_eq!((end, asked), (now + limit, UNANSWERED_PINGS as usize));
        }
    }
}

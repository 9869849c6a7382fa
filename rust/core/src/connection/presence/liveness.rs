//! Whether a peer whose process cannot be watched is still there: the rules alone.

use std::time::{Duration, Instant};

/// Pings while nothing is heard, and the end after that. Has no clock and no socket.
///
/// The peer is asked when it has been silent for a period and once more a period later; after the third one it is taken to
/// be gone. Whatever it says counts as life, so of two that ask each other one mostly hears the other's question and need
/// not ask.
#[derive(Debug)]
pub(super) struct Liveness {
    period: Duration,
    /// When the peer was last heard, or last given the benefit of the doubt.
    received: Instant,
    /// Periods of silence since that were acted on.
    silent: u32,
    /// Where the times of all connections of the process fall on the same beats.
    epoch: Instant,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LivenessStep {
    /// Nothing yet.
    Wait,
    /// Ask whether it is there.
    Ping,
    /// Ask on every way that there is: it is the last time.
    PingAll,
    /// It is gone.
    Gone,
}

impl Liveness {
    /// A peer that is there now, and is missed within a third of `keepalive`; but not within less than three of the
    /// shortest periods. `epoch` is the same for all connections.
    pub(super) fn new(keepalive: Duration, epoch: Instant, now: Instant) -> Self {
        let period = (keepalive / PERIODS).max(SHORTEST_PERIOD);
        Self { period, received: now, silent: 0, epoch }
    }

    /// The peer has said something.
    pub(super) fn received(&mut self, now: Instant) {
        self.received = now;
        self.silent = 0;
    }

    /// What is to be done now. Everything that the peer has said until then has been reported before.
    pub(super) fn check(&mut self, now: Instant) -> LivenessStep {
        let due = self.next();
        if now < due {
            return LivenessStep::Wait;
        }
        // Nobody has looked for so long that this process, or the machine, has been stopped, maybe together with the peer.
        // What it would have said meanwhile may not be here yet.
        if now >= due + self.period {
            self.received(now);
        } else if self.silent == UNANSWERED_PINGS {
            return LivenessStep::Gone;
        }
        self.silent += 1;
        if self.silent == UNANSWERED_PINGS { LivenessStep::PingAll } else { LivenessStep::Ping }
    }

    /// When to look next.
    pub(super) fn next(&self) -> Instant {
        let due = self.received + self.period * (self.silent + 1);
        if self.silent == UNANSWERED_PINGS { due } else { self.tick_before(due) }
    }

    /// How long a peer is silent when it is given up.
    pub(super) fn limit(&self) -> Duration {
        self.period * (UNANSWERED_PINGS + 1)
    }

    /// Questions wait for no beat, they come sooner: so many connections that are idle wake the loop a few times a period,
    /// and not once each.
    fn tick_before(&self, time: Instant) -> Instant {
        let tick = (self.period / TICKS).as_nanos().max(1);
        let over = time.saturating_duration_since(self.epoch).as_nanos() % tick;
        time - Duration::from_nanos(u64::try_from(over).unwrap_or_default())
    }
}

/// Periods in the time after which the kernel, too, gives up a host that is silent.
const PERIODS: u32 = 9;

/// Questions without an answer before the end.
const UNANSWERED_PINGS: u32 = 2;

/// Shorter ones would take a busy process for a dead one.
const SHORTEST_PERIOD: Duration = Duration::from_millis(50);

/// Beats in a period.
const TICKS: u32 = 8;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const KEEPALIVE: Duration = Duration::from_secs(9);
    const PERIOD: Duration = Duration::from_secs(1);

    /// What a driver that looks when it is told to does, until the peer is given up.
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

    /// Such as one that drains a lane meanwhile.
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
        /// Whatever the peer says and when, it is given up at the third part of the keepalive time after its last word and
        /// not before, and nobody looks more often than there are periods and words.
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

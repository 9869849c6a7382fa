//! When the link under the control channel is checked behind a port of this host that has gone down.

use std::time::{Duration, Instant};

use crate::control::resume::pause;

/// How long after a port has gone down a link that is there is checked: drivers tell of the port and of the network interface in any
/// order.
const CHECKS_FOR: Duration = Duration::from_secs(1);
/// Between the first checks; then twice as long each time, as each one reads the state of all interfaces.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The checks that are due. Times are arguments.
#[derive(Debug, Default)]
pub(super) struct PortChecks {
    /// Since when the port is down that went down last.
    down: Option<Instant>,
    /// When the next check is due, and the pause behind it.
    next: Option<(Instant, Duration)>,
    /// Checks of the lost link in which no way answered.
    pub(super) without_way: u32,
}

impl PortChecks {
    /// A port is down since then.
    pub(super) fn port_is_down(&mut self, since: Instant) {
        if self.down.is_none_or(|down| down < since) {
            *self = Self { down: Some(since), next: Some((since, FIRST_PAUSE)), without_way: 0 };
        }
    }

    /// A check has found that the link is lost, and no other way. The host may have one later, so checks go on as rounds of dialling do, as long as
    /// the channel is not missed by its pings.
    pub(super) fn no_way_answers(&mut self, now: Instant) {
        let pause = pause(self.without_way);
        self.without_way = self.without_way.saturating_add(1);
        self.next.get_or_insert((now + pause, pause));
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next.map(|(at, _)| at)
    }

    /// Whether a check is due, which is made then.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let (Some((at, pause)), Some(down)) = (self.next, self.down) else { return false };
        if now < at {
            return false;
        }
        self.next = (now < down + CHECKS_FOR).then_some((now + pause, 2 * pause));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::resume::try_limit;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// The times of checks, in milliseconds, where a port goes down at the beginning and again after `again`.
    fn checks(again: Option<Duration>) -> Vec<u128> {
        let (begin, mut checks, mut found) = (Instant::now(), PortChecks::default(), Vec::new());
        checks.port_is_down(begin);
        while let Some(now) = checks.deadline() {
            assert!(!checks.take(now - MILLISECOND));
            if let Some(since) = again.map(|again| begin + again).filter(|since| *since <= now) {
                checks.port_is_down(since);
            }
            if checks.take(now) {
                found.push(now.duration_since(begin).as_millis());
            }
        }
        found
    }

    #[test]
    fn checks_are_few_and_end() {
        assert_eq!(checks(None), [0, 10, 30, 70, 150, 310, 630, 1270]);
        let again = checks(Some(300 * MILLISECOND));
        assert_eq!(again, [0, 10, 30, 70, 150, 310, 320, 340, 380, 460, 620, 940, 1580]);
    }

    /// As long as no way answers; answers may take longer and longer.
    #[test]
    fn a_lost_link_without_another_way_is_checked_on_and_on() {
        let (begin, mut checks, mut found) = (Instant::now(), PortChecks::default(), Vec::new());
        checks.port_is_down(begin);
        while let Some(now) = checks.deadline().filter(|at| *at < begin + Duration::from_secs(5)) {
            assert!(checks.take(now));
            found.push((now.duration_since(begin).as_millis(), try_limit(checks.without_way).as_millis()));
            checks.no_way_answers(now);
        }
        let expected = [
            (0, 300),
            (10, 600),
            (30, 1200),
            (70, 2400),
            (150, 3000),
            (310, 3000),
            (630, 3000),
            (1270, 3000),
            (2270, 3000),
            (3270, 3000),
            (4270, 3000),
        ];
        assert_eq!(found, expected);
        checks.port_is_down(begin + Duration::from_secs(5));
        assert_eq!(checks.without_way, 0, "another fault");
    }
}

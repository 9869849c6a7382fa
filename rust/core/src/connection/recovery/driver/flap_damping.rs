//! Channels that are lost again soon after they were made: a peer, or a box on the way, that takes each one up and ends it must not have
//! the two ends dial, and log, as fast as the network permits, nor keep the connection for longer than its limit.

use std::time::{Duration, Instant};

use crate::control::resume::pause;

/// A channel that lives longer is not damping.
const LIFE: Duration = Duration::from_secs(1);
/// So many in a row that live for less are made anew at once: paths that fail one after the other are no reason to wait.
const FREE: u32 = 8;

#[derive(Debug, Default)]
pub(super) struct FlapDamping {
    /// When the channel was made anew.
    made: Option<Instant>,
    /// Channels in a row that have lived for less than [`LIFE`].
    count: u32,
    /// For how long it was away before them.
    away: Duration,
}

impl FlapDamping {
    /// It is lost `now`.
    pub(super) fn lost(&mut self, now: Instant) {
        match self.made.filter(|made| now.duration_since(*made) < LIFE) {
            Some(_) => self.count += 1,
            None => *self = Self::default(),
        }
    }

    /// It is made anew `now`, after `away`.
    pub(super) fn made(&mut self, away: Duration, now: Instant) {
        (self.made, self.away) = (Some(now), self.away + away);
    }

    /// How many pauses are behind it.
    pub(super) fn round(&self) -> u32 {
        self.count.saturating_sub(FREE)
    }

    /// What is gone of the limit.
    pub(super) fn spent(&self) -> Duration {
        if self.round() == 0 { Duration::ZERO } else { self.away }
    }

    /// Until when no other one is taken up, if that is after `now`.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let next = self.made.filter(|_| self.count >= FREE)? + pause(0);
        (next > now).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that is resumed and dies at once, as often as it may: the number of tries, and the time, are bounded.
    #[test]
    fn channels_that_die_at_once_come_to_an_end() {
        let (start, limit) = (Instant::now(), Duration::from_secs(30));
        let (mut now, mut damping, mut made) = (start, FlapDamping::default(), 0);
        loop {
            damping.lost(now);
            if damping.spent() >= limit {
                break;
            }
            let round = damping.round();
            let away = if round == 0 { Duration::from_micros(100) } else { pause(round - 1) };
            now += away;
            damping.made(away, now);
            made += 1;
        }
        assert!(made < 60, "{made} channels");
        assert!(now.duration_since(start) < 2 * limit);
        now += LIFE;
        damping.lost(now);
        assert_eq!((damping.round(), damping.spent()), (0, Duration::ZERO), "a longer life ends the row");
    }

    #[test]
    fn a_peer_that_dials_without_end_is_not_taken_up_each_time() {
        let now = Instant::now();
        let mut damping = FlapDamping::default();
        for _ in 0..=FREE {
            assert_eq!(damping.next(now), None);
            damping.lost(now);
            damping.made(Duration::ZERO, now);
        }
        assert_eq!(damping.next(now), Some(now + pause(0)));
        assert_eq!(damping.next(now + pause(0)), None);
    }
}

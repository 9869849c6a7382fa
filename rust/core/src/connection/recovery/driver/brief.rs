//! Channels that are lost again soon after they were made: a peer, or a box on the way, that takes each one up and ends it must not have
//! the two ends dial, and log, as fast as the network permits, nor keep the connection for longer than its limit.

use std::time::{Duration, Instant};

use crate::control::resume::pause;

/// A channel that lives longer is not brief.
const LIFE: Duration = Duration::from_secs(1);
/// Brief ones in a row that are made anew at once: paths that fail one after the other are no reason to wait.
const FREE: u32 = 8;

#[derive(Debug, Default)]
pub(super) struct Brief {
    /// When the channel was made anew.
    made: Option<Instant>,
    /// Brief ones in a row.
    count: u32,
    /// For how long it was away before them.
    away: Duration,
}

impl Brief {
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
        let (mut now, mut brief, mut made) = (start, Brief::default(), 0);
        loop {
            brief.lost(now);
            if brief.spent() >= limit {
                break;
            }
            let round = brief.round();
            let away = if round == 0 { Duration::from_micros(100) } else { pause(round - 1) };
            now += away;
            brief.made(away, now);
            made += 1;
        }
        assert!(made < 60, "{made} channels");
        assert!(now.duration_since(start) < 2 * limit);
        now += LIFE;
        brief.lost(now);
        assert_eq!((brief.round(), brief.spent()), (0, Duration::ZERO), "a longer life ends the row");
    }

    #[test]
    fn a_peer_that_dials_without_end_is_not_taken_up_each_time() {
        let now = Instant::now();
        let mut brief = Brief::default();
        for _ in 0..=FREE {
            assert_eq!(brief.next(now), None);
            brief.lost(now);
            brief.made(Duration::ZERO, now);
        }
        assert_eq!(brief.next(now), Some(now + pause(0)));
        assert_eq!(brief.next(now + pause(0)), None);
    }
}

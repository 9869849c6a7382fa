//! When the leader dials the follower over which way while their channel is away. Times are arguments.

use std::time::{Duration, Instant};

use super::ways::Way;
use crate::control::socket::listed;

/// Pause between the first rounds over all ways.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Pause between rounds at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long a try may take: a path that drops everything must not keep the next one from its turn. The second round has twice
/// that, and so on.
const FIRST_TRY: Duration = Duration::from_millis(300);
/// How long one of later rounds may take.
const LONGEST_TRY: Duration = Duration::from_secs(3);

/// A channel that is away.
#[derive(Debug)]
pub struct Redialing {
    since: Instant,
    limit: Duration,
    /// Those of the round; empty until they are found.
    ways: Vec<Way>,
    /// The one that is next, and when.
    next: usize,
    at: Instant,
    round: u32,
    tries: u32,
    /// How the last try of each way has failed.
    failures: Vec<(Way, String)>,
}

/// The pause after so many rounds.
pub fn pause(round: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << round.min(8)).min(LONGEST_PAUSE)
}

/// How long a try may take in a round.
pub fn try_limit(round: u32) -> Duration {
    FIRST_TRY.saturating_mul(1 << round.min(8)).min(LONGEST_TRY)
}

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// A round begins: the ways are to be found, for [`Redialing::found`].
    Ways,
    /// A try.
    Try(Try),
}

/// A try that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    /// Over which way.
    pub way: Way,
    /// Until when.
    pub deadline: Instant,
}

impl Redialing {
    /// The channel was lost `now`, and has been before after a short time: `round` rounds of pauses are behind it.
    pub fn new(limit: Duration, round: u32, now: Instant) -> Self {
        let at = if round == 0 { now } else { now + pause(round - 1) };
        Self { since: now, limit, ways: Vec::new(), next: 0, at, round, tries: 0, failures: Vec::new() }
    }

    /// What is due, unless it is under way: the caller calls [`Redialing::found`] or [`Redialing::failed`] before it asks again.
    pub fn due(&mut self, now: Instant) -> Option<Due> {
        if now < self.at || self.is_over(now) {
            return None;
        }
        let Some(way) = self.ways.get(self.next) else { return Some(Due::Ways) };
        self.tries += 1;
        let deadline = (now + try_limit(self.round)).min(self.since + self.limit);
        Some(Due::Try(Try { way: way.clone(), deadline }))
    }

    /// The ways of a round.
    pub fn found(&mut self, ways: Vec<Way>, now: Instant) {
        self.failures.retain(|(way, _)| ways.contains(way));
        (self.ways, self.next) = (ways, 0);
        self.end_round(now);
    }

    /// The try that was due has failed.
    pub fn failed(&mut self, way: &Way, why: &str, now: Instant) {
        self.failures.retain(|(other, _)| other != way);
        self.failures.push((way.clone(), why.to_owned()));
        self.next += 1;
        self.at = now;
        self.end_round(now);
    }

    /// After the last way of a round there is a pause, and the host's addresses may be others then.
    fn end_round(&mut self, now: Instant) {
        if self.next >= self.ways.len() {
            self.ways.clear();
            self.next = 0;
            self.at = now + pause(self.round);
            self.round += 1;
        }
    }

    /// When the next try is due, or the time is over.
    pub fn deadline(&self) -> Instant {
        self.at.min(self.since + self.limit)
    }

    /// Whether the channel has been away for as long as it may.
    pub fn is_over(&self, now: Instant) -> bool {
        now >= self.since + self.limit
    }

    /// It is given up at `end`, if not before.
    pub fn end_by(&mut self, end: Instant) {
        self.limit = self.limit.min(end.saturating_duration_since(self.since));
    }

    /// How often it was dialled.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// How often it was dialled, and why each way failed the last time.
    pub fn summary(&self) -> String {
        let failures = match self.failures.is_empty() {
            true => "no try has ended".to_owned(),
            false => listed(self.failures.iter().map(|(way, why)| format!("{way}: {why}"))),
        };
        format!("dialled {} times in {} ms: {failures}", self.tries, self.limit.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;

    fn way(last: u8) -> Way {
        Way { source: None, target: SocketAddr::from(([192, 0, 2, last], 7000)) }
    }

    fn redialing(ways: &[u8], limit: Duration, round: u32, now: Instant) -> Redialing {
        let mut redialing = Redialing::new(limit, round, now);
        assert_eq!(redialing.due(redialing.at), Some(Due::Ways));
        redialing.found(ways.iter().copied().map(way).collect(), redialing.at);
        redialing
    }

    fn due_way(redialing: &mut Redialing, now: Instant) -> Option<Way> {
        match redialing.due(now)? {
            Due::Try(due) => Some(due.way),
            Due::Ways => None,
        }
    }

    #[test]
    fn each_way_has_its_turn_and_the_next_round_finds_them_anew() {
        let now = Instant::now();
        let mut redialing = redialing(&[2, 3, 1], Duration::from_secs(5), 0, now);
        for last in [2, 3, 1] {
            assert_eq!(due_way(&mut redialing, now), Some(way(last)));
            redialing.failed(&way(last), "no route", now);
        }
        assert_eq!(redialing.due(now), None, "a round is over");
        let later = now + FIRST_PAUSE;
        assert_eq!(redialing.deadline(), later);
        assert_eq!(redialing.due(later), Some(Due::Ways));
        redialing.found(vec![way(3)], later);
        assert_eq!(due_way(&mut redialing, later), Some(way(3)));
        let summary = redialing.summary();
        assert_eq!(summary, "dialled 4 times in 5000 ms: 192.0.2.3:7000: no route");
        assert!(redialing.is_over(now + Duration::from_secs(5)));
    }

    #[test]
    fn it_may_be_ended_sooner_and_not_later() {
        let now = Instant::now();
        let mut redialing = redialing(&[1], Duration::from_secs(60), 0, now);
        redialing.end_by(now + Duration::from_secs(70));
        assert!(!redialing.is_over(now + Duration::from_secs(59)));
        assert!(redialing.is_over(now + Duration::from_secs(60)));
        redialing.end_by(now + Duration::from_millis(100));
        let Some(Due::Try(due)) = redialing.due(now) else { panic!("a try is due") };
        assert_eq!(due.deadline, now + Duration::from_millis(100), "a try as well");
        assert!(redialing.is_over(due.deadline));
    }

    #[test]
    fn a_channel_that_fails_at_once_again_is_not_dialled_at_once_again() {
        let now = Instant::now();
        let mut redialing = Redialing::new(Duration::from_secs(9), 3, now);
        assert_eq!((redialing.due(now), redialing.deadline()), (None, now + 4 * FIRST_PAUSE));
        let then = now + 4 * FIRST_PAUSE;
        assert_eq!(redialing.due(then), Some(Due::Ways));
        redialing.found(vec![way(1)], then);
        assert_eq!(due_way(&mut redialing, then), Some(way(1)));
        redialing.failed(&way(1), "refused", then);
        assert_eq!(redialing.deadline(), now + 12 * FIRST_PAUSE, "the next pause is longer");
    }

    proptest! {
        /// Tries are as rare as they are said to be, never after the limit, and none lasts longer. With no way too.
        #[test]
        fn tries_are_bounded(count in 0..5_u8, limit in 1..20_000_u64, lasts in 0..400_u64) {
            let (start, limit) = (Instant::now(), Duration::from_millis(limit));
            let mut redialing = Redialing::new(limit, 0, start);
            let (mut now, mut rounds) = (start, 0_u32);
            while !redialing.is_over(now) {
                prop_assert!(redialing.deadline() <= start + limit);
                match redialing.due(now) {
                    Some(Due::Ways) => {
                        rounds += 1;
                        redialing.found((0..count).map(way).collect(), now);
                    }
                    Some(Due::Try(due)) => {
                        prop_assert!(due.deadline <= start + limit && due.deadline > now);
                        now = (now + Duration::from_millis(lasts)).min(due.deadline);
                        redialing.failed(&due.way, "refused", now);
                    }
                    None => now = redialing.deadline(),
                }
            }
            prop_assert!(redialing.due(now).is_none());
            prop_assert!(redialing.tries() <= rounds * u32::from(count));
            prop_assert!(rounds < 30);
        }
    }
}

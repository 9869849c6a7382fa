//! When the leader dials which address of the follower while their channel is away. Times are arguments.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Pause between the first rounds over all addresses.
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
    addresses: Vec<SocketAddr>,
    since: Instant,
    limit: Duration,
    /// The address that is dialled next, and when.
    next: usize,
    at: Instant,
    round: u32,
    tries: u32,
    /// How the last try of each address has failed.
    failures: Vec<(SocketAddr, String)>,
}

/// The pause after so many rounds.
pub fn pause(round: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << round.min(8)).min(LONGEST_PAUSE)
}

/// A try that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Try {
    /// Where.
    pub address: SocketAddr,
    /// Until when.
    pub deadline: Instant,
}

impl Redialing {
    /// The channel was lost `now`, and has been before after a short time: `round` rounds of pauses are behind it. Of `addresses` the one that the channel had comes last: it may be what has failed.
    pub fn new(
        addresses: &[SocketAddr],
        former: SocketAddr,
        limit: Duration,
        round: u32,
        now: Instant,
    ) -> Self {
        let mut addresses = addresses.to_vec();
        let at = if round == 0 { now } else { now + pause(round - 1) };
        addresses.sort_by_key(|address| address.ip() == former.ip());
        Self { addresses, since: now, limit, next: 0, at, round, tries: 0, failures: Vec::new() }
    }

    /// The try that is due, unless one is under way: the caller calls [`Redialing::failed`] before it asks again.
    pub fn due(&mut self, now: Instant) -> Option<Try> {
        if now < self.at || self.is_over(now) {
            return None;
        }
        let address = *self.addresses.get(self.next)?;
        self.tries += 1;
        let longest = FIRST_TRY.saturating_mul(1 << self.round.min(8)).min(LONGEST_TRY);
        Some(Try { address, deadline: (now + longest).min(self.since + self.limit) })
    }

    /// The try that was due has failed.
    pub fn failed(&mut self, address: SocketAddr, why: &str, now: Instant) {
        self.failures.retain(|(other, _)| *other != address);
        self.failures.push((address, why.to_owned()));
        self.next += 1;
        self.at = now;
        if self.next >= self.addresses.len() {
            self.next = 0;
            self.at = now + pause(self.round);
            self.round += 1;
        }
    }

    /// When the next try is due, or the time is over.
    pub fn deadline(&self) -> Instant {
        let over = self.since + self.limit;
        if self.addresses.is_empty() { over } else { self.at.min(over) }
    }

    /// Whether the channel has been away for as long as it may.
    pub fn is_over(&self, now: Instant) -> bool {
        now >= self.since + self.limit
    }

    /// How often it was dialled.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// How often it was dialled, and why each address failed the last time.
    pub fn summary(&self) -> String {
        let failures: Vec<_> =
            self.failures.iter().map(|(address, why)| format!("{address}: {why}")).collect();
        let failures = if failures.is_empty() { "no try has ended".to_owned() } else { failures.join("; ") };
        format!("dialled {} times in {} ms: {failures}", self.tries, self.limit.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 7000))
    }

    #[test]
    fn other_addresses_come_first_and_each_has_its_turn() {
        let now = Instant::now();
        let former = SocketAddr::from(([192, 0, 2, 1], 9999));
        let mut redialing =
            Redialing::new(&[address(1), address(2), address(3)], former, Duration::from_secs(5), 0, now);
        for (turn, last) in [2, 3, 1].into_iter().enumerate() {
            assert_eq!(redialing.due(now).map(|due| due.address), Some(address(last)), "{turn}");
            redialing.failed(address(last), "no route", now);
        }
        assert_eq!(redialing.due(now), None, "a round is over");
        assert_eq!(redialing.deadline(), now + FIRST_PAUSE);
        assert_eq!(redialing.due(now + FIRST_PAUSE).map(|due| due.address), Some(address(2)));
        let summary = redialing.summary();
        assert!(summary.starts_with("dialled 4 times in 5000 ms: 192.0.2.2:7000: no route; "), "{summary}");
        assert!(redialing.is_over(now + Duration::from_secs(5)));
    }

    #[test]
    fn a_peer_that_has_told_no_address_is_not_dialled() {
        let now = Instant::now();
        let mut redialing = Redialing::new(&[], address(1), Duration::from_secs(1), 0, now);
        assert_eq!((redialing.due(now), redialing.tries()), (None, 0));
        assert_eq!(redialing.deadline(), now + Duration::from_secs(1), "there is nothing to do before");
    }

    #[test]
    fn a_channel_that_fails_at_once_again_is_not_dialled_at_once_again() {
        let now = Instant::now();
        let mut redialing = Redialing::new(&[address(1)], address(1), Duration::from_secs(9), 3, now);
        assert_eq!((redialing.due(now), redialing.deadline()), (None, now + 4 * FIRST_PAUSE));
        assert!(redialing.due(now + 4 * FIRST_PAUSE).is_some());
        redialing.failed(address(1), "refused", now + 4 * FIRST_PAUSE);
        assert_eq!(redialing.deadline(), now + 12 * FIRST_PAUSE, "the next pause is longer");
    }

    proptest! {
        /// Tries are as rare as they are said to be, never after the limit, and none lasts longer.
        #[test]
        fn tries_are_bounded(count in 1..5_u8, limit in 1..20_000_u64, lasts in 0..400_u64) {
            let (start, limit) = (Instant::now(), Duration::from_millis(limit));
            let addresses: Vec<_> = (0..count).map(address).collect();
            let mut redialing = Redialing::new(&addresses, address(0), limit, 0, start);
            let (mut now, mut rounds) = (start, 0_u32);
            while !redialing.is_over(now) {
                prop_assert!(redialing.deadline() <= start + limit);
                match redialing.due(now) {
                    Some(due) => {
                        prop_assert!(due.deadline <= start + limit && due.deadline > now);
                        now = (now + Duration::from_millis(lasts)).min(due.deadline);
                        redialing.failed(due.address, "refused", now);
                    }
                    None => {
                        rounds += 1;
                        now = redialing.deadline();
                    }
                }
            }
            prop_assert!(redialing.due(now).is_none());
            prop_assert!(redialing.tries() <= (rounds + 1) * u32::from(count));
            prop_assert!(rounds < 30);
        }
    }
}

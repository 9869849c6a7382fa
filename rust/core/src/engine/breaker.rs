//! Keeps callers from waiting for a peer that has just refused: the circuit breaker of one session.
//!
//! ```text
//! closed ──connect fails──▶ open: calls fail at once ──window over──▶ one caller probes, the others fail at once
//!   ▲                         ▲                                         │ fails: the window doubles
//!   └────connect succeeds─────┴─────────────────────────────────────────┘
//! ```
//! One per peer, so a peer that is down costs only its own callers anything.

use std::time::{Duration, Instant};

/// Window after the first failure.
const FIRST_WINDOW: Duration = Duration::from_millis(100);
/// Longest window: a peer that comes back is found again within this time.
const LONGEST_WINDOW: Duration = Duration::from_secs(5);

/// The state towards one peer.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// Connects that failed in a row.
    failures: u32,
    /// While open: when the next caller may try.
    open_until: Option<Instant>,
    /// A caller is trying, and the last attempt had failed.
    probing: bool,
    last: String,
}

/// Why a call may not connect now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Open {
    /// Connects that failed in a row.
    pub(super) failures: u32,
    /// When the next one is tried; zero when one is under way.
    pub(super) retry_in: Duration,
    /// How the last one failed.
    pub(super) last: String,
}

impl Breaker {
    /// Whether a caller may connect now. A caller that may must report with [`Breaker::succeeded`] or [`Breaker::failed`].
    pub(super) fn admit(&mut self, now: Instant) -> Result<(), Open> {
        let Some(until) = self.open_until else { return Ok(()) };
        if self.probing || now < until {
            return Err(Open {
                failures: self.failures,
                retry_in: until.saturating_duration_since(now),
                last: self.last.clone(),
            });
        }
        self.probing = true;
        Ok(())
    }

    /// The peer is there.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// It is not.
    pub(super) fn failed(&mut self, now: Instant, reason: &str) {
        // Callers that raced before the first failure count once.
        if self.probing || self.open_until.is_none() {
            self.failures = self.failures.saturating_add(1);
        }
        let window = FIRST_WINDOW * (1 << (self.failures - 1).min(10));
        self.open_until = Some(now + window.min(LONGEST_WINDOW));
        self.probing = false;
        reason.clone_into(&mut self.last);
    }

    /// When its window ends; `None` while closed.
    pub(super) fn open_until(&self) -> Option<Instant> {
        self.open_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_opens_grows_and_is_bounded() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        let mut windows = Vec::new();
        for _ in 0..10 {
            assert_eq!(breaker.admit(now), Ok(()));
            breaker.failed(now, "refused");
            let open = breaker.admit(now).unwrap_err();
            assert_eq!(open.last, "refused");
            windows.push(open.retry_in);
            now += open.retry_in;
        }
        assert_eq!(windows[..3], [1, 2, 4].map(|n| FIRST_WINDOW * n));
        assert_eq!(windows.last(), Some(&LONGEST_WINDOW));
        assert_eq!(breaker.admit(now), Ok(()));
        breaker.succeeded();
        assert_eq!(breaker.admit(now), Ok(()));
    }

    #[test]
    fn one_caller_probes_while_the_others_fail_at_once() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        breaker.failed(now, "refused");
        let later = now + FIRST_WINDOW;
        assert_eq!(breaker.admit(later), Ok(()));
        assert_eq!(breaker.admit(later).unwrap_err().retry_in, Duration::ZERO);
        breaker.failed(later, "again");
        assert_eq!(breaker.admit(later).unwrap_err().failures, 2);
    }

    #[test]
    fn callers_that_race_before_the_first_failure_count_once() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        assert!(breaker.admit(now).is_ok() && breaker.admit(now).is_ok());
        breaker.failed(now, "refused");
        breaker.failed(now, "refused");
        assert_eq!(breaker.admit(now).unwrap_err().failures, 1);
    }
}

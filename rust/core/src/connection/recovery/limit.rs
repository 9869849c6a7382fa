//! Time limits for work of other threads of this process.

use std::time::{Duration, Instant};

/// A deadline for the driver, its helpers or a lane's worker.
///
/// These threads may have been stopped together with the thread that checks the deadline (SIGSTOP, a paused virtual
/// machine), and that one may run first. So the deadline is checked twice, with enough time in between for the others
/// to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// To be checked for the first time at this time.
    First(Instant),
    /// Passed at this time.
    Last(Instant),
}

/// Time between both checks.
const MOMENT: Duration = Duration::from_millis(100);

impl Limit {
    /// `time` from `now`, which is longer than a moment.
    pub(super) fn after(time: Duration, now: Instant) -> Self {
        Self::First(now + time.saturating_sub(MOMENT))
    }

    /// When to check it next.
    pub(super) fn next_check(self) -> Instant {
        match self {
            Self::First(at) | Self::Last(at) => at,
        }
    }

    /// Defers the deadline by a moment at the first check; false if it has passed.
    pub(super) fn defer_once(&mut self, now: Instant) -> bool {
        let first = matches!(self, Self::First(_));
        if first {
            *self = Self::Last(now + MOMENT);
        }
        first
    }
}

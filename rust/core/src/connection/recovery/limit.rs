//! Limits for what other threads of this process do.

use std::time::{Duration, Instant};

/// The end of the time that the driver, its helpers or a lane's worker have for something.
///
/// They may have been stopped together with the thread that looks at the clock (SIGSTOP, a paused virtual machine), and
/// that one may be the first to go on. So it looks twice, with enough time in between for the others to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// To be looked at for the first time then.
    First(Instant),
    /// It has passed then.
    Last(Instant),
}

/// Between both looks.
const MOMENT: Duration = Duration::from_millis(100);

impl Limit {
    /// `time` from `now`, which is longer than a moment.
    pub(super) fn after(time: Duration, now: Instant) -> Self {
        Self::First(now + time.saturating_sub(MOMENT))
    }

    /// When to look at it next.
    pub(super) fn next_check(self) -> Instant {
        match self {
            Self::First(at) | Self::Last(at) => at,
        }
    }

    /// Puts the end off for a moment, if this is the first look; false if it has come.
    pub(super) fn defer_once(&mut self, now: Instant) -> bool {
        let first = matches!(self, Self::First(_));
        if first {
            *self = Self::Last(now + MOMENT);
        }
        first
    }
}

//! Deadlines of calls. They are of the monotonic clock, which a change of the time of day does not move.

use std::time::{Duration, Instant};

/// What is left until `deadline`; `None` when it is over.
pub(crate) fn left(deadline: Instant) -> Option<Duration> {
    deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}

/// The earlier of `deadline` and `limit` from now.
pub(crate) fn within(deadline: Instant, limit: Duration) -> Instant {
    deadline.min(Instant::now() + limit)
}

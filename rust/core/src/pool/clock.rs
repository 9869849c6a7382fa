//! The pool's clock for deadlines.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since some point in the past. Never goes back.
#[inline]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// The same in milliseconds; never 0.
#[inline]
pub fn ms(nanoseconds: u64) -> u64 {
    nanoseconds / 1_000_000 + 1
}

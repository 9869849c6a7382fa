//! The pool's clock for deadlines: milliseconds, as cheap as the kernel offers.

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since some point in the past. Never 0, never goes back; a few milliseconds coarse, which costs a
/// fifth of the precise clock and is enough for deadlines.
#[inline]
pub fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000 + 1
}

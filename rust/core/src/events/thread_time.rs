//! The processor time that the calling thread takes.

use std::cell::Cell;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of processor time that the calling thread has taken since it last called this.
pub(super) fn time_since_last() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let now = now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs();
    now.saturating_sub(LAST.replace(now))
}

thread_local!(static LAST: Cell<u64> = const { Cell::new(0) });

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn work_counts_and_sleep_does_not() {
        time_since_last();
        let slept = Instant::now();
        std::thread::sleep(Duration::from_millis(200));
        assert!(u128::from(time_since_last()) < slept.elapsed().as_nanos() / 2);
        let (worked, mut counted) = (Instant::now(), 0);
        while counted < 1_000_000 {
            counted += time_since_last();
        }
        assert!(u128::from(counted) <= worked.elapsed().as_nanos() + 1_000_000);
    }
}

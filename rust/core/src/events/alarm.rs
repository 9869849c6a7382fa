//! A descriptor that becomes readable at a given time.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::io::{Errno, retry_on_intr};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// A timerfd with an absolute time.
#[derive(Debug)]
pub(crate) struct Alarm {
    timer: OwnedFd,
    /// Set and not acknowledged since, so it may be readable. Written by the threads that poll and acknowledge, both
    /// under the worker's lock; Relaxed, as it only saves a system call.
    is_set: AtomicBool,
}

impl Alarm {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self { timer: timerfd_create(TimerfdClockId::Monotonic, flags)?, is_set: AtomicBool::new(false) })
    }

    /// Makes the descriptor readable at `time`, or at once when that is past. Replaces an earlier time.
    pub(crate) fn set(&self, time: Instant) -> Result<(), Errno> {
        // Zero would turn it off.
        let left = time.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let off = Timespec { tv_sec: 0, tv_nsec: 0 };
        let once = Itimerspec { it_interval: off, it_value: Timespec::try_from(left).unwrap_or(NEVER) };
        retry_on_intr(|| timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once))?;
        self.is_set.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Makes the descriptor unreadable again.
    pub(crate) fn acknowledge(&self) {
        if self.is_set.swap(false, Ordering::Relaxed) {
            // EAGAIN: it has not expired yet, and a thread that waits for it sets it again before it sleeps.
            let _ = retry_on_intr(|| rustix::io::read(&self.timer, &mut [0_u8; 8]));
        }
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

/// Longer than any process runs.
const NEVER: Timespec = Timespec { tv_sec: i64::MAX / 2, tv_nsec: 0 };

//! A descriptor that any thread makes readable.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::retry_on_intr;

use super::{Interest, is_ready};

/// An eventfd: readable from [`Notifier::notify`] until [`Notifier::acknowledge`]. Any thread may call either.
#[derive(Debug)]
pub struct Notifier(OwnedFd);

impl Notifier {
    /// One that is not readable.
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Makes it readable.
    pub fn notify(&self) {
        // Fails only when the counter is full, and then the descriptor is readable already.
        let _ = retry_on_intr(|| rustix::io::write(&self.0, &1_u64.to_ne_bytes()));
    }

    /// Makes it unreadable.
    pub fn acknowledge(&self) {
        // EAGAIN: it was not readable.
        let _ = retry_on_intr(|| rustix::io::read(&self.0, &mut [0_u8; 8]));
    }

    /// Whether it is readable.
    pub fn is_notified(&self) -> bool {
        is_ready(self.0.as_fd(), Interest::Read).unwrap_or(false)
    }
}

impl AsFd for Notifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

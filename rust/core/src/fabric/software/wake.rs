//! How the device reaches its responder's thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

use crate::sync::{AtomicBool, Ordering};

/// A descriptor that the thread sleeps on, and the order to end.
#[derive(Debug)]
pub(super) struct Wake {
    event: OwnedFd,
    /// Set by the device when it is dropped, before the wake-up that makes the thread read it; the eventfd orders
    /// the two, Release and Acquire say so.
    stopping: AtomicBool,
}

impl Wake {
    pub(super) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { event, stopping: AtomicBool::new(false) })
    }

    /// Makes the thread look at its connections.
    pub(super) fn wake(&self) {
        // Fails only when the counter is full, and then the descriptor is readable already.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    /// Makes the thread end.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Makes the descriptor unreadable again.
    pub(super) fn acknowledge(&self) {
        // EAGAIN: it was not readable.
        let _ = rustix::io::read(&self.event, &mut [0_u8; 8]);
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

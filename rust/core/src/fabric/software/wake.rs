//! How a device reaches its data thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use super::endpoint::Endpoint;
use crate::events::Notifier;
use crate::sync::{Mutex, lock};

/// A notifier that the thread sleeps on, what has changed for it, and the order to end.
#[derive(Debug)]
pub(super) struct Wake {
    notifier: Notifier,
    /// Set by the device when it is dropped, before the wake-up that makes the thread read it; the eventfd orders
    /// the two, Release and Acquire say so.
    stopping: AtomicBool,
    /// Numbers of queue pairs that were connected, or went to ERROR, and that the thread has not looked at yet.
    changed: Mutex<Vec<u32>>,
}

impl Wake {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { notifier: Notifier::new()?, stopping: AtomicBool::new(false), changed: Mutex::default() })
    }

    /// Makes the thread look at what it serves for a queue pair: it was connected, or went to ERROR.
    pub(super) fn tell(&self, endpoint: &Endpoint) {
        lock(&self.changed).push(endpoint.qpn());
        self.notifier.notify();
    }

    /// Makes the thread look at what was left for it elsewhere.
    pub(super) fn notify(&self) {
        self.notifier.notify();
    }

    /// The queue pairs that were told of since the last call.
    pub(super) fn take_changed(&self) -> Vec<u32> {
        std::mem::take(&mut *lock(&self.changed))
    }

    /// Makes the thread end.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.notifier.notify();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Makes the descriptor unreadable again.
    pub(super) fn acknowledge(&self) {
        self.notifier.acknowledge();
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.notifier.as_fd()
    }
}

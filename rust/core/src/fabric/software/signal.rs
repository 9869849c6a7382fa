//! How other threads reach the worker that polls a completion queue.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::events::Notifier;

/// A flag to look at and a descriptor to wait on.
#[derive(Debug)]
pub(super) struct Signal {
    notifier: Notifier,
    /// A queue pair was changed by another thread. Set by any thread before reading `armed`, taken by threads that move
    /// bytes and by the worker after setting `armed`; all SeqCst, so that one of them sees the other and no wake-up is lost.
    sweep: AtomicBool,
    /// The worker may be asleep. Set by the worker, taken by the thread that wakes it.
    armed: AtomicBool,
}

impl Signal {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { notifier: Notifier::new()?, sweep: AtomicBool::new(false), armed: AtomicBool::new(false) })
    }

    /// Asks the worker to look at all its queue pairs, and wakes it if it sleeps.
    pub(super) fn sweep(&self) {
        self.sweep.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Wakes the worker if it sleeps.
    pub(super) fn wake(&self) {
        if self.armed.swap(false, Ordering::SeqCst) {
            self.notifier.notify();
        }
    }

    /// [`Signal::wake`] where that costs a look only if the worker does not sleep.
    pub(super) fn wake_if_armed(&self) {
        if self.is_armed() {
            self.wake();
        }
    }

    /// From now on the descriptor tells. The worker must look once more before it sleeps.
    pub(super) fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    /// Whether the worker may be asleep.
    pub(super) fn is_armed(&self) -> bool {
        self.armed.load(Ordering::SeqCst)
    }

    /// Whether a sweep was asked for, without taking it.
    pub(super) fn wants_sweep(&self) -> bool {
        self.sweep.load(Ordering::SeqCst)
    }

    /// Takes the request for a sweep.
    pub(super) fn take_sweep(&self) -> bool {
        self.wants_sweep() && self.sweep.swap(false, Ordering::SeqCst)
    }

    /// Makes the descriptor unreadable again.
    pub(super) fn acknowledge(&self) {
        self.notifier.acknowledge();
    }
}

impl AsFd for Signal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.notifier.as_fd()
    }
}

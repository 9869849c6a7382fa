//! How other threads reach the worker that polls a completion queue.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::events::Notifier;
use crate::sync::SequentialBool;

/// A flag to look at and a descriptor to wait on.
#[derive(Debug)]
pub(super) struct Signal {
    notifier: Notifier,
    /// A queue pair was changed by another thread. Set by any thread before reading `armed`, taken by threads that move
    /// bytes and by the worker after setting `armed`: one of them sees the other, and no wake-up is lost.
    sweep: SequentialBool,
    /// The worker may be asleep. Set by the worker, taken by the thread that wakes it.
    armed: SequentialBool,
}

impl Signal {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            notifier: Notifier::new()?,
            sweep: SequentialBool::default(),
            armed: SequentialBool::default(),
        })
    }

    /// Asks the worker to look at all its queue pairs, and wakes it if it sleeps.
    pub(super) fn sweep(&self) {
        self.sweep.store(true);
        self.wake();
    }

    /// Wakes the worker if it sleeps.
    pub(super) fn wake(&self) {
        if self.armed.swap(false) {
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
        self.armed.store(true);
    }

    /// Whether the worker may be asleep.
    pub(super) fn is_armed(&self) -> bool {
        self.armed.load()
    }

    /// Whether a sweep was asked for, without taking it.
    pub(super) fn wants_sweep(&self) -> bool {
        self.sweep.load()
    }

    /// Takes the request for a sweep.
    pub(super) fn take_sweep(&self) -> bool {
        self.wants_sweep() && self.sweep.swap(false)
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

#[cfg(all(test, flagcx_p2p_loom))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod models {
    use super::*;
    use crate::sync::Arc;

    /// A queue pair is changed while its worker goes to sleep: the worker sees it, or its descriptor tells.
    #[test]
    fn a_change_is_seen_or_told() {
        loom::model(|| {
            let signal = Arc::new(Signal::new().unwrap());
            let changed = signal.clone();
            let other = loom::thread::spawn(move || changed.sweep());
            signal.arm();
            let is_seen = signal.take_sweep();
            other.join().unwrap();
            assert!(is_seen || signal.notifier.is_notified());
        });
    }
}

//! How a device reaches its data thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{Errno, fcntl_dupfd_cloexec};

use super::endpoint::Endpoint;
use super::tcp::server::Server;
use crate::events::Notifier;
use crate::sync::{Mutex, lock};

/// A notifier that the thread sleeps on, what it shall take over, and the order to end.
#[derive(Debug)]
pub(super) struct Wake {
    notifier: Notifier,
    /// Set by the device when it is dropped, before the wake-up that makes the thread read it; the eventfd orders
    /// the two, Release and Acquire say so.
    stopping: AtomicBool,
    /// Handed over, and not taken by the thread yet.
    waiting: Mutex<(Vec<Server>, Vec<WatchedProcess>)>,
}

/// A process (its pidfd) whose end is the end of a queue pair's peer.
#[derive(Debug)]
pub(super) struct WatchedProcess {
    pub(super) process: OwnedFd,
    pub(super) endpoint: Arc<Endpoint>,
}

impl Wake {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { notifier: Notifier::new()?, stopping: AtomicBool::new(false), waiting: Mutex::default() })
    }

    /// Makes the thread look at its connections.
    pub(super) fn wake(&self) {
        self.notifier.notify();
    }

    /// Lets the thread serve a peer that has been greeted.
    pub(super) fn hand_over(&self, server: Server) {
        lock(&self.waiting).0.push(server);
        self.wake();
    }

    /// Lets the thread tell `endpoint` when the process ends. Its sockets alone would not say: a child that it forked
    /// keeps them open.
    pub(super) fn watch(&self, process: BorrowedFd<'_>, endpoint: &Arc<Endpoint>) -> Result<(), Errno> {
        let process = fcntl_dupfd_cloexec(process, 0)?;
        lock(&self.waiting).1.push(WatchedProcess { process, endpoint: Arc::clone(endpoint) });
        self.wake();
        Ok(())
    }

    /// What was handed over since the last call.
    pub(super) fn take_over(&self) -> (Vec<Server>, Vec<WatchedProcess>) {
        std::mem::take(&mut *lock(&self.waiting))
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
        self.notifier.acknowledge();
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.notifier.as_fd()
    }
}

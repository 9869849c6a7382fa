//! How a device reaches its data thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

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
    /// Not taken by the thread yet.
    waiting: Mutex<Waiting>,
}

/// What the thread is to take over.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Peers that have been greeted.
    pub(super) servers: Vec<Server>,
    /// Numbers of queue pairs that were connected, or went to ERROR.
    pub(super) changed: Vec<u32>,
}

impl Wake {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { notifier: Notifier::new()?, stopping: AtomicBool::new(false), waiting: Mutex::default() })
    }

    /// Makes the thread look at what it serves for a queue pair: it was connected, or went to ERROR.
    pub(super) fn tell(&self, endpoint: &Endpoint) {
        self.leave(|waiting| waiting.changed.push(endpoint.qpn()));
    }

    /// Lets the thread serve a peer that has been greeted.
    pub(super) fn hand_over(&self, server: Server) {
        self.leave(|waiting| waiting.servers.push(server));
    }

    fn leave(&self, what: impl FnOnce(&mut Waiting)) {
        what(&mut lock(&self.waiting));
        self.notifier.notify();
    }

    /// What was left since the last call.
    pub(super) fn take_over(&self) -> Waiting {
        std::mem::take(&mut *lock(&self.waiting))
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

//! How the device reaches its responder's thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use super::endpoint::Endpoint;
use std::sync::atomic::{AtomicBool, Ordering};

/// A descriptor that the thread sleeps on, and the order to end.
#[derive(Debug)]
pub(super) struct Wake {
    event: OwnedFd,
    /// Set by the device when it is dropped, before the wake-up that makes the thread read it; the eventfd orders
    /// the two, Release and Acquire say so.
    stopping: AtomicBool,
    /// Processes to watch that the thread has not taken over yet.
    processes: Mutex<Vec<WatchedProcess>>,
}

/// A process (its pidfd) whose end is the end of a queue pair's peer.
#[derive(Debug)]
pub(super) struct WatchedProcess {
    pub(super) process: OwnedFd,
    pub(super) endpoint: Arc<Endpoint>,
}

impl Wake {
    pub(super) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { event, stopping: AtomicBool::new(false), processes: Mutex::default() })
    }

    /// Makes the thread look at its connections.
    pub(super) fn wake(&self) {
        // Fails only when the counter is full, and then the descriptor is readable already.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    /// Lets the thread tell `endpoint` when the process ends. Its sockets alone would not say: a child that it forked
    /// keeps them open.
    pub(super) fn watch(&self, process: BorrowedFd<'_>, endpoint: &Arc<Endpoint>) -> Result<(), Errno> {
        let process = fcntl_dupfd_cloexec(process, 0)?;
        self.processes().push(WatchedProcess { process, endpoint: Arc::clone(endpoint) });
        self.wake();
        Ok(())
    }

    /// The processes to watch since the last call.
    pub(super) fn take_processes(&self) -> Vec<WatchedProcess> {
        std::mem::take(&mut *self.processes())
    }

    fn processes(&self) -> MutexGuard<'_, Vec<WatchedProcess>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
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

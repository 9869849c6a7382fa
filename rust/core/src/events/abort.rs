//! Ending waits from another thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::Notifier;

/// A switch that ends every wait of the sockets that hold it, for good and from any thread. Clones share one state.
#[derive(Clone, Debug)]
pub struct Abort(Arc<Notifier>);

impl Abort {
    /// An abort that is not triggered.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Notifier::new()?)))
    }

    /// Triggers it. Idempotent.
    pub fn abort(&self) {
        self.0.notify();
    }

    /// Whether it was triggered. It stays triggered.
    pub fn is_aborted(&self) -> bool {
        self.0.is_notified()
    }

    /// The error of an aborted wait.
    pub(crate) fn error() -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionAborted, "ended by this process")
    }
}

impl AsFd for Abort {
    /// Readable once it was triggered.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

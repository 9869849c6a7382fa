//! Ending waits from another thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::Notifier;

/// Ends every wait of the sockets that carry it, for good and from any thread. Clones are the same switch.
#[derive(Clone, Debug)]
pub struct Abort(Arc<Notifier>);

impl Abort {
    /// A switch that is not thrown yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Notifier::new()?)))
    }

    /// Throws the switch. Idempotent.
    pub fn abort(&self) {
        self.0.notify();
    }

    /// Whether it has been thrown. Nothing acknowledges it, so it stays so.
    pub fn is_aborted(&self) -> bool {
        self.0.is_notified()
    }

    /// What a wait ends with.
    pub(crate) fn error() -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionAborted, "ended by this process")
    }
}

impl AsFd for Abort {
    /// Readable once the switch has been thrown.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

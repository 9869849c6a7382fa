//! A queue pair's own socket, known to its completion queue.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::completion_queue::Shared;

/// A connected socket whose news wake the completion queue. Closed when dropped.
#[derive(Debug)]
pub(super) struct WatchedSocket {
    stream: TcpStream,
    completions: Arc<Shared>,
    carries_bytes: bool,
}

impl WatchedSocket {
    pub(super) fn new(
        stream: TcpStream,
        completions: &Arc<Shared>,
        qpn: u32,
        carries_bytes: bool,
    ) -> io::Result<Self> {
        completions.watch(qpn, stream.as_fd(), carries_bytes)?;
        Ok(Self { stream, completions: Arc::clone(completions), carries_bytes })
    }

    /// Ends the conversation both ways, as if the network had.
    pub(super) fn cut(&self) {
        // Fails when the peer has cut it already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl AsFd for WatchedSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Drop for WatchedSocket {
    fn drop(&mut self) {
        self.completions.unwatch(self.stream.as_fd(), self.carries_bytes);
    }
}

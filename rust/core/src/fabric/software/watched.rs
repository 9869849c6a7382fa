//! A queue pair's own socket, known to its completion queue.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::socket_watch::SocketWatch;
use crate::fork::OwnSocket;

/// A connected socket that wakes the completion queue. Closed when dropped.
#[derive(Debug)]
pub(super) struct WatchedSocket {
    stream: OwnSocket<TcpStream>,
    watch: Arc<SocketWatch>,
}

impl WatchedSocket {
    pub(super) fn new(stream: OwnSocket<TcpStream>, watch: &Arc<SocketWatch>, qpn: u32) -> io::Result<Self> {
        watch.add(qpn, stream.as_fd())?;
        Ok(Self { stream, watch: Arc::clone(watch) })
    }

    /// Shuts it down in both directions, as if the network had.
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
        self.watch.remove(self.stream.as_fd());
    }
}

//! A queue pair's own socket, known to its completion queue.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;

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
        reset_at_its_end(&stream)?;
        watch.add(qpn, stream.as_fd())?;
        Ok(Self { stream, watch: Arc::clone(watch) })
    }

    /// From now on it is closed in order, not by a reset: what was sent last arrives. For a socket on which all is answered.
    pub(super) fn end_in_order(&self) -> io::Result<()> {
        SockRef::from(&*self.stream).set_linger(None)
    }

    /// Shuts it down in both directions, as if the network had.
    pub(super) fn cut(&self) {
        // Fails when the peer has cut it already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Has it closed by a reset, also when the process is killed. Otherwise the kernel would go on sending what is left of its
/// requests, and the peer could carry them out after those of a later connection.
fn reset_at_its_end(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_linger(Some(Duration::ZERO))
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

//! A queue pair's own socket, known to its completion queue.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::SockRef;

use super::socket_watch::SocketWatch;
use crate::fork::OwnSocket;

/// A connected socket that wakes the completion queue. Closed when dropped.
#[derive(Debug)]
pub(super) struct WatchedSocket {
    stream: OwnSocket<TcpStream>,
    watch: Arc<SocketWatch>,
    qpn: u32,
    /// Set by the thread that advances the queue pair, read when it is dropped. Relaxed: dropping comes after that, in the
    /// order of the reference counts.
    carries_bytes: AtomicBool,
}

impl WatchedSocket {
    pub(super) fn new(
        stream: OwnSocket<TcpStream>,
        watch: &Arc<SocketWatch>,
        qpn: u32,
        carries_bytes: bool,
    ) -> io::Result<Self> {
        watch.add(qpn, stream.as_fd(), carries_bytes)?;
        if carries_bytes {
            reset_at_its_end(&stream)?;
        }
        let watch = Arc::clone(watch);
        Ok(Self { stream, watch, qpn, carries_bytes: AtomicBool::new(carries_bytes) })
    }

    /// From now on bytes travel on it. Its news up to now may not be reported again: the caller looks at the socket.
    pub(super) fn carry_bytes(&self) -> io::Result<()> {
        if self.carries_bytes.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        reset_at_its_end(&self.stream)?;
        self.watch.remove(self.stream.as_fd(), false);
        self.watch.add(self.qpn, self.stream.as_fd(), true)
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
        self.watch.remove(self.stream.as_fd(), self.carries_bytes.load(Ordering::Relaxed));
    }
}

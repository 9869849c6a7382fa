//! A TCP stream with a deadline for every wait.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};

use crate::admission::Permit;
use crate::events::{Abort, Waiter, Wakeup, run_blocking, tcp, uninterrupted};
use crate::fork::OwnSocket;

/// A TCP stream. One thread may read while another writes; two writers need a lock of their own.
#[derive(Debug)]
pub struct Stream {
    /// The permit of an unauthenticated client. Declared before the socket, so that it is dropped first.
    permit: Option<Permit>,
    socket: OwnSocket<TcpStream>,
    local: SocketAddr,
    peer: SocketAddr,
    abort: Option<Abort>,
}

impl Stream {
    /// Takes over a connected socket.
    pub(super) fn new(socket: OwnSocket<TcpStream>, abort: Option<Abort>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        // Urgent data would make the socket readable for ever, with nothing to read.
        SockRef::from(&*socket).set_out_of_band_inline(true)?;
        let (local, peer) = (canonical(socket.local_addr()?), canonical(socket.peer_addr()?));
        Ok(Self { permit: None, socket, local, peer, abort })
    }

    /// Stores the permit with which it was accepted.
    pub(super) fn with_permit(mut self, permit: Permit) -> Self {
        self.permit = Some(permit);
        self
    }

    /// Releases the permit: the client has proven the key, or has completed its handshake.
    pub(crate) fn release_permit(&self) {
        if let Some(permit) = &self.permit {
            permit.release();
        }
    }

    /// Notes that the client has begun a handshake, for which `descriptors` are held.
    pub(crate) fn begin_permit(&self, descriptors: usize) {
        if let Some(permit) = &self.permit {
            permit.begin(descriptors);
        }
    }

    /// See [`Permit::displaced`]; `None` without a permit.
    pub(crate) fn displaced(&self) -> Option<Arc<Wakeup>> {
        self.permit.as_ref()?.displaced()
    }

    /// The other end; an IPv4 address as such even on an IPv6 socket.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// This end.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Fills `buffer`, waiting by `waiter`; errors as those of [`Stream::read_exact_by`].
    pub async fn read_exact(&self, buffer: &mut [u8], deadline: Instant, waiter: &Waiter) -> io::Result<()> {
        tcp::read_exact(&self.socket, buffer, deadline, waiter).await
    }

    /// Writes all of `bytes`, waiting by `waiter`. After an error it is not known how many of them the peer will
    /// receive.
    pub async fn write_all(&self, bytes: &[u8], deadline: Instant, waiter: &Waiter) -> io::Result<()> {
        tcp::write_all(&self.socket, bytes, deadline, waiter).await
    }

    /// Fills `buffer`. `UnexpectedEof` when the peer closes before, `TimedOut`, `ConnectionAborted`, or the system's
    /// error.
    pub fn read_exact_by(&self, buffer: &mut [u8], deadline: Instant) -> io::Result<()> {
        run_blocking(self.read_exact(buffer, deadline, &Waiter::blocking(self.abort.as_ref())))
    }

    /// Writes all of `bytes`. After an error it is not known how many of them the peer will receive.
    pub fn write_all_by(&self, bytes: &[u8], deadline: Instant) -> io::Result<()> {
        run_blocking(self.write_all(bytes, deadline, &Waiter::blocking(self.abort.as_ref())))
    }

    /// As [`Stream::write_all_by`], and adds to `total` the bytes that the kernel has taken, also if it fails.
    pub fn write_counted_by(&self, bytes: &[u8], deadline: Instant, total: &mut usize) -> io::Result<()> {
        let waiter = Waiter::blocking(self.abort.as_ref());
        run_blocking(tcp::write_counted(&self.socket, bytes, deadline, &waiter, total))
    }

    /// Reads without waiting: `None` when no data has arrived, `Some(0)` when the peer has closed.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match uninterrupted(|| (&*self.socket).read(buffer)) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Writes without waiting: `None` when the socket accepts no data now.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        match uninterrupted(|| (&*self.socket).write(bytes)) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Whether the peer has closed or broken the connection, as far as this host knows. Consumes nothing.
    pub fn is_closed(&self) -> bool {
        match self.peek() {
            Ok(count) => count == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }

    /// Whether nothing has arrived that is still to be read, not even the peer's end. Consumes nothing.
    pub fn is_quiet(&self) -> bool {
        matches!(self.peek(), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Whether bytes wait to be read.
    pub fn has_unread(&self) -> bool {
        matches!(self.peek(), Ok(1..))
    }

    /// Whether some bytes wait to be read, and are those of `beginning` as far as they have arrived. Consumes nothing.
    pub fn begins_with<const N: usize>(&self, beginning: &[u8; N]) -> bool {
        let mut arrived = [0; N];
        let count = uninterrupted(|| self.socket.peek(&mut arrived)).unwrap_or(0);
        count > 0 && arrived.iter().zip(beginning).take(count).all(|(byte, expected)| byte == expected)
    }

    fn peek(&self) -> io::Result<usize> {
        uninterrupted(|| self.socket.peek(&mut [0]))
    }

    /// Ends both directions: waits of other threads on this stream end too.
    pub fn shutdown(&self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }

    /// Ends what this end sends; the peer may still send.
    pub fn shutdown_write(&self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Write);
    }

    /// Sets keepalive probes by which the kernel detects within about `period` that the peer's host is down; `None`
    /// turns them off.
    pub fn set_keepalive(&self, period: Option<Duration>) -> io::Result<()> {
        let socket = SockRef::from(&*self.socket);
        let Some(period) = period else { return socket.set_keepalive(false) };
        // Half of the time idle, the rest for three probes. The kernel counts in whole seconds.
        let second = Duration::from_secs(1);
        let probes = TcpKeepalive::new()
            .with_time((period / 2).max(second))
            .with_interval((period / 6).max(second))
            .with_retries(3);
        socket.set_tcp_keepalive(&probes)?;
        socket.set_tcp_user_timeout(Some(period.max(second)))
    }

    /// Waits end with `abort` from now on.
    pub fn set_abort(&mut self, abort: Option<Abort>) {
        self.abort = abort;
    }

    /// The socket alone, as a blocking one without deadlines.
    pub fn into_blocking(self) -> io::Result<TcpStream> {
        self.socket.set_nonblocking(false)?;
        self.socket.into_inner().ok_or_else(|| ErrorKind::NotConnected.into())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// IPv4 addresses that an IPv6 socket shows in mapped form become IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some() => {
            SocketAddr::new(Ipv6Addr::to_canonical(v6.ip()), v6.port())
        }
        other => other,
    }
}

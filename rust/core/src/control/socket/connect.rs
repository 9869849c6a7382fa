//! Connecting to one address.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Instant;

use socket2::{Domain, Protocol, Socket, Type};

use super::Stream;
use super::connect_any::{Unreached, connect_any};
use super::schedule::Patience;
use crate::events::{Abort, Interest, Waiter};

/// Connects to `target`. A refused port is tried again, with growing pauses, until `deadline`: peers that start
/// together still meet. The stream's later waits end with `abort` too.
///
/// `ConnectionRefused` when no process listened, `TimedOut` when no answer came, or the system's error.
pub fn connect(target: SocketAddr, deadline: Instant, abort: Option<&Abort>) -> io::Result<Stream> {
    match connect_any(&[target], deadline, Patience::UntilDeadline, abort) {
        Ok((_, stream)) => Ok(stream),
        Err(Unreached::Wait(error)) => Err(error),
        Err(Unreached::Addresses(misses)) => {
            Err(misses.into_iter().next().map_or_else(|| ErrorKind::TimedOut.into(), io::Error::from))
        }
    }
}

/// Connects if a process listens there now, with `source` as our end if there is one. Waits by `waiter`; the stream's
/// later blocking waits end with `abort`.
pub(in crate::control) async fn connect_from(
    source: Option<SocketAddr>,
    target: SocketAddr,
    deadline: Instant,
    abort: Option<&Abort>,
    waiter: &Waiter,
) -> io::Result<Stream> {
    let socket = begin(source, target)?;
    while !is_connected(&socket)? {
        waiter.ready(socket.as_fd(), Interest::Write, Some(deadline)).await?;
    }
    connected(socket, abort)
}

/// The same for tests, which block.
#[cfg(test)]
pub(in crate::control) fn connect_once(
    target: SocketAddr,
    deadline: Instant,
    abort: Option<&Abort>,
) -> io::Result<Stream> {
    let waiter = Waiter::blocking(abort);
    crate::events::run_blocking(connect_from(None, target, deadline, abort, &waiter))
}

/// Begins to connect, and waits for nothing.
pub(super) fn begin(source: Option<SocketAddr>, target: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if let Some(source) = source {
        socket.bind(&source.into())?;
    }
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

/// Whether it is connected; an error when it cannot be any more.
pub(super) fn is_connected(socket: &Socket) -> io::Result<bool> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    match socket.peer_addr() {
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
        other => other.map(|_| true),
    }
}

/// Takes over a socket that is connected.
pub(super) fn connected(socket: Socket, abort: Option<&Abort>) -> io::Result<Stream> {
    let stream = Stream::new(TcpStream::from(socket), abort.cloned())?;
    if stream.local() == stream.peer() {
        // The kernel had picked the target's own port for our end and connected the socket to itself.
        return Err(ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

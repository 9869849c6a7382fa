//! Connecting to one address.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use super::connect_any::{ConnectError, connect_any};
use super::schedule::RefusalPolicy;
use super::{Source, Stream};
use crate::events::{Abort, Waiter, tcp};
use crate::fork::OwnSocket;

/// Connects to `target`. A refused port is tried again, with growing pauses, until `deadline`: peers that start
/// together still meet. The stream's later waits end with `abort` too.
///
/// `ConnectionRefused` when no process listened, `TimedOut` when no answer came, or the system's error.
pub fn connect(target: SocketAddr, deadline: Instant, abort: Option<&Abort>) -> io::Result<Stream> {
    match connect_any(&[target], deadline, RefusalPolicy::UntilDeadline, abort) {
        Ok((_, stream)) => Ok(stream),
        Err(ConnectError::Wait(error)) => Err(error),
        Err(ConnectError::Addresses(failures)) => {
            Err(failures.into_iter().next().map_or_else(|| ErrorKind::TimedOut.into(), io::Error::from))
        }
    }
}

/// Connects once, from `source` if there is one. Waits by `waiter`; the stream's
/// later blocking waits end with `abort`.
pub(in crate::control) async fn connect_from(
    source: Option<SocketAddr>,
    target: SocketAddr,
    deadline: Instant,
    abort: Option<&Abort>,
    waiter: &Waiter,
) -> io::Result<Stream> {
    connected(tcp::connect(source, target, deadline, waiter).await?, abort)
}

/// As [`connect_from`], from an address through its interface if `source` says so. Without the right to choose an interface, and on kernels
/// before 5.7 only root has it, the kernel's routes decide that.
pub(in crate::control) async fn connect_over(
    source: Option<&Source>,
    target: SocketAddr,
    deadline: Instant,
    waiter: &Waiter,
) -> io::Result<Stream> {
    let from = source.map(|source| SocketAddr::new(source.address, 0));
    match (from, source.and_then(|source| source.interface.as_deref())) {
        (Some(from), Some(interface)) => {
            connected(tcp::connect_through((from, interface), target, deadline, waiter).await?, None)
        }
        (from, _) => connect_from(from, target, deadline, None, waiter).await,
    }
}

/// [`connect_from`] for tests, which block.
#[cfg(test)]
pub(in crate::control) fn connect_once(
    target: SocketAddr,
    deadline: Instant,
    abort: Option<&Abort>,
) -> io::Result<Stream> {
    let waiter = Waiter::blocking(abort);
    crate::events::run_blocking(connect_from(None, target, deadline, abort, &waiter))
}

/// Takes over a socket that is connected.
pub(super) fn connected(socket: OwnSocket<TcpStream>, abort: Option<&Abort>) -> io::Result<Stream> {
    let stream = Stream::new(socket, abort.cloned())?;
    if stream.local() == stream.peer() {
        // The kernel chose the target's port as source port and connected the socket to itself.
        return Err(ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

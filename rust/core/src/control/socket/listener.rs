//! A listening socket.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::Stream;
use crate::control::AllowList;
use crate::events::{Abort, Interest, Waiter, run_blocking};
use crate::fork::OwnSocket;
use crate::ports::listen_on_first_free;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// Pause after running out of file descriptors or memory.
pub(crate) const STARVED_PAUSE: Duration = Duration::from_millis(20);

/// Connections that one call of `try_accept` may refuse.
const REFUSED_PER_CALL: usize = 32;

/// A listening socket whose waits have a deadline and can be aborted.
#[derive(Debug)]
pub struct Listener {
    socket: OwnSocket<TcpListener>,
    local: SocketAddr,
    allow: AllowList,
    abort: Abort,
}

impl Listener {
    /// Listens on the first free port of `ports` (inclusive), or on one that the kernel chooses; if all are in use the
    /// error says what holds them. Waits end with
    /// `abort`; accepted streams inherit it.
    pub fn bind(address: IpAddr, ports: Option<(u16, u16)>, abort: &Abort) -> io::Result<Self> {
        let socket = OwnSocket::new(listen_on_first_free(address, ports, listen)?);
        let local = socket.local_addr()?;
        Ok(Self { socket, local, allow: AllowList::default(), abort: abort.clone() })
    }

    /// Closes connections from other addresses unread.
    pub fn with_allow_list(mut self, allow: AllowList) -> Self {
        self.allow = allow;
        self
    }

    /// Where it listens.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Waits for a connection; `None` without limit. `TimedOut` at the deadline, `ConnectionAborted` once aborted.
    /// Several threads may accept at once.
    pub fn accept_by(&self, deadline: Option<Instant>) -> io::Result<Stream> {
        let waiter = Waiter::blocking(Some(&self.abort));
        run_blocking(async {
            loop {
                if self.abort.is_aborted() {
                    return Err(ErrorKind::ConnectionAborted.into());
                }
                match self.try_accept() {
                    Ok(Some(stream)) => return Ok(stream),
                    Ok(None) => waiter.ready(self.as_fd(), Interest::Read, deadline).await?,
                    Err(error) if is_starved(&error) => waiter.pause(STARVED_PAUSE).await?,
                    Err(error) => return Err(error),
                }
            }
        })
    }

    /// Takes a connection that waits already, if one does. After an error for want of descriptors or memory it still waits.
    pub fn try_accept(&self) -> io::Result<Option<Stream>> {
        // A flood of connections that are refused must not keep a caller that has others to look after.
        for _ in 0..REFUSED_PER_CALL {
            let socket = match self.socket.accept() {
                Ok((socket, _)) => OwnSocket::new(socket),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(None),
                    _ if is_starved(&error) => {
                        tracing::warn!("cannot accept on {}: {error}; trying again", self.local);
                        return Err(error);
                    }
                    // The connection failed before it was accepted: that is the other end's affair.
                    Some(libc::EINTR | libc::ECONNABORTED | libc::EPROTO) => continue,
                    _ => return Err(error),
                },
            };
            // A peer that has gone in the meantime has no address any more.
            let Ok(stream) = Stream::new(socket, Some(self.abort.clone())) else { continue };
            if self.allow.permits(stream.peer().ip()) {
                return Ok(Some(stream));
            }
            tracing::info!("connection from {} refused: not in FLAGCX_P2P_ALLOW", stream.peer());
        }
        Ok(None)
    }
}

impl AsFd for Listener {
    /// Readable when a connection waits.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether the process has run out of descriptors or memory, so that the listener stays readable: without a pause
/// ([`STARVED_PAUSE`]) the next try would come at once, and fail.
pub(crate) fn is_starved(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A fixed port must be usable again at once after a restart.
    socket.set_reuse_address(address.port() != 0)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

//! A listening socket.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use super::Stream;
use super::interface_listeners::InterfaceListeners;
use crate::admission::{self, Source};
use crate::control::AllowList;
use crate::events::{Abort, Interest, Waiter, run_blocking, tcp};
use crate::fork::OwnSocket;
use crate::observe::report;
use crate::ports::listen_on_first_free;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// Connections that one call of `try_accept` may refuse.
const REFUSED_PER_CALL: usize = 32;

/// A listening socket; its waits have a deadline and can be aborted.
#[derive(Debug)]
pub struct Listener {
    socket: OwnSocket<TcpListener>,
    interfaces: Option<InterfaceListeners>,
    local: SocketAddr,
    allow: AllowList,
    abort: Abort,
}

impl Listener {
    /// Listens on the first free port of `ports` (inclusive), or on one that the kernel chooses; if all are in use the
    /// error says what holds them. Waits end with
    /// `abort`; accepted streams inherit it.
    pub fn bind(address: IpAddr, ports: Option<(u16, u16)>, abort: &Abort) -> io::Result<Self> {
        let socket = listen_on_first_free(address, ports, |address| tcp::listen(address, BACKLOG))?;
        let local = socket.local_addr()?;
        Ok(Self { socket, interfaces: None, local, allow: AllowList::default(), abort: abort.clone() })
    }

    /// Closes connections from other addresses unread.
    pub fn with_allow_list(mut self, allow: AllowList) -> Self {
        self.allow = allow;
        self
    }

    /// Answers connections that arrive through one of these interfaces through it, not over the kernel's route to the client, where that is
    /// permitted. Connections through others are accepted as before.
    pub fn with_interfaces<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        match InterfaceListeners::open(&self.socket, names, BACKLOG) {
            Ok(interfaces) => self.interfaces = Some(interfaces),
            Err(error) => tracing::debug!("{} has no listeners of single interfaces: {error}", self.local),
        }
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
                    Err(error) if is_starved(&error) => {
                        waiter.pause(admission::pause_after(self.local, &error)).await?
                    }
                    Err(error) => return Err(error),
                }
            }
        })
    }

    /// Accepts a waiting connection, if there is one. After an error that `is_starved` the connection stays in the
    /// backlog, and the listener is not to be polled for `admission::pause_after`.
    pub fn try_accept(&self) -> io::Result<Option<Stream>> {
        // A flood of refused connections must not keep the caller from its other work.
        for _ in 0..REFUSED_PER_CALL {
            let permit = match admission::enter(self.as_fd()) {
                Ok(permit) => permit,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            };
            let socket = match &self.interfaces {
                Some(interfaces) => interfaces.ready(&self.socket),
                None => &self.socket,
            };
            let socket = match socket.accept() {
                Ok((socket, _)) => OwnSocket::new(socket),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if admission::concerns_one_client(&error) => continue,
                Err(error) => return Err(error),
            };
            // A peer that has closed meanwhile has no address any more.
            let Ok(stream) = Stream::new(socket, Some(self.abort.clone())) else { continue };
            if self.allow.permits(stream.peer().ip()) {
                permit.describe(Source::of(stream.peer().ip()), stream.as_fd());
                return Ok(Some(stream.with_permit(permit)));
            }
            let peer = stream.peer();
            report!(
                info,
                ClientRefused,
                peer = peer,
                "connection from {peer} refused: the address is not in FLAGCX_P2P_ALLOW"
            );
        }
        Ok(None)
    }
}

impl AsFd for Listener {
    /// Readable when a connection waits.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.interfaces {
            Some(interfaces) => interfaces.as_fd(),
            None => self.socket.as_fd(),
        }
    }
}

/// Whether a connection that could not be accepted stays in the backlog: there is no permit, no descriptor or no
/// memory for it, or a sandbox denies it.
pub(crate) fn is_starved(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EPERM)
    )
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};

    use super::*;
    use crate::observe::{EventKind, event_log};

    #[test]
    fn a_refused_address_is_an_event() {
        let listener = Listener::bind(Ipv4Addr::LOCALHOST.into(), None, &Abort::new().unwrap()).unwrap();
        let listener = listener.with_allow_list(AllowList::new(&["192.0.2.0/24".parse().unwrap()]));
        let client = TcpStream::connect(listener.local()).unwrap();
        let name = client.local_addr().unwrap().to_string();
        let is_refused = || {
            event_log()
                .recent()
                .iter()
                .any(|event| event.kind == EventKind::ClientRefused && event.peer.as_ref() == Some(&name))
        };
        let limit = Instant::now() + std::time::Duration::from_secs(10);
        while !is_refused() && Instant::now() < limit {
            assert!(listener.try_accept().unwrap().is_none());
        }
        assert!(is_refused());
    }
}

//! Listeners on the interfaces of this host, beside the one on its address.

use std::collections::BTreeSet;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};

use crate::events::{SocketGroup, tcp};
use crate::fork::OwnSocket;

/// Sockets of one port, one for each interface.
///
/// The kernel answers a connection over its route to the client, which may lead over another interface than the one that the client has
/// reached: one that is dead and still has its address. A socket of an interface answers through that interface.
#[derive(Debug)]
pub(super) struct InterfaceListeners {
    sockets: Vec<OwnSocket<TcpListener>>,
    /// All of them, by their places, and the one on the address.
    group: SocketGroup,
}

/// So many interfaces at most.
const MOST: usize = 32;
/// The number of the listener on the address.
const FIRST: u64 = u64::MAX;

impl InterfaceListeners {
    /// Beside `first`. An interface that permits none is left to that one.
    pub(super) fn open<'a>(
        first: &OwnSocket<TcpListener>,
        interfaces: impl IntoIterator<Item = &'a str>,
        backlog: i32,
    ) -> io::Result<Self> {
        let group = SocketGroup::new()?;
        group.add(first, FIRST)?;
        let mut listeners = Self { sockets: Vec::new(), group };
        for interface in interfaces.into_iter().collect::<BTreeSet<_>>().into_iter().take(MOST) {
            match tcp::listen_through(interface, first, backlog) {
                Ok(socket) => listeners.add(socket)?,
                Err(error) => tracing::debug!("no listener on {interface} alone: {error}"),
            }
        }
        Ok(listeners)
    }

    fn add(&mut self, socket: OwnSocket<TcpListener>) -> io::Result<()> {
        self.group.add(&socket, self.sockets.len() as u64)?;
        self.sockets.push(socket);
        Ok(())
    }

    /// One at which a connection waits, each in its turn; `first` if there is none.
    pub(super) fn ready<'a>(&'a self, first: &'a OwnSocket<TcpListener>) -> &'a OwnSocket<TcpListener> {
        // Those that stay ready go behind the others.
        let ready = self.group.ready().into_iter().next();
        ready.and_then(|number| self.sockets.get(number as usize)).unwrap_or(first)
    }
}

impl AsFd for InterfaceListeners {
    /// Readable when a connection waits at one of them, or at the listener on the address.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};

    use super::*;

    fn accepts(socket: &OwnSocket<TcpListener>) -> bool {
        socket.accept().is_ok()
    }

    #[test]
    fn each_listener_has_its_turn_and_the_port_is_taken() {
        let first = tcp::listen((Ipv4Addr::UNSPECIFIED, 0).into(), 8).unwrap();
        let port = first.local_addr().unwrap().port();
        let listeners = InterfaceListeners::open(&first, ["lo", "no-such-0", "lo"], 8).unwrap();
        if listeners.sockets.is_empty() {
            println!("not run: SO_BINDTODEVICE is not permitted here");
            return;
        }
        assert_eq!(listeners.sockets.len(), 1, "each interface once, and none that is not there");
        let _clients: Vec<_> =
            (0..3).map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap()).collect();
        assert!((0..3).all(|_| accepts(listeners.ready(&first))), "by the listener of the interface");
        assert!(!accepts(listeners.ready(&first)) && !accepts(&first));
        let another = tcp::listen((Ipv4Addr::UNSPECIFIED, port).into(), 8).map(drop);
        assert_eq!(another.map_err(|error| error.kind()), Err(io::ErrorKind::AddrInUse));
    }
}

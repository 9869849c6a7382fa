//! Listeners on the interfaces of this host, beside the one on its address.

use std::collections::BTreeSet;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::events::{SocketGroup, tcp};
use crate::fork::OwnSocket;

/// Sockets of one port, one for each interface.
///
/// The kernel answers a connection over its route to the client, which may lead over another interface than the one that the client has
/// reached: one that is dead and still has its address. A socket of an interface answers through that interface.
#[derive(Debug)]
pub(super) struct InterfaceListeners {
    sockets: Vec<OwnSocket<TcpListener>>,
    /// All of them, by their places and one more, and the one on the address as 0.
    group: SocketGroup,
    /// The number of the last one that was ready: the next one behind it has its turn. Written and read by the threads that accept, to which any
    /// order does: Relaxed.
    last: AtomicU64,
}

/// So many interfaces at most.
const MOST: usize = 32;

impl InterfaceListeners {
    /// Beside `first`. An interface that permits none is left to that one.
    pub(super) fn open<'a>(
        first: &OwnSocket<TcpListener>,
        interfaces: impl IntoIterator<Item = &'a str>,
        backlog: i32,
    ) -> io::Result<Self> {
        let group = SocketGroup::new()?;
        group.add(first, 0)?;
        let mut listeners = Self { sockets: Vec::new(), group, last: AtomicU64::new(0) };
        for interface in interfaces.into_iter().collect::<BTreeSet<_>>().into_iter().take(MOST) {
            match tcp::listen_through(interface, first, backlog) {
                Ok(socket) => listeners.add(socket)?,
                Err(error) => tracing::debug!("no listener on {interface} alone: {error}"),
            }
        }
        Ok(listeners)
    }

    fn add(&mut self, socket: OwnSocket<TcpListener>) -> io::Result<()> {
        self.group.add(&socket, self.sockets.len() as u64 + 1)?;
        self.sockets.push(socket);
        Ok(())
    }

    /// One at which a connection waits, each in its turn; `first` if there is none.
    pub(super) fn ready<'a>(&'a self, first: &'a OwnSocket<TcpListener>) -> &'a OwnSocket<TcpListener> {
        let last = self.last.load(Ordering::Relaxed);
        let next = self.group.ready().into_iter().min_by_key(|number| number.wrapping_sub(last + 1));
        let number = next.unwrap_or(0);
        self.last.store(number, Ordering::Relaxed);
        let at = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
        at.and_then(|at| self.sockets.get(at)).unwrap_or(first)
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
        let mut listeners = InterfaceListeners::open(&first, ["lo", "no-such-0", "lo"], 8).unwrap();
        if listeners.sockets.is_empty() {
            println!("not run: SO_BINDTODEVICE is not permitted here");
            return;
        }
        assert_eq!(listeners.sockets.len(), 1, "each interface once, and none that is not there");
        let _clients: Vec<_> =
            (0..3).map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap()).collect();
        assert!((0..3).all(|_| accepts(listeners.ready(&first))), "by the listener of the interface");
        assert!(!accepts(listeners.ready(&first)) && !accepts(&first));
        // One that is always ready does not have all turns.
        let other = tcp::listen((Ipv4Addr::LOCALHOST, 0).into(), 8).unwrap();
        let other_port = other.local_addr().unwrap().port();
        listeners.add(other).unwrap();
        let ports = [port, port, other_port, other_port];
        let _waiting = ports.map(|port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap());
        let turns = ports.map(|_| {
            let socket = listeners.ready(&first);
            assert!(accepts(socket));
            socket.local_addr().unwrap().port()
        });
        assert!(turns[0] != turns[1] && turns[1] != turns[2] && turns[2] != turns[3], "{turns:?}");
        let another = tcp::listen((Ipv4Addr::UNSPECIFIED, port).into(), 8).map(drop);
        assert_eq!(another.map_err(|error| error.kind()), Err(io::ErrorKind::AddrInUse));
    }
}

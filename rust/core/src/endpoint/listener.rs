//! The endpoint's listening socket.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

use super::client::Stream;
use super::note::Note;
use super::unix_socket::{self, SocketPath};
use crate::config::{Config, MetricsAddress};
use crate::control::AllowList;
use crate::events::tcp;
use crate::fork::OwnSocket;
use crate::observe::report;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// Where clients come in.
#[derive(Debug)]
pub(super) enum HttpListener {
    Tcp { socket: OwnSocket<TcpListener>, allow: AllowList, _note: Option<Note> },
    Unix { socket: OwnSocket<UnixListener>, path: SocketPath },
}

impl HttpListener {
    /// Listens on the first free port of the range, or on the Unix socket.
    pub(super) fn bind(address: &MetricsAddress, config: &Config) -> io::Result<Self> {
        match *address {
            MetricsAddress::Tcp { ip, first, last } => {
                let mut port = first;
                let socket = loop {
                    match tcp::listen(SocketAddr::new(ip, port), BACKLOG) {
                        Err(error) if error.kind() == ErrorKind::AddrInUse && port < last => port += 1,
                        other => break other?,
                    }
                };
                let note = socket.local_addr().ok().and_then(Note::new);
                Ok(Self::Tcp { socket, allow: AllowList::new(&config.allow), _note: note })
            }
            MetricsAddress::Unix(_) => {
                let path = address.path(std::process::id()).unwrap_or_default();
                let (socket, path) = unix_socket::listen(path, BACKLOG)?;
                Ok(Self::Unix { socket, path })
            }
        }
    }

    /// The next client; `None` when none waits any more, or its address is not permitted.
    pub(super) fn accept(&self) -> io::Result<Option<Stream>> {
        let accepted = match self {
            Self::Unix { socket, .. } => socket.accept().map(|(stream, _)| Some(OwnedFd::from(stream))),
            Self::Tcp { socket, allow, .. } => socket.accept().map(|(stream, peer)| {
                let is_permitted = peer.ip().to_canonical().is_loopback() || allow.permits(peer.ip());
                if !is_permitted {
                    report!(
                        info,
                        ClientRefused,
                        peer = peer,
                        "connection from {peer} to the metrics endpoint refused: the address is not in FLAGCX_P2P_ALLOW"
                    );
                }
                is_permitted.then(|| OwnedFd::from(stream))
            }),
        };
        match accepted {
            Ok(stream) => Ok(stream.map(OwnSocket::new)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for HttpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp { socket, .. } => socket.as_fd(),
            Self::Unix { socket, .. } => socket.as_fd(),
        }
    }
}

/// Where it listens, as `flagcx-p2p stat` takes it.
impl fmt::Display for HttpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { socket, .. } => match socket.local_addr() {
                Ok(address) => address.fmt(f),
                Err(_) => f.write_str("unknown address"),
            },
            Self::Unix { path, .. } => write!(f, "unix:{path}"),
        }
    }
}

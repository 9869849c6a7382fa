//! Whether an engine answers at an address.
//!
//! A probe is the beginning of a handshake: the preamble of a control socket and a handle that claims to have a key. An engine
//! answers with its own handle, then refuses or waits for a proof; either way the socket ends there. Without a key that handle says
//! which engine it is.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use flagcx_p2p::internals::control::wire::{
    FRAME_HEADER_SIZE, Features, FrameHeader, HANDLE_SIZE, Handle, SocketKind, Tag,
};
use flagcx_p2p::internals::control::{resolve, split_session};

use crate::deadline::{left, within};

/// What answers at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// An engine; its id where it tells, which one with a key does not.
    Engine(Option<u64>),
    /// Something accepts connections and says nothing: a stopped or busy engine, as a rule.
    Silent,
    /// No engine, and why.
    Gone(String),
}

/// Probes `address`, `host:port`, for at most a second.
pub(crate) fn probe(address: &str, deadline: Instant) -> Probe {
    match connect(address, deadline) {
        Ok((socket, until)) => greet(socket, until),
        Err(reason) => Probe::Gone(reason),
    }
}

/// Whether something accepts connections at `address`, within a second; else why not.
pub(crate) fn reach(address: &str, deadline: Instant) -> Result<(), String> {
    connect(address, deadline).map(drop)
}

fn connect(address: &str, deadline: Instant) -> Result<(TcpStream, Instant), String> {
    let until = within(deadline, LIMIT);
    let (host, port) = split_session(address).map_err(|error| error.to_string())?;
    let targets = resolve(host, port, until, None).map_err(|error| error.to_string())?;
    let mut reasons = Vec::new();
    for (index, target) in targets.iter().take(MOST_TARGETS).enumerate() {
        let remaining = targets.len().min(MOST_TARGETS) - index;
        let share = left(until).map(|left| left / u32::try_from(remaining).unwrap_or(1));
        let Some(share) = share.filter(|share| !share.is_zero()) else {
            reasons.push(format!("{target} was not tried, because the time was over"));
            break;
        };
        match TcpStream::connect_timeout(target, share) {
            Ok(socket) => return Ok((socket, until)),
            Err(error) => reasons.push(format!("{target}: {error}")),
        }
    }
    Err(reasons.join(", "))
}

fn greet(mut socket: TcpStream, until: Instant) -> Probe {
    match exchange(&mut socket, until) {
        Ok(handle) => match Handle::decode(&handle) {
            Ok(handle) => {
                Probe::Engine(handle.features.map(|features| features.incarnation).filter(|id| *id != 0))
            }
            Err(error) => Probe::Gone(format!("another program answers: {error}")),
        },
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Probe::Silent,
        Err(error) => Probe::Gone(format!("no engine answers: {error}")),
    }
}

fn exchange(socket: &mut TcpStream, until: Instant) -> io::Result<[u8; HANDLE_SIZE]> {
    let features = Features { bits: Features::AUTH, ..Features::default() };
    let blank = Handle { address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), features: Some(features) };
    let header = FrameHeader { tag: Tag::Handle as i32, size: HANDLE_SIZE as i32 };
    let opening = [&SocketKind::Bootstrap.encode()[..], &header.encode(), &blank.encode()].concat();
    socket.set_write_timeout(left(until))?;
    socket.write_all(&opening)?;
    let header: [u8; FRAME_HEADER_SIZE] = receive(socket, until)?;
    let header = FrameHeader::decode(&header).map_err(|error| io::Error::other(error.to_string()))?;
    match header.expect(Tag::Handle, HANDLE_SIZE) {
        Ok(HANDLE_SIZE) => receive(socket, until),
        Ok(size) => Err(io::Error::other(format!("a handle of {size} bytes"))),
        Err(error) => Err(io::Error::other(error.to_string())),
    }
}

fn receive<const N: usize>(socket: &mut TcpStream, until: Instant) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while let Some(room) = bytes.get_mut(filled..).filter(|room| !room.is_empty()) {
        let left = left(until).ok_or(ErrorKind::TimedOut)?;
        socket.set_read_timeout(Some(left))?;
        match socket.read(room) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// How long a probe takes at most: long for a network, short for a peer that starts.
const LIMIT: Duration = Duration::from_secs(1);

/// Addresses of one name that are tried.
const MOST_TARGETS: usize = 4;

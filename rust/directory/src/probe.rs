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
    /// It could not be tried, and why: nothing is known of the engine.
    Unknown(String),
}

/// Why a connect has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoConnect {
    /// Each address refuses, is silent, or its host is not there.
    Gone(String),
    /// At least one could not be tried: the name has no address now, or this host lacks descriptors, a route or the right.
    Unknown(String),
}

impl NoConnect {
    /// The reason, for a text.
    pub(crate) fn into_reason(self) -> String {
        match self {
            Self::Gone(reason) | Self::Unknown(reason) => reason,
        }
    }
}

/// Probes `address`, `host:port`, for at most a second.
pub(crate) fn probe(address: &str, deadline: Instant) -> Probe {
    let until = within(deadline, LIMIT);
    // An engine with many handshakes under way ends the oldest: what has ended is begun once more.
    for _ in 0..2 {
        match connect(address, until) {
            Ok(socket) => {
                if let Some(found) = greet(socket, until) {
                    return found;
                }
            }
            Err(NoConnect::Gone(reason)) => return Probe::Gone(reason),
            Err(NoConnect::Unknown(reason)) => return Probe::Unknown(reason),
        }
    }
    Probe::Silent
}

/// Whether something accepts connections at `address`, within a second; else why not.
pub(crate) fn reach(address: &str, deadline: Instant) -> Result<(), NoConnect> {
    connect(address, within(deadline, LIMIT)).map(drop)
}

fn connect(address: &str, until: Instant) -> Result<TcpStream, NoConnect> {
    let (host, port) = split_session(address).map_err(|error| NoConnect::Unknown(error.to_string()))?;
    let targets = resolve(host, port, until, None).map_err(|error| NoConnect::Unknown(error.to_string()))?;
    let (mut reasons, mut all_gone) = (Vec::new(), true);
    for (index, target) in targets.iter().take(MOST_TARGETS).enumerate() {
        let remaining = targets.len().min(MOST_TARGETS) - index;
        let share = left(until).map(|left| left / u32::try_from(remaining).unwrap_or(1));
        let Some(share) = share.filter(|share| !share.is_zero()) else {
            all_gone = false;
            reasons.push(format!("{target} was not tried, because the time was over"));
            break;
        };
        match TcpStream::connect_timeout(target, share) {
            Ok(socket) => return Ok(socket),
            Err(error) => {
                all_gone &= tells_of_the_peer(error.kind());
                reasons.push(format!("{target}: {error}"));
            }
        }
    }
    let reasons = reasons.join(", ");
    Err(if all_gone { NoConnect::Gone(reasons) } else { NoConnect::Unknown(reasons) })
}

/// Whether a connect that failed so says something of the other end; all else is of this host.
fn tells_of_the_peer(error: ErrorKind) -> bool {
    matches!(error, ErrorKind::ConnectionRefused | ErrorKind::TimedOut | ErrorKind::HostUnreachable)
}

/// Nothing when the socket has ended without an answer.
fn greet(mut socket: TcpStream, until: Instant) -> Option<Probe> {
    Some(match exchange(&mut socket, until) {
        Ok(handle) => match Handle::decode(&handle) {
            Ok(handle) => {
                Probe::Engine(handle.features.map(|features| features.incarnation).filter(|id| *id != 0))
            }
            Err(error) => Probe::Gone(format!("another program answers: {error}")),
        },
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Probe::Silent,
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => return None,
            _ => Probe::Gone(format!("another program answers: {error}")),
        },
    })
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[test]
    fn only_the_other_end_says_that_it_is_gone() {
        let closed = "127.0.0.1:1";
        assert!(matches!(probe(closed, soon()), Probe::Gone(_)));
        // No such name, no such address, no route.
        for address in ["no-such-host.invalid:1", "decode-3", "255.255.255.255:1"] {
            assert!(matches!(probe(address, soon()), Probe::Unknown(_)), "{address}");
            assert!(matches!(reach(address, soon()), Err(NoConnect::Unknown(_))), "{address}");
        }
        let over = Instant::now();
        assert!(matches!(probe(closed, over), Probe::Unknown(_)), "nothing was tried");
    }

    #[test]
    fn what_ends_a_handshake_is_asked_once_more_and_is_not_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let ends = thread::spawn(move || (0..2).for_each(|_| drop(listener.accept())));
        assert_eq!(probe(&address, soon()), Probe::Silent);
        ends.join().unwrap();
    }

    #[test]
    fn another_program_is_told_from_an_engine() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let speaks = thread::spawn(move || listener.accept().unwrap().0.write_all(&[b'#'; 256]));
        assert!(matches!(probe(&address, soon()), Probe::Gone(reason) if reason.contains("another program")));
        speaks.join().unwrap().unwrap();
    }
}

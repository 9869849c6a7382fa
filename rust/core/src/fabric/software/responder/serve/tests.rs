//! The loop, turn by turn.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;

use super::*;
use crate::fabric::software::endpoint::Endpoint;
use crate::fabric::software::faults::FaultPlan;
use crate::fabric::software::signal::Signal;
use crate::fabric::software::tcp::frame::{FrameKind, RESPONSE_SIZE, RequestHeader};
use crate::fabric::{QpAddress, SoftwareOptions};
use crate::fork::OwnSocket;

/// A peer with requests that are done as soon as they are seen.
struct Peer {
    socket: UnixStream,
    asked: u64,
}

impl Peer {
    /// Connected to a queue pair of its own.
    fn connect(server: &mut Loop) -> Self {
        let listener = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let make = |address, slot| Endpoint::new(address, slot, Arc::new(Signal::new().unwrap()));
        let (endpoint, number) = server.core.add_queue_pair(listener, make).unwrap();
        let sender = QpAddress { qpn: 1 << 20 | number as u32, ..endpoint.address };
        assert!(endpoint.set_peer(sender));
        let (socket, theirs) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        let record = server.core.wrong_keys.of(listener.ip(), Instant::now());
        server.add(Box::new(Server::new(OwnSocket::new(theirs.into()), endpoint, sender, record)));
        Self { socket, asked: 0 }
    }

    fn ask(&mut self) {
        let sequence = self.asked;
        let header = RequestHeader {
            action: FrameKind::Write,
            following: 0,
            rkey: 0,
            remote_address: 0,
            length: 0,
            sequence,
        };
        self.socket.write_all(&header.encode()).unwrap();
        self.asked += 1;
    }

    /// Whether an answer has come since the last call.
    fn is_answered(&mut self) -> bool {
        match self.socket.read(&mut [0; 64 * RESPONSE_SIZE]) {
            Ok(0) => panic!("closed"),
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("{error}"),
        }
    }
}

/// One that polls before it sleeps, whatever other threads want the core: it has had one short wait.
fn turn(server: &mut Loop, events: &mut Vec<epoll::Event>) {
    server.polling = Polling::new(LONGEST_POLL);
    server.polling.begin().end();
    server.turn(events).unwrap();
}

/// Its next request is always there when the loop looks for it, so that nothing else ends a wait.
#[test]
fn a_peer_that_asks_without_pause_holds_up_no_other() {
    let core = Core::new("test".to_owned(), SoftwareOptions::default(), FaultPlan::default()).unwrap();
    let mut server = Loop::new(Arc::new(core), Arc::default()).unwrap();
    let (mut busy, mut other) = (Peer::connect(&mut server), Peer::connect(&mut server));
    let mut events = Vec::with_capacity(EVENTS);
    for round in 0..50 {
        // Alone for so many turns that its socket is looked at directly.
        for _ in 0..3 + round % 10 {
            busy.ask();
            turn(&mut server, &mut events);
            assert!(busy.is_answered());
        }
        other.ask();
        let mut turns = 0;
        while !other.is_answered() {
            assert!(turns < EPOLL_EVERY, "round {round}: not served in {turns} turns");
            busy.ask();
            turn(&mut server, &mut events);
            busy.is_answered();
            turns += 1;
        }
    }
}

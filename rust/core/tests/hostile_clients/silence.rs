//! Clients that must prove a key and send nothing.

use std::io::Write;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::auth::random;
use flagcx_p2p::internals::control::wire::SocketKind;
use flagcx_p2p::internals::control::wire::notification::Header;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::victim::Victim;
use crate::{support, tables, wire};

/// How long each may be silent; then less than a second for a machine that is busy.
const LIMIT: Duration = Duration::from_secs(5);
const LATE: Duration = Duration::from_secs(1);

/// Clients of every listener, silent and after as much as a client without the key can send.
fn clients([control, data, notifications]: [u16; 3], unix: &[u8]) -> Vec<(&'static str, OwnedFd)> {
    let sends = |port: u16, bytes: &[u8]| {
        let mut socket: TcpStream = wire::connect(port).unwrap();
        socket.write_all(bytes).unwrap();
        OwnedFd::from(socket)
    };
    let (preamble, hello) = (SocketKind::Notifications.encode(), Header::Hello.encode());
    let notification_hello = [&preamble[..], &hello, &random::<16>().unwrap()].concat();
    vec![
        ("control, nothing", sends(control, &[])),
        ("control, preamble", sends(control, &SocketKind::Bootstrap.encode())),
        ("data, nothing", sends(data, &[])),
        ("data, greeting", sends(data, &wire::greeting(true, random().unwrap()))),
        ("notifications, nothing", sends(notifications, &[])),
        ("notifications, preamble", sends(notifications, &preamble)),
        ("notifications, hello", sends(notifications, &notification_hello)),
        ("Unix socket, nothing", tables::dial(unix).unwrap()),
    ]
}

/// No other client waits for their places here.
#[test]
fn with_a_key_silent_clients_of_every_listener_are_closed_after_five_seconds() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, "correct horse battery staple").unwrap();
    let settings = [("FLAGCX_P2P_AUTH_KEY_FILE", key.to_str().unwrap())];
    let victim = Victim::start(&settings);
    // The data listener and the Unix socket are opened with the first peer, and stay.
    let engine = support::engine(&settings);
    drop(engine.connect("127.0.0.1", victim.port, 0, false).unwrap());
    let ports = [victim.port, victim.data_port(), victim.notify_port];
    let unix = victim.unix_name();
    let begin = Instant::now();
    let clients = clients(ports, &unix);
    for (what, client) in &clients {
        let closed = closed_by(client, begin + LIMIT + LATE);
        let after = begin.elapsed();
        println!("{what}: closed after {after:?}");
        assert!(closed, "{what}: open after {after:?}");
    }
    // Not at once: a peer may need some of that.
    assert!(begin.elapsed() >= LIMIT, "{:?}", begin.elapsed());
}

/// Waits for the end of a socket on which the victim may have sent data before.
fn closed_by(socket: &OwnedFd, deadline: Instant) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::RDHUP)];
    let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).unwrap();
    poll(&mut fds, Some(&left)).unwrap();
    let flags = fds[0].revents();
    flags.intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
}

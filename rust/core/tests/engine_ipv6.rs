//! Two engines that listen on IPv6: connections, sessions, transfers and notifications, over every address that travels.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

mod support;

use std::net::{Ipv6Addr, TcpListener};

use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::notify::Message;
use flagcx_p2p::internals::transfer::{Iov, Outcome};
use support::{Pair, content, eventually, outcome, pattern};

const LENGTH: usize = 64 << 10;

#[test]
fn everything_works_over_ipv6() {
    if let Err(error) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
        return println!("skipped: this machine has no IPv6 loopback: {error}");
    }
    for path in ["in-process", "tcp"] {
        let pair = Pair::with(LENGTH, &[("FLAGCX_P2P_BIND", "::1"), ("FLAGCX_P2P_PATH", path)]);
        assert!(pair.here.peer().ip.is_ipv6(), "{path}");
        let bytes = pattern(6, LENGTH);
        assert!(pair.source.write(0, &bytes));
        let id = pair.here.submit(Opcode::Write, &[pair.iov(0, 0, LENGTH as u64)][..]).unwrap();
        assert_eq!(outcome(&pair.here, id), Outcome::Done, "{path}");
        assert!(content(&pair.target) == bytes, "{path}");

        assert_eq!(pair.here.send_notification(&Message::new(b"six", b"arrived")).unwrap(), 512);
        eventually("the notification arrives", || !pair.server.take_notifications().is_empty());
    }
}

#[test]
fn sessions_are_named_with_brackets() {
    if let Err(error) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
        return println!("skipped: this machine has no IPv6 loopback: {error}");
    }
    let settings = [("FLAGCX_P2P_BIND", "::1")];
    let (client, server) = (support::engine(&settings), support::engine(&settings));
    server.start_rpc_server().unwrap();
    let target = server.allocate(LENGTH).unwrap();
    let source = client.allocate(LENGTH).unwrap();
    let session = format!("[::1]:{}", server.rpc_port().unwrap());
    let connection = client.session(&session).unwrap();
    let remote = connection.describe_remote(target.address(), LENGTH as u32).unwrap();
    let iov = Iov { local: source.address(), length: LENGTH as u64, region: Some(source.region()), remote };
    assert!(source.write(0, &pattern(7, LENGTH)));
    assert_eq!(outcome(&connection, connection.submit(Opcode::Write, &[iov][..]).unwrap()), Outcome::Done);
    assert!(content(&target) == pattern(7, LENGTH));
    assert_eq!(session, connection.peer().control.to_string());
}

//! Lanes fail and are rebuilt; the end of peers is detected.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use flagcx_p2p::internals::control::wire::SocketKind;
use flagcx_p2p::internals::control::wire::notification::Header;
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::notify::Message;
use flagcx_p2p::internals::transfer::{Iov, Outcome, RemoteRange, Status};
use support::{Pair, content, eventually, has_faults, outcome, pattern};

/// Moves `rounds` patterns and answers how many transfers failed. The bytes of every transfer reported as done are
/// compared.
fn hammer(pair: &Pair, rounds: u64) -> usize {
    const LENGTH: usize = 64 << 10;
    let mut failed = 0;
    for round in 0..rounds {
        let bytes = pattern(round, LENGTH);
        assert!(pair.source.write(0, &bytes) && pair.target.write(0, &vec![0; LENGTH]));
        let iovs: Vec<Iov> = (0..16).map(|i| pair.iov(i * 4096, i * 4096, 4000)).collect();
        let Ok(id) = pair.here.submit(Opcode::Write, iovs.as_slice()) else {
            failed += 1;
            continue;
        };
        match outcome(&pair.here, id) {
            Outcome::Done => {
                let got = content(&pair.target);
                assert!((0..16).all(|i| got[i * 4096..i * 4096 + 4000] == bytes[i * 4096..i * 4096 + 4000]));
            }
            _ => failed += 1,
        }
    }
    failed
}

#[test]
fn interrupted_requests_are_repeated_on_rebuilt_lanes() {
    if !has_faults() {
        return;
    }
    let pair = Pair::with(1 << 20, &[("FLAGCX_P2P_FAULTS", "seed=3;fail=every:211:retry-exceeded")]);
    assert_eq!(hammer(&pair, 200), 0, "an interruption is no failure");
    eventually("all lanes are back", || pair.here.info().healthy_lanes == pair.here.info().lanes);
}

#[test]
fn a_lane_that_failed_for_good_reason_serves_the_next_transfer() {
    let pair = Pair::new(1 << 20);
    let good = pair.iov(0, 0, 1000);
    for _ in 0..10 {
        let wrong = Iov { remote: RemoteRange { rkey: 0x00ab_cdef, ..good.remote }, ..good };
        let id = pair.here.submit(Opcode::Write, &[wrong]).unwrap();
        assert!(matches!(outcome(&pair.here, id), Outcome::Failed(_)));
        let id = pair.here.submit(Opcode::Write, &[good]).unwrap();
        assert_eq!(outcome(&pair.here, id), Outcome::Done);
    }
    assert_eq!(hammer(&pair, 20), 0);
}

#[test]
fn the_peer_that_closes_is_missed_at_once() {
    let pair = Pair::new(1 << 20);
    let start = Instant::now();
    pair.there.close();
    eventually("the other end notices", || !pair.here.is_usable());
    assert!(start.elapsed() < Duration::from_secs(1), "it took {:?}", start.elapsed());
    assert!(pair.here.submit(Opcode::Write, &[pair.iov(0, 0, 64)]).is_err());
}

#[test]
fn a_cancelled_transfer_ends_and_its_lanes_come_back() {
    let pair = Pair::with(8 << 20, &[("FLAGCX_P2P_FAULTS", "seed=1;delay=us:200000")]);
    let id = pair.here.submit(Opcode::Write, &[pair.iov(0, 0, 8 << 20)]).unwrap();
    let start = Instant::now();
    assert!(pair.here.cancel(id));
    assert!(start.elapsed() < Duration::from_secs(3), "it took {:?}", start.elapsed());
    match pair.here.status(id) {
        Status::Ended(Outcome::Cancelled) => {}
        // Nothing delays that fabric: all of it may have been moved before the cancelling.
        Status::Ended(Outcome::Done) if !has_faults() => {}
        status => panic!("it is {status:?}"),
    }
    let id = pair.here.submit(Opcode::Write, &[pair.iov(0, 0, 4096)]).unwrap();
    assert_eq!(outcome(&pair.here, id), Outcome::Done);
}

#[test]
fn a_transfer_that_takes_too_long_times_out() {
    if !has_faults() {
        return;
    }
    let settings = [("FLAGCX_P2P_FAULTS", "seed=1;delay=us:3000000"), ("FLAGCX_P2P_XFER_TIMEOUT_MS", "200")];
    let pair = Pair::with(1 << 20, &settings);
    let start = Instant::now();
    let id = pair.here.submit(Opcode::Write, &[pair.iov(0, 0, 4096)]).unwrap();
    assert_eq!(outcome(&pair.here, id), Outcome::TimedOut);
    assert!(start.elapsed() < Duration::from_secs(3), "it took {:?}", start.elapsed());
}

#[test]
fn notifications_reach_their_engine_both_ways() {
    let pair = Pair::new(4096);
    for round in 0..20u8 {
        let message = Message::new(b"name", &[round; 256]);
        assert_eq!(pair.here.send_notification(&message).unwrap(), 512);
        assert_eq!(pair.there.send_notification(&message).unwrap(), 512);
    }
    let (mut at_server, mut at_client) = (Vec::new(), Vec::new());
    eventually("all arrive", || {
        at_server.extend(pair.server.take_notifications());
        at_client.extend(pair.client.take_notifications());
        at_server.len() == 20 && at_client.len() == 20
    });
    assert!(at_server.iter().zip(0u8..).all(|(message, round)| message.text == [round; 256]));
}

/// When the limit of unauthenticated senders is reached, a sender with a connection is not displaced: it could not
/// know that its next message is lost.
#[test]
fn unrelated_senders_do_not_displace_a_peer() {
    let client = support::engine(&[]);
    let server = support::engine(&[("FLAGCX_P2P_NOTIF_MAX_PEERS", "1")]);
    server.start_rpc_server().unwrap();
    let host = server.address();
    let here = client.connect(&host.to_string(), server.rpc_port().unwrap(), 0, false).unwrap();
    let port: u16 = server.metadata().unwrap().rsplit_once('?').unwrap().1.parse().unwrap();
    // In the middle of a message, so that it is not displaced.
    let mut busy = std::net::TcpStream::connect((host, port)).unwrap();
    busy.write_all(&[&SocketKind::Notifications.encode()[..], &Header::Message.encode()].concat()).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    for _ in 0..10 {
        let mut client = std::net::TcpStream::connect((host, port)).unwrap();
        client.write_all(&SocketKind::Notifications.encode()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let end = client.read(&mut [0]);
        assert!(!matches!(&end, Err(error) if error.kind() == ErrorKind::WouldBlock), "it was let in");
    }
    let message = Message::new(b"name", b"text");
    here.send_notification(&message).unwrap();
    eventually("it arrives", || server.take_notifications() == [message]);
}

#[test]
fn metrics_report_what_happened() {
    if !has_faults() {
        return;
    }
    let pair = Pair::with(1 << 20, &[("FLAGCX_P2P_FAULTS", "seed=3;fail=every:100:retry-exceeded")]);
    assert_eq!(hammer(&pair, 20), 0);
    pair.here.send_notification(&Message::new(b"n", b"t")).unwrap();
    eventually("the notification arrives", || !pair.server.take_notifications().is_empty());
    let mut page = String::new();
    let peer = pair.here.info().peer;
    let value_in = |page: &str, name: &str| {
        let line =
            page.lines().find(|line| line.starts_with(name) && line.contains(&format!("peer=\"{peer}\"")));
        let line = line.unwrap_or_else(|| panic!("no {name} of {peer} in\n{page}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    // A worker counts a part right after the caller may have seen its end.
    eventually("all bytes are counted", || {
        page = flagcx_p2p::internals::observe::prometheus_text(
            &flagcx_p2p::internals::observe::registry().snapshot(),
        )
        .unwrap();
        value_in(&page, "flagcx_p2p_peer_ended_bytes") >= 20.0 * 16.0 * 4000.0
    });
    let value = |name: &str| value_in(&page, name);
    assert_eq!(value("flagcx_p2p_peer_transfers_ended"), 20.0);
    assert!(!page.contains("outcome=\"failed\",peer"), "{page}");
    assert!(value("flagcx_p2p_peer_lane_rebuilds") >= 1.0);
    assert!(value("flagcx_p2p_peer_lane_retries") >= 1.0);
    assert_eq!(value("flagcx_p2p_peer_notifications_sent"), 1.0);
    use flagcx_p2p::internals::observe::{EventKind, event_log};
    let of_peer: Vec<_> =
        event_log().recent().into_iter().filter(|event| event.peer.as_ref() == Some(&peer)).collect();
    for kind in [EventKind::Connected, EventKind::LaneError, EventKind::RecoveryBegan, EventKind::LaneRebuilt]
    {
        assert!(of_peer.iter().any(|event| event.kind == kind), "no {kind} among {of_peer:#?}");
    }
    assert!(page.contains("flagcx_p2p_transfer_latency_seconds_count"), "{page}");
    assert!(page.contains("flagcx_p2p_notifications_received"), "{page}");
}

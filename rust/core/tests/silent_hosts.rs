//! Peers with processes that are not visible from here, as on another host: they are pinged.
//!
//! Each runs in a pid namespace of its own, and the network between both is a loopback interface of the test's.
#![allow(unsafe_code, reason = "turns a network interface off")]
#![allow(
    clippy::duplicate_mod,
    reason = "helpers that another process runs, and others, share what they stand on"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod chaos;
mod forking_peer;
mod loopback;
mod namespaces;
#[cfg(feature = "verbs")]
mod nullverbs;
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chaos::network::{Network, PEER, Towards};
use chaos::proxy::Rules;
use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::Engine;
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::transfer::{Iov, Outcome};
use forking_peer::{LENGTH, Peer};
use namespaces::Namespaces;
use rustix::process::Signal;

/// A third of it is far from what the kernel's probes take, and longer than a busy machine keeps a process waiting.
const KEEPALIVE: (&str, &str) = ("FLAGCX_P2P_KEEPALIVE_MS", "4500");
const THIRD: Duration = Duration::from_millis(1500);

/// How late it may be noticed on a busy machine; the kernel would take twice as long.
const LATE: Duration = Duration::from_millis(1200);

/// Runs `body`, that of the test called `test`, in a network namespace of its own.
fn play(test: &str, body: impl FnOnce()) {
    const NAMESPACES: Namespaces = &["--user", "--map-root-user", "--net"];
    if namespaces::is_inside() {
        loopback::switch(true);
        return body();
    }
    // Peers get a pid namespace of their own in there.
    let unshare = ["unshare", "--pid", "--fork", "true"];
    match namespaces::first_of(&[NAMESPACES], &unshare) {
        Ok(namespaces) => namespaces::run(test, namespaces),
        Err(reason) => println!("skipped: no namespaces can be made: {reason}"),
    }
}

/// A peer out of sight, a connection to it, and the engine of the connection.
fn connected(keepalive: (&'static str, &'static str)) -> (Peer, Arc<Connection>, Arc<Engine>) {
    let settings = [("FLAGCX_P2P_PATH", "tcp"), ("FLAGCX_P2P_XFER_TIMEOUT_MS", "60000"), keepalive];
    let peer = Peer::out_of_sight(&settings);
    let engine = support::engine(&settings);
    let source = engine.allocate(LENGTH).unwrap();
    let here = engine.connect("127.0.0.1", peer.port, 0, false).unwrap();
    let remote = here.describe_remote(peer.address, 4096).unwrap();
    let iov = Iov { local: source.address(), length: 4096, region: Some(source.region()), remote };
    assert_eq!(support::outcome(&here, here.submit(Opcode::Write, &[iov][..]).unwrap()), Outcome::Done);
    (peer, here, engine)
}

fn expect_to_be_missed(here: &Connection, since: Instant) {
    support::eventually("the peer is missed", || !here.is_usable());
    let taken = since.elapsed();
    println!("missed after {taken:?}, a third of the keepalive time is {THIRD:?}");
    assert!((THIRD / 2..THIRD + LATE).contains(&taken), "missed after {taken:?}");
}

#[test]
fn a_host_that_vanishes_is_missed_within_a_third_of_the_keepalive_time() {
    play("a_host_that_vanishes_is_missed_within_a_third_of_the_keepalive_time", || {
        let (_peer, here, _engine) = connected(KEEPALIVE);
        let (_other, unasked, _other_engine) = connected(("FLAGCX_P2P_KEEPALIVE_MS", "0"));
        loopback::switch(false);
        expect_to_be_missed(&here, Instant::now());
        assert!(unasked.is_usable(), "0 turns the pings off");
    });
}

/// A stopped peer cannot be distinguished from one on a host that is down. An idle one stays connected.
#[test]
fn a_peer_that_answers_stays_and_one_that_is_stopped_goes() {
    play("a_peer_that_answers_stays_and_one_that_is_stopped_goes", || {
        let (peer, here, _engine) = connected(KEEPALIVE);
        std::thread::sleep(2 * THIRD);
        assert!(here.is_usable(), "it has answered");
        peer.signal(Signal::STOP);
        expect_to_be_missed(&here, Instant::now());
    });
}

/// A network that takes bytes and delivers none, in both directions or in one. Nothing is closed, as by a box that has
/// forgotten the connections. The end that hears nothing misses the other, and says so where it is heard.
#[test]
fn a_connection_that_is_half_open_ends_and_the_next_one_works() {
    play("a_connection_that_is_half_open_ends_and_the_next_one_works", || {
        for lost in [&[Towards::Peer, Towards::Here][..], &[Towards::Here], &[Towards::Peer]] {
            let network = Network::new(1);
            let settings = [("FLAGCX_P2P_XFER_TIMEOUT_MS", "60000"), KEEPALIVE];
            let peer = Peer::out_of_sight(&network.of_peer(&settings));
            let engine = support::engine(&network.of_here(&settings));
            let source = engine.allocate(LENGTH).unwrap();
            let write = |here: &Connection| {
                let remote = here.describe_remote(peer.address, LENGTH as u32).unwrap();
                let (local, region) = (source.address(), Some(source.region()));
                let iov = Iov { local, length: LENGTH as u64, region, remote };
                here.submit(Opcode::Write, &[iov][..]).unwrap()
            };
            let here = engine.connect(PEER, peer.port, 0, false).unwrap();
            assert_eq!(support::outcome(&here, write(&here)), Outcome::Done);
            for towards in lost {
                network.set(*towards, Rules { losing: true, ..Rules::default() });
            }
            let since = Instant::now();
            let under_way = write(&here);
            println!("lost: {lost:?}");
            expect_to_be_missed(&here, since);
            assert!(matches!(support::outcome(&here, under_way), Outcome::Failed(_)));
            network.heal();
            let next = engine.connect(PEER, peer.port, 0, false).unwrap();
            assert_eq!(support::outcome(&next, write(&next)), Outcome::Done);
        }
    });
}

/// The same network, with `FLAGCX_P2P_CONTROL_REDIAL`: unanswered pings have the channel made anew over an address that does not lead through it. Lanes,
/// and the transfer on them, go on when the box says that it has forgotten them.
#[test]
fn a_channel_that_is_half_open_is_made_anew() {
    play("a_channel_that_is_half_open_is_made_anew", || {
        for lost in [&[Towards::Peer, Towards::Here][..], &[Towards::Here]] {
            let network = Network::new(2);
            let settings = [
                ("FLAGCX_P2P_XFER_TIMEOUT_MS", "60000"),
                ("FLAGCX_P2P_CONTROL_REDIAL", "20000"),
                ("FLAGCX_P2P_CONTROL_REDIAL_ADDRESSES", "127.0.0.2,127.0.0.1"),
                KEEPALIVE,
            ];
            let peer = Peer::out_of_sight(&network.of_peer(&settings));
            let engine = support::engine(&network.of_here(&settings));
            let source = engine.allocate(LENGTH).unwrap();
            let here = engine.connect(PEER, peer.port, 0, false).unwrap();
            let remote = here.describe_remote(peer.address, LENGTH as u32).unwrap();
            let (local, region) = (source.address(), Some(source.region()));
            let iov = Iov { local, length: LENGTH as u64, region, remote };
            let write = || here.submit(Opcode::Write, &[iov][..]).unwrap();
            assert_eq!(support::outcome(&here, write()), Outcome::Done);
            support::eventually("this end knows where to dial", || here.channel_record().is_resumable());
            for towards in lost {
                network.set(*towards, Rules { losing: true, ..Rules::default() });
            }
            let (since, under_way) = (Instant::now(), write());
            support::eventually("the channel is made anew", || here.channel_record().resumed() == 1);
            println!("lost: {lost:?}, made anew after {:?}", since.elapsed());
            assert!(since.elapsed() < THIRD + LATE, "{:?}", since.elapsed());
            network.heal();
            assert_eq!(support::outcome(&here, under_way), Outcome::Done);
            assert_eq!(support::outcome(&here, write()), Outcome::Done);
            assert!(here.is_usable());
        }
    });
}

/// Not a test of its own: what the other processes of the tests above run.
#[test]
fn peer_process() {
    forking_peer::play();
}

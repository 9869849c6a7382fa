//! Two engines with a network between them that stalls, trickles, delays, flips bits and is cut: the end of each call, in time.
//!
//! The network is a pair of proxies on loopback, so this needs no namespace. Random schedules of such faults are the chaos
//! suite's.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod chaos;
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chaos::arena::Far;
use chaos::network::{Network, PEER, Towards};
use chaos::peer::Peer;
use chaos::proxy::Rules;
use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::{Engine, EngineError};
use flagcx_p2p::internals::fabric::{Opcode, PathKind};
use flagcx_p2p::internals::notify::Message;
use flagcx_p2p::internals::transfer::{Iov, Outcome, Status};
use rustix::process::Signal;
use support::{Pair, blocks, content, eventually, outcome, pattern};

/// More than sockets and proxies hold.
const LENGTH: usize = 24 << 20;

const XFER_TIMEOUT: Duration = Duration::from_millis(400);
/// Of `docs/reliability.md`: the time-out, 50 ms and the drain; and what a busy machine adds.
const ENDED: Duration = Duration::from_millis(400 + 50 + 2000 + 1000);
/// A rebuild after the network is whole: the step under way is given up after 3 s.
const RECOVERED: Duration = Duration::from_secs(5);
/// Connect time-out and handshake time-out, and what a busy machine adds.
const CONNECTED: Duration = Duration::from_millis(300 + 500 + 1000);

const SETTINGS: &[(&str, &str)] = &[
    ("FLAGCX_P2P_XFER_TIMEOUT_MS", "400"),
    ("FLAGCX_P2P_CONNECT_TIMEOUT_MS", "300"),
    ("FLAGCX_P2P_HANDSHAKE_TIMEOUT_MS", "500"),
    ("FLAGCX_P2P_QPS_PER_CONN", "2"),
    ("FLAGCX_P2P_WORKERS_PER_POOL", "2"),
];

const STALLED: Rules = Rules { stalled: true, ..WHOLE };
const TRICKLING: Rules = Rules { rate: Some(1), ..WHOLE };
const WHOLE: Rules = Rules {
    delay: Duration::ZERO,
    rate: None,
    segment: None,
    stalled: false,
    losing: false,
    flip_every: None,
};

/// Two engines with a network between them; `settings` win over [`SETTINGS`].
fn pair(network: &Network, length: usize, settings: &[(&str, &str)]) -> Pair {
    let settings = [settings, SETTINGS].concat();
    let client = support::engine(&network.of_here(&settings));
    let server = support::engine(&network.of_peer(&settings));
    let source = client.allocate(length).unwrap();
    let target = server.allocate(length).unwrap();
    let (here, there) = connect_both(&client, &server);
    assert_eq!(here.info().path, PathKind::Tcp);
    Pair { client, server, here, there, source, target }
}

/// Connects, and gives both ends. Accepts that fail are those of earlier connects.
fn connect_both(client: &Arc<Engine>, server: &Arc<Engine>) -> (Arc<Connection>, Arc<Connection>) {
    let acceptor = Arc::clone(server);
    let acceptor = std::thread::spawn(move || {
        let accepted = std::iter::repeat_with(|| acceptor.accept()).find_map(Result::ok);
        accepted.unwrap().connection
    });
    let here = connect(client, server).unwrap();
    (here, acceptor.join().unwrap())
}

fn connect(client: &Arc<Engine>, server: &Arc<Engine>) -> Result<Arc<Connection>, EngineError> {
    client.connect(PEER, server.rpc_port().unwrap(), 0, false)
}

/// Moves all of the buffer by `opcode`, and compares it if it is done; and how long that took.
fn transfer(pair: &Pair, opcode: Opcode, seed: u64) -> (Outcome, Duration) {
    let length = pair.source.len();
    let (from, to) = match opcode {
        Opcode::Write => (&pair.source, &pair.target),
        Opcode::Read => (&pair.target, &pair.source),
    };
    let bytes = blocks(seed, length);
    assert!(from.write(0, &bytes));
    let begin = Instant::now();
    let id = pair.here.submit(opcode, &[pair.iov(0, 0, length as u64)][..]).unwrap();
    let outcome = outcome(&pair.here, id);
    let taken = begin.elapsed();
    assert!(outcome != Outcome::Done || content(to) == bytes, "done, and other bytes are there");
    (outcome, taken)
}

/// Until a transfer is done on the same connection.
fn expect_recovery(pair: &Pair) {
    let begin = Instant::now();
    while pair.here.submit(Opcode::Write, &[pair.iov(0, 0, 64)][..]).is_err()
        || transfer(pair, Opcode::Write, 99).0 != Outcome::Done
    {
        assert!(begin.elapsed() < RECOVERED, "no transfer is done after {:?}", begin.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("recovered after {:?}", begin.elapsed());
}

/// Zero window: the peer's side reads nothing of what we write, or we get nothing of what we read.
#[test]
fn a_transfer_to_a_peer_that_reads_nothing_times_out_and_the_connection_recovers() {
    for (opcode, towards) in [(Opcode::Write, Towards::Peer), (Opcode::Read, Towards::Here)] {
        let network = Network::new(1);
        let pair = pair(&network, LENGTH, &[]);
        assert_eq!(transfer(&pair, opcode, 1).0, Outcome::Done);
        network.set(towards, STALLED);
        let (outcome, taken) = transfer(&pair, opcode, 2);
        assert_eq!(outcome, Outcome::TimedOut);
        println!("{opcode:?}: timed out after {taken:?}");
        assert!((XFER_TIMEOUT..ENDED).contains(&taken), "{opcode:?} timed out after {taken:?}");
        network.heal();
        expect_recovery(&pair);
    }
}

/// The peer reads our memory and does not take the bytes that we send it. Its data socket is full; others are served.
#[test]
fn a_peer_that_takes_no_answers_delays_no_other() {
    let network = Network::new(2);
    let stuck = pair(&network, LENGTH, &[("FLAGCX_P2P_XFER_TIMEOUT_MS", "15000")]);
    let bytes = blocks(3, LENGTH);
    assert!(stuck.source.write(0, &bytes));
    let remote = stuck.there.describe_remote(stuck.source.address(), LENGTH as u32).unwrap();
    let (local, region) = (stuck.target.address(), Some(stuck.target.region()));
    let read = |length: u64| {
        let iov = Iov { local, length, region, remote };
        stuck.there.submit(Opcode::Read, &[iov][..]).unwrap()
    };
    assert_eq!(outcome(&stuck.there, read(1 << 20)), Outcome::Done);
    network.freeze(Towards::Peer);
    let id = read(LENGTH as u64);

    let other = support::engine(&[("FLAGCX_P2P_PATH", "tcp")]);
    let memory = other.allocate(1 << 20).unwrap();
    let acceptor = Arc::clone(&stuck.client);
    let acceptor = std::thread::spawn(move || acceptor.accept().unwrap().connection);
    let port = stuck.client.rpc_port().unwrap();
    let beside = other.connect("127.0.0.1", port, 0, false).unwrap();
    let _accepted = acceptor.join().unwrap();
    let begin = Instant::now();
    for turn in 0..50 {
        let opcode = if turn % 2 == 0 { Opcode::Read } else { Opcode::Write };
        let remote = beside.describe_remote(stuck.source.address(), 1 << 20).unwrap();
        let iov = Iov { local: memory.address(), length: 1 << 20, region: Some(memory.region()), remote };
        assert_eq!(outcome(&beside, beside.submit(opcode, &[iov][..]).unwrap()), Outcome::Done);
    }
    println!("50 transfers of another peer beside it: {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(8), "another peer waits: {:?}", begin.elapsed());
    assert_eq!(stuck.there.status(id), Status::Pending);
    network.heal();
    assert_eq!(outcome(&stuck.there, id), Outcome::Done);
    assert!(content(&stuck.target) == bytes);
}

#[test]
fn a_byte_a_second_ends_transfers_and_connects_at_their_deadlines() {
    let network = Network::new(3);
    let pair = pair(&network, 64 << 10, &[]);
    network.set_both(TRICKLING);
    for opcode in [Opcode::Write, Opcode::Read] {
        let (outcome, taken) = transfer(&pair, opcode, 4);
        assert_eq!(outcome, Outcome::TimedOut);
        assert!((XFER_TIMEOUT..ENDED).contains(&taken), "{opcode:?}: {taken:?}");
    }
    expect_refusal(&pair, "a byte a second");
    network.heal();
    expect_recovery(&pair);
}

fn expect_refusal(pair: &Pair, what: &str) {
    let begin = Instant::now();
    let error = connect(&pair.client, &pair.server).unwrap_err();
    println!("{what}: after {:?}: {error}", begin.elapsed());
    assert!(begin.elapsed() < CONNECTED, "{what}: {:?}", begin.elapsed());
    assert!(error.to_string().contains(PEER), "it names the peer: {error}");
}

#[test]
fn a_connect_over_a_broken_network_ends_at_its_deadline_and_the_next_one_works() {
    let network = Network::new(4);
    let pair = pair(&network, 4096, &[]);
    let losing = Rules { losing: true, ..WHOLE };
    for (what, towards, rules) in [
        ("stalled towards the peer", Some(Towards::Peer), STALLED),
        ("stalled towards us", Some(Towards::Here), STALLED),
        ("lost towards the peer", Some(Towards::Peer), losing),
        ("lost towards us", Some(Towards::Here), losing),
        ("refused", None, WHOLE),
    ] {
        match towards {
            Some(towards) => network.set(towards, rules),
            None => network.refuse(true),
        }
        expect_refusal(&pair, what);
        network.heal();
        let (here, there) = connect_both(&pair.client, &pair.server);
        let remote = here.describe_remote(pair.target.address(), 4096).unwrap();
        let iov = Iov { local: pair.source.address(), length: 4096, region: None, remote };
        assert_eq!(outcome(&here, here.submit(Opcode::Write, &[iov][..]).unwrap()), Outcome::Done, "{what}");
        here.close();
        eventually("the peer's end closes as well", || !there.is_usable());
    }
}

/// Everything that goes over sockets: handshake, regions, notifications, frames of both directions.
#[test]
fn what_arrives_in_pieces_and_late_arrives_whole() {
    for (seed, rules) in [
        (5, Rules { segment: Some(3), ..WHOLE }),
        (6, Rules { segment: Some(100), delay: Duration::from_millis(2), ..WHOLE }),
        (7, Rules { delay: Duration::from_millis(15), rate: Some(20_000_000), ..WHOLE }),
    ] {
        let network = Network::new(seed);
        network.set_both(rules);
        let begin = Instant::now();
        let pair = pair(
            &network,
            300_001,
            &[("FLAGCX_P2P_XFER_TIMEOUT_MS", "20000"), ("FLAGCX_P2P_HANDSHAKE_TIMEOUT_MS", "10000")],
        );
        assert_eq!(transfer(&pair, Opcode::Write, seed).0, Outcome::Done, "{rules:?}");
        assert_eq!(transfer(&pair, Opcode::Read, seed + 10).0, Outcome::Done, "{rules:?}");
        let late = pair.server.allocate(8192).unwrap();
        let iovs: Vec<Iov> = (0..500).map(|at| pair.iov(at * 500, (499 - at) * 600, 400 + at % 3)).collect();
        let id = pair.here.submit(Opcode::Write, iovs.as_slice()).unwrap();
        assert_eq!(outcome(&pair.here, id), Outcome::Done, "{rules:?}");
        let (source, target) = (content(&pair.source), content(&pair.target));
        for at in 0..500 {
            let length = 400 + at % 3;
            let (from, to) = (at * 500, (499 - at) * 600);
            assert!(source[from..from + length] == target[to..to + length], "{rules:?}, piece {at}");
        }
        assert!(pair.here.describe_remote(late.address(), 8192).is_some(), "a region that came later");
        let bytes = pattern(seed, 100_000);
        pair.here.send_notification_bytes(b"large", &bytes).unwrap();
        pair.there.send_notification(&Message::new(b"small", b"and back")).unwrap();
        let mut arrived = Vec::new();
        eventually("the large notification arrives", || {
            arrived.extend(pair.server.take_all_notifications());
            !arrived.is_empty()
        });
        assert!(arrived[0].content() == bytes, "{rules:?}");
        eventually("the small one arrives", || !pair.client.take_notifications().is_empty());
        println!("{rules:?}: {:?}", begin.elapsed());
        assert!(begin.elapsed() > 4 * rules.delay, "the network is not where the bytes travel");
    }
}

/// One way through the network fails for the connections that use it; a new connection takes another one. What the former
/// connection had written does not arrive when its way works again, in the place of what the new one has written since.
#[test]
fn bytes_of_a_connection_that_has_ended_do_not_arrive_later() {
    const LENGTH: usize = 8 << 20;
    let network = Network::new(8);
    let mut pair = pair(&network, LENGTH, &[]);
    assert_eq!(transfer(&pair, Opcode::Write, 1).0, Outcome::Done);
    network.freeze(Towards::Peer);
    assert_eq!(transfer(&pair, Opcode::Write, 2).0, Outcome::TimedOut);
    pair.here.close();
    let former = Arc::clone(&pair.there);
    (pair.here, pair.there) = connect_both(&pair.client, &pair.server);
    assert_eq!(transfer(&pair, Opcode::Write, 3).0, Outcome::Done);
    assert!(former.is_usable(), "the peer has not heard of its end");
    network.heal();
    eventually("the peer hears of the end", || !former.is_usable());
    std::thread::sleep(Duration::from_millis(50));
    assert!(content(&pair.target) == blocks(3, LENGTH), "bytes of the former connection arrive");
}

/// What a stopped peer finds in its sockets when it continues: a transfer of a connection that has ended, and the requests of
/// the next connection. The former is not carried out after the latter.
#[test]
fn a_peer_that_continues_finds_the_order_of_two_connections() {
    let length = chaos::rig::length();
    let settings = [&[("FLAGCX_P2P_PATH", "tcp"), ("FLAGCX_P2P_XFER_TIMEOUT_MS", "30")], SETTINGS].concat();
    let peer = Peer::start(&settings);
    let engine = support::engine(&settings);
    let near = engine.allocate(length).unwrap();
    let far = Far::There { pid: peer.pid(), address: peer.address, length };
    let connect = || engine.connect("127.0.0.1", peer.port, 0, false).unwrap();
    let write = |here: &Connection, seed: u64| {
        assert!(near.write(0, &blocks(seed, length)));
        let remote = here.describe_remote(peer.address, length as u32).unwrap();
        let iov = Iov { local: near.address(), length: length as u64, region: Some(near.region()), remote };
        outcome(here, here.submit(Opcode::Write, &[iov][..]).unwrap())
    };
    for turn in 0..10 {
        let here = connect();
        assert_eq!(write(&here, 1000 + turn), Outcome::Done);
        peer.signal(Signal::STOP);
        let ended = write(&here, 2000 + turn);
        here.close();
        peer.signal(Signal::CONT);
        let next = connect();
        assert_eq!(write(&next, 3000 + turn), Outcome::Done);
        std::thread::sleep(Duration::from_millis(5));
        assert!(far.content().unwrap() == blocks(3000 + turn, length), "turn {turn}: {ended:?} arrives late");
    }
}

/// TCP's checksum does not cover what a box in the middle changes, and data frames have none of their own. Ends are in
/// time, other memory of the peer stays as it is, and the engines work on over a network that is whole.
#[test]
fn flipped_bits_end_in_time_and_change_nothing_but_the_region_of_the_transfer() {
    const LENGTH: usize = 256 << 10;
    let (mut done, mut others, mut refused) = (0, 0, 0);
    for seed in 0..6 {
        let network = Network::new(seed);
        let mut pair = pair(&network, LENGTH, &[("FLAGCX_P2P_XFER_TIMEOUT_MS", "150")]);
        let bystander = pair.server.allocate(LENGTH).unwrap();
        assert!(bystander.write(0, &pattern(77, LENGTH)));
        for turn in 0..8 {
            let every = [300, 3000, 30_000][turn % 3];
            let towards = [Towards::Peer, Towards::Here][turn / 3 % 2];
            network.set(towards, Rules { flip_every: Some(every), ..WHOLE });
            let opcode = if turn % 2 == 0 { Opcode::Write } else { Opcode::Read };
            let begin = Instant::now();
            let iovs: Vec<Iov> = (0..2000).map(|at| pair.iov(at * 128, at * 128, 40)).collect();
            match pair.here.submit(opcode, iovs.as_slice()).map(|id| outcome(&pair.here, id)) {
                Ok(Outcome::Done) => done += 1,
                Ok(_) => others += 1,
                Err(_) => refused += 1,
            }
            let _ = pair.here.send_notification(&Message::new(b"flipped", b"or not"));
            assert!(begin.elapsed() < ENDED + Duration::from_secs(5), "after {:?}", begin.elapsed());
            network.heal();
            network.cut();
            assert!(content(&bystander) == pattern(77, LENGTH), "memory of another region has changed");
            (pair.here, pair.there) = connect_both(&pair.client, &pair.server);
        }
        assert_eq!(transfer(&pair, Opcode::Write, seed).0, Outcome::Done);
        assert_eq!(transfer(&pair, Opcode::Read, seed + 1).0, Outcome::Done);
    }
    println!("done: {done}, failed or timed out: {others}, refused: {refused}");
    assert!(others > 0, "no bit was flipped where it matters");
}

/// Not a test of its own: what the other process of the tests above runs.
#[test]
fn peer_process() {
    chaos::peer::play();
}

//! Two hosts on one machine: network and pid namespaces, with a veth pair between them of MTU 1500.
#![allow(unsafe_code, reason = "makes a tunnel, which has to be held open")]
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

#[path = "two_hosts/channel.rs"]
mod channel;
mod chaos;
mod odd_host;
mod second_host;
mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::{Engine, RegisteredBuffer};
use flagcx_p2p::internals::fabric::{Opcode, PathKind};
use flagcx_p2p::internals::transfer::{Iov, Outcome, TransferId};
use odd_host::{ip, play, wait_until_up};
use second_host::{Host, expect_notification, tc};
use support::{blocks, eventually, outcome};

const HERE: &str = "192.0.2.1";
const THERE: &str = "192.0.2.2";
const MIB: usize = 1 << 20;

/// How late a bound may be met on a busy machine.
const LATE: Duration = Duration::from_millis(1500);

/// Both hosts, with one connection between their engines.
struct Hosts {
    engine: Arc<Engine>,
    here: Arc<Connection>,
    near: RegisteredBuffer,
    host: Host,
}

impl Hosts {
    /// With buffers of `length` bytes.
    fn new(length: usize, settings: &[(&str, &str)]) -> Self {
        let host =
            Host::behind_a_link(&format!("addr add {THERE}/24 dev eth0; link set eth0 up; link set lo up"));
        ip(&format!("addr add {HERE}/24 dev eth0; link set eth0 up; link set lo up"));
        wait_until_up("eth0");
        Self::between((HERE, THERE), host, length, settings)
    }

    fn between(
        (here, there): (&str, &str),
        mut host: Host,
        length: usize,
        settings: &[(&str, &str)],
    ) -> Self {
        host.open(there, length, settings);
        Self::to(host, here, length, settings)
    }

    /// With an engine at `here`, and that of the other host.
    fn to(host: Host, here: &str, length: usize, settings: &[(&str, &str)]) -> Self {
        let engine = support::engine(&[&[("FLAGCX_P2P_BIND", here)], settings].concat());
        let near = engine.allocate(length).unwrap();
        let here = engine.connect(&host.ip, host.port, 0, false).unwrap();
        Self { engine, here, near, host }
    }

    /// A new connection in place of the one that there is.
    fn reconnect(&mut self) {
        self.here = self.engine.connect(&self.host.ip, self.host.port, 0, false).unwrap();
    }

    fn iov(&self, near: usize, far: usize, length: usize) -> Iov {
        let remote = self.here.describe_remote(self.host.address + far as u64, length as u32).unwrap();
        let (local, region) = (self.near.address() + near as u64, Some(self.near.region()));
        Iov { local, length: length as u64, region, remote }
    }

    fn start(&self, opcode: Opcode, length: usize) -> TransferId {
        self.here.submit(opcode, &[self.iov(0, 0, length)][..]).unwrap()
    }

    /// The first bytes of the other host's buffer.
    fn far(&self, length: usize) -> Vec<u8> {
        self.host.memory(length).content().unwrap()
    }

    /// The first bytes of this one's.
    fn near(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        assert!(self.near.read(0, &mut bytes));
        bytes
    }

    /// Moves the first `length` bytes, which must be done, and compares them.
    fn move_bytes(&self, opcode: Opcode, seed: u64, length: usize) {
        let bytes = blocks(seed, length);
        match opcode {
            Opcode::Write => assert!(self.near.write(0, &bytes)),
            Opcode::Read => assert!(self.host.memory(length).fill(&bytes)),
        }
        assert_eq!(outcome(&self.here, self.start(opcode, length)), Outcome::Done, "{opcode:?} {length}");
        let moved = if opcode == Opcode::Write { self.far(length) } else { self.near(length) };
        assert!(moved == bytes, "{opcode:?} of {length} bytes is done, and other bytes are there");
    }

    /// Until a transfer is done on a new connection.
    fn expect_a_new_connection_to_work(&mut self) {
        self.reconnect();
        self.move_bytes(Opcode::Write, 90, 4096);
        self.move_bytes(Opcode::Read, 91, 4096);
    }
}

/// Every operation in many sizes, over one connection. The bytes of both sides at the end.
fn every_operation(hosts: &mut Hosts) -> (Vec<u8>, Vec<u8>) {
    for (seed, length) in (1..).zip([1, 4096, 64 << 10, MIB + 1, 64 * MIB]) {
        hosts.move_bytes(Opcode::Write, seed, length);
        hosts.move_bytes(Opcode::Read, 100 + seed, length);
    }
    for (seed, count, length) in [(11, 64, 4096), (12, 1024, 4096), (13, 2000, 100)] {
        for opcode in [Opcode::Write, Opcode::Read] {
            assert!(hosts.near.write(0, &blocks(seed, 8 * MIB)));
            // In the opposite order there.
            let iovs: Vec<_> = (0..count)
                .map(|at| hosts.iov(at * length, (count - 1 - at) * (length + 8), length))
                .collect();
            let id = hosts.here.submit(opcode, iovs.as_slice()).unwrap();
            assert_eq!(outcome(&hosts.here, id), Outcome::Done, "{opcode:?} of {count} times {length}");
            let (near, far) = (hosts.near(8 * MIB), hosts.far(8 * MIB));
            for at in 0..count {
                let (from, to) = (at * length, (count - 1 - at) * (length + 8));
                assert!(
                    near[from..from + length] == far[to..to + length],
                    "{opcode:?}: piece {at} of {count}"
                );
            }
        }
    }
    for (seed, length) in [(21, 16), (22, 480), (23, 100_000)] {
        hosts.here.send_notification_bytes(b"first host", &blocks(seed, length)).unwrap();
        hosts.host.expect_notification(seed, length);
        hosts.host.notify(seed + 10, length);
        expect_notification(&hosts.engine, seed + 10, length);
    }
    // The other host's own transfers.
    let near = hosts.near.address();
    assert_eq!(hosts.host.transfer(Opcode::Write, near, 3 * MIB), "Done");
    assert!(hosts.near(3 * MIB) == hosts.far(3 * MIB));
    assert!(hosts.near.write(0, &blocks(31, MIB)));
    assert_eq!(hosts.host.transfer(Opcode::Read, near, MIB), "Done");
    assert!(hosts.far(MIB) == blocks(31, MIB));
    (hosts.near(64 * MIB), hosts.far(64 * MIB))
}

#[test]
fn every_operation_gives_what_it_gives_over_loopback() {
    play("every_operation_gives_what_it_gives_over_loopback", || {
        let mut hosts = Hosts::new(64 * MIB, &[]);
        // One kernel, but another network: no path but TCP, and a forced one says so.
        let (peer, info) = (hosts.here.peer().local, hosts.here.info());
        assert_eq!((peer, info.path), (false, PathKind::Tcp));
        let over_the_link = every_operation(&mut hosts);
        let forced = support::engine(&[("FLAGCX_P2P_BIND", HERE), ("FLAGCX_P2P_PATH", "cross-memory")]);
        let refused = forced.connect(THERE, hosts.host.port, 0, false).unwrap_err().to_string();
        assert!(refused.contains("cross-memory is not available"), "{refused}");
        for turn in 0..20 {
            hosts.reconnect();
            if turn % 2 == 0 {
                hosts.move_bytes(Opcode::Write, turn, 5000);
            }
            hosts.here.close();
        }
        let host = &mut hosts.host;
        eventually("it has none but the first connection and those that were dropped", || host.usable() <= 1);
        let loopback = ("127.0.0.1", "127.0.0.1");
        let mut local = Hosts::between(loopback, Host::here(), 64 * MIB, &[("FLAGCX_P2P_PATH", "tcp")]);
        assert!(every_operation(&mut local) == over_the_link, "other bytes than over loopback");
    });
}

#[test]
fn over_ipv6_with_other_mtus() {
    play("over_ipv6_with_other_mtus", || {
        let far = "addr add 2001:db8::2/64 dev eth0 nodad; link set eth0 mtu 9000; link set eth0 up";
        let host = Host::behind_a_link(far);
        ip("addr add 2001:db8::1/64 dev eth0 nodad; link set eth0 up; link set lo up");
        wait_until_up("eth0");
        let mut hosts = Hosts::between(("2001:db8::1", "2001:db8::2"), host, 64 * MIB, &[]);
        assert_eq!(hosts.here.info().path, PathKind::Tcp);
        every_operation(&mut hosts);
        hosts.expect_a_new_connection_to_work();
    });
}

/// Both ends believe in packets of 9000 bytes; what is between them loses those above 1500 without a word.
#[test]
fn packets_that_are_too_long_for_the_way_vanish() {
    play("packets_that_are_too_long_for_the_way_vanish", || {
        let far =
            format!("addr add {THERE}/24 dev eth0; link set eth0 mtu 9000; link set eth0 up; link set lo up");
        let host = Host::behind_a_link(&far);
        // eth0 - near0 | bridge0 | far0 - the other host's eth0
        ip("link set eth0 name far0; link set far0 mtu 1500");
        ip("link add eth0 mtu 9000 type veth peer name near0 mtu 1500");
        ip("link add bridge0 type bridge; link set near0 master bridge0; link set far0 master bridge0");
        ip("link set near0 up; link set far0 up; link set bridge0 up; link set lo up");
        ip(&format!("addr add {HERE}/24 dev eth0; link set eth0 up"));
        wait_until_up("eth0");
        let settings = [("FLAGCX_P2P_XFER_TIMEOUT_MS", "700"), ("FLAGCX_P2P_KEEPALIVE_MS", "30000")];
        let mut hosts = Hosts::between((HERE, THERE), host, MIB, &settings);
        hosts.move_bytes(Opcode::Write, 1, 64);
        let begin = Instant::now();
        let ended = outcome(&hosts.here, hosts.start(Opcode::Write, 5000));
        println!("5000 bytes in one packet: {ended:?} after {:?}", begin.elapsed());
        assert_eq!(ended, Outcome::TimedOut);
        assert!(begin.elapsed() < Duration::from_millis(700 + 50 + 2000) + LATE, "{:?}", begin.elapsed());
        ip("link set eth0 mtu 1500");
        hosts.host.ip("link set eth0 mtu 1500");
        let begin = Instant::now();
        eventually("the lanes are rebuilt", || {
            let info = hosts.here.info();
            assert!(hosts.here.is_usable());
            info.healthy_lanes == info.lanes
        });
        hosts.move_bytes(Opcode::Write, 2, MIB);
        println!("works {:?} after the MTUs are right", begin.elapsed());
        hosts.expect_a_new_connection_to_work();
    });
}

/// Transfers that are under way when the link goes, and are done when it is back, on the same connection.
#[test]
fn a_link_that_is_down_for_two_seconds_delays_transfers() {
    play("a_link_that_is_down_for_two_seconds_delays_transfers", || {
        let hosts = Hosts::new(64 * MIB, &[("FLAGCX_P2P_KEEPALIVE_MS", "30000")]);
        hosts.move_bytes(Opcode::Write, 1, MIB);
        assert!(hosts.near.write(0, &blocks(2, 64 * MIB)));
        let ids: Vec<_> = (0..16).map(|_| hosts.start(Opcode::Write, 64 * MIB)).collect();
        sleep(Duration::from_millis(50));
        ip("link set eth0 down");
        sleep(Duration::from_secs(2));
        let before = ids.iter().filter(|id| hosts.here.has_ended(**id)).count();
        assert!(before < ids.len(), "all were done before the link went");
        ip("link set eth0 up");
        let begin = Instant::now();
        for id in ids {
            assert_eq!(outcome(&hosts.here, id), Outcome::Done);
        }
        println!("{before} of 16 done while it was up, the others {:?} after it was back", begin.elapsed());
        assert!(hosts.far(64 * MIB) == blocks(2, 64 * MIB));
        hosts.move_bytes(Opcode::Read, 3, MIB);
    });
}

/// A third of the keepalive time, after which the other host is missed.
const MISSED: Duration = Duration::from_millis(1000);
const SHORT: [(&str, &str); 3] = [
    ("FLAGCX_P2P_KEEPALIVE_MS", "3000"),
    ("FLAGCX_P2P_XFER_TIMEOUT_MS", "5000"),
    ("FLAGCX_P2P_CONNECT_TIMEOUT_MS", "5000"),
];

/// Waits for the end of a transfer and of its connection, which must come in time at both hosts.
fn expect_end(hosts: &mut Hosts, under_way: TransferId, since: Instant) {
    let iov = hosts.iov(0, 0, 64);
    let ended = outcome(&hosts.here, under_way);
    println!("{ended:?} after {:?}", since.elapsed());
    assert!(matches!(ended, Outcome::Failed(_)), "{ended:?}");
    assert!(since.elapsed() < MISSED + LATE, "after {:?}", since.elapsed());
    eventually("the connection has ended", || !hosts.here.is_usable());
    assert!(hosts.here.submit(Opcode::Write, &[iov][..]).is_err());
    let host = &mut hosts.host;
    eventually("it has ended at the other host", || host.usable() == 0);
    assert!(since.elapsed() < MISSED + 2 * LATE, "after {:?}", since.elapsed());
}

/// Long enough for a transfer to be under way, and after it.
fn write_for_long(hosts: &Hosts) -> TransferId {
    let ids: Vec<_> = (0..8).map(|_| hosts.start(Opcode::Write, hosts.near.len())).collect();
    ids[7]
}

#[test]
fn a_link_that_stays_down_ends_transfers_and_its_return_allows_new_ones() {
    play("a_link_that_stays_down_ends_transfers_and_its_return_allows_new_ones", || {
        let mut hosts = Hosts::new(64 * MIB, &SHORT);
        hosts.move_bytes(Opcode::Write, 1, MIB);
        let under_way = write_for_long(&hosts);
        ip("link set eth0 down");
        expect_end(&mut hosts, under_way, Instant::now());
        ip("link set eth0 up");
        let begin = Instant::now();
        hosts.expect_a_new_connection_to_work();
        println!("a new connection works {:?} after the link is back", begin.elapsed());
    });
}

#[test]
fn an_address_that_changes_ends_the_connection_and_the_next_one_uses_the_new_address() {
    play("an_address_that_changes_ends_the_connection_and_the_next_one_uses_the_new_address", || {
        let mut hosts = Hosts::new(64 * MIB, &SHORT);
        hosts.move_bytes(Opcode::Write, 1, MIB);
        let under_way = write_for_long(&hosts);
        hosts.host.ip(&format!("addr del {THERE}/24 dev eth0; addr add 192.0.2.7/24 dev eth0"));
        expect_end(&mut hosts, under_way, Instant::now());
        hosts.host.open("192.0.2.7", 64 * MIB, &SHORT);
        hosts.expect_a_new_connection_to_work();
    });
}

/// Neither end gets a packet of the other's any more, nor an error.
#[test]
fn a_link_that_is_destroyed_ends_both_ends() {
    play("a_link_that_is_destroyed_ends_both_ends", || {
        let mut hosts = Hosts::new(64 * MIB, &SHORT);
        hosts.move_bytes(Opcode::Write, 1, MIB);
        let under_way = write_for_long(&hosts);
        ip("link del eth0");
        expect_end(&mut hosts, under_way, Instant::now());
    });
}

/// Loss, delay and a rate where the kernel can (netem), else the rate alone (tbf).
#[test]
fn bytes_arrive_over_a_slow_link_that_loses_packets() {
    play("bytes_arrive_over_a_slow_link_that_loses_packets", || {
        // A lost packet of a handshake is repeated after 1 s, one that is lost again after 3 s; a queue that fills delays pings.
        let settings = [
            ("FLAGCX_P2P_CONNECT_TIMEOUT_MS", "20000"),
            ("FLAGCX_P2P_HANDSHAKE_TIMEOUT_MS", "20000"),
            ("FLAGCX_P2P_KEEPALIVE_MS", "60000"),
        ];
        let mut hosts = Hosts::new(4 * MIB, &settings);
        let netem = "qdisc add dev eth0 root netem delay 20ms loss 1% rate 100mbit limit 1000";
        let tbf = "qdisc add dev eth0 root tbf rate 100mbit burst 64k latency 100ms";
        let mut apply = |arguments: &str| tc(arguments).and_then(|()| hosts.host.tc(arguments));
        let delay = match apply(netem) {
            Ok(()) => Duration::from_millis(20),
            Err(reason) => {
                println!("not run with loss and delay: {reason}");
                if let Err(reason) = apply(tbf) {
                    return println!("not run: {reason}");
                }
                Duration::ZERO
            }
        };
        let begin = Instant::now();
        hosts.move_bytes(Opcode::Write, 1, 4 * MIB);
        let write = begin.elapsed();
        hosts.move_bytes(Opcode::Read, 2, 4 * MIB);
        let read = begin.elapsed() - write;
        // At 100 Mbit/s 4 MiB take 0.33 s, less the burst.
        let least = Duration::from_millis(200) + delay;
        println!("4 MiB: written in {write:?}, read in {read:?}");
        assert!(write > least && read > least, "the link is not what the bytes travel over");
        let iovs: Vec<_> = (0..128).map(|at| hosts.iov(at * 5000, at * 6000, 4096)).collect();
        for opcode in [Opcode::Write, Opcode::Read] {
            let id = hosts.here.submit(opcode, iovs.as_slice()).unwrap();
            assert_eq!(outcome(&hosts.here, id), Outcome::Done);
            let (near, far) = (hosts.near(MIB), hosts.far(MIB));
            assert!((0..128).all(|at| near[at * 5000..at * 5000 + 4096] == far[at * 6000..at * 6000 + 4096]));
        }
        hosts.here.send_notification_bytes(b"slow", &blocks(5, 50_000)).unwrap();
        hosts.host.expect_notification(5, 50_000);
        // A handshake may lose a packet often enough to miss its deadline; then it says so, and the next one works.
        let connects = (0..3).map(|_| hosts.engine.connect(THERE, hosts.host.port, 0, false));
        let connected = connects.inspect(|tried| {
            if let Err(error) = tried {
                println!("a connect failed: {error}");
            }
        });
        hosts.here = connected.flatten().next().expect("one of three connects is done");
        hosts.move_bytes(Opcode::Write, 90, 4096);
        println!("all of it: {:?}", begin.elapsed());
        assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    });
}

/// The floor is far below what is measured, so that a busy machine does not meet it.
#[test]
fn large_writes_are_not_far_below_a_plain_socket() {
    const BYTES: usize = 256 * MIB;
    play("large_writes_are_not_far_below_a_plain_socket", || {
        let mut hosts = Hosts::new(16 * MIB, &[]);
        hosts.move_bytes(Opcode::Write, 1, 16 * MIB);
        let (mut plain, mut ours) = (Duration::MAX, Duration::MAX);
        for _ in 0..3 {
            let mut socket = TcpStream::connect((THERE, hosts.host.sink())).unwrap();
            let block = vec![7; MIB];
            let begin = Instant::now();
            (0..BYTES / MIB).for_each(|_| socket.write_all(&block).unwrap());
            socket.shutdown(Shutdown::Write).unwrap();
            socket.read_exact(&mut [0]).unwrap();
            plain = plain.min(begin.elapsed());
            let begin = Instant::now();
            let ids: Vec<_> = (0..BYTES / (16 * MIB)).map(|_| hosts.start(Opcode::Write, 16 * MIB)).collect();
            ids.iter().for_each(|id| assert_eq!(outcome(&hosts.here, *id), Outcome::Done));
            ours = ours.min(begin.elapsed());
        }
        let rate = |time: Duration| BYTES as f64 / time.as_secs_f64() / 1e9;
        let ratio = plain.as_secs_f64() / ours.as_secs_f64();
        println!("plain socket {:.2} GB/s, ours {:.2} GB/s, ratio {ratio:.2}", rate(plain), rate(ours));
        assert!(ratio > 0.1, "{ratio:.2} of a plain socket");
    });
}

/// Not a test of its own: what the second host of the tests above runs.
#[test]
fn process_of_the_second_host() {
    second_host::play();
}

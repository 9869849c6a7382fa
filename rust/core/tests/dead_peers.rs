//! Peers that end without Goodbye: the time until that is detected.
//!
//! The bounds of `docs/reliability.md`, measured with the product's own constants where no setting shortens them.
#![allow(unsafe_code, reason = "turns a network interface off")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod chaos;
mod loopback;
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::control::wire::SocketKind;
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::transfer::{Iov, Outcome, Status};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use support::{Pair, outcome};

/// One lane, over sockets, and nothing else that could end the connection first.
const SETTINGS: &[(&str, &str)] = &[
    ("FLAGCX_P2P_PATH", "tcp"),
    ("FLAGCX_P2P_QPS_PER_CONN", "1"),
    ("FLAGCX_P2P_WORKERS_PER_POOL", "1"),
    ("FLAGCX_P2P_XFER_TIMEOUT_MS", "300"),
    ("FLAGCX_P2P_KEEPALIVE_MS", "0"),
];

/// The role of another process.
const ROLE: &str = "FLAGCX_P2P_TEST_DEAD_PEER";

fn seconds(range: Range<u64>) -> Range<Duration> {
    Duration::from_secs(range.start)..Duration::from_secs(range.end)
}

/// Stops a child, and returns when no thread of it runs any more: until then it might answer.
fn stop(child: Pid) {
    kill_process(child, Signal::STOP).unwrap();
    let (_, status) = waitpid(Some(child), WaitOptions::UNTRACED).unwrap().unwrap();
    assert!(status.stopped(), "{status:?}");
}

/// A write that breaks the lane because its peer is stopped; then waits until the connection ends, which must take a
/// time in `bounds`.
fn expect_to_be_given_up(connection: &Connection, iov: Iov, bounds: Range<Duration>) {
    let start = Instant::now();
    let id = connection.submit(Opcode::Write, &[iov][..]).unwrap();
    assert_eq!(outcome(connection, id), Outcome::TimedOut);
    while connection.is_usable() {
        assert!(start.elapsed() < bounds.end, "still usable after {:?}", start.elapsed());
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("given up after {:?}", start.elapsed());
    assert!(bounds.contains(&start.elapsed()), "given up after {:?}", start.elapsed());
    assert!(connection.submit(Opcode::Write, &[iov][..]).is_err());
}

#[test]
fn the_leader_closes_after_three_unanswered_rebuilds() {
    let peer = chaos::peer::Peer::start(SETTINGS);
    let engine = support::engine(SETTINGS);
    let source = engine.allocate(4096).unwrap();
    let here = engine.connect("127.0.0.1", peer.port, 0, false).unwrap();
    let remote = here.describe_remote(peer.address, 4096).unwrap();
    let iov = Iov { local: source.address(), length: 4096, region: Some(source.region()), remote };
    assert_eq!(outcome(&here, here.submit(Opcode::Write, &[iov][..]).unwrap()), Outcome::Done);
    stop(Pid::from_raw(peer.pid()).unwrap());
    expect_to_be_given_up(&here, iov, seconds(9..14));
}

#[test]
fn the_follower_closes_when_no_rebuild_is_requested() {
    let engine = support::engine(SETTINGS);
    let source = engine.allocate(4096).unwrap();
    let port = engine.rpc_port().unwrap();
    let mut peer = other_process(Command::new(std::env::current_exe().unwrap()), &format!("connect {port}"));
    let there = engine.accept().unwrap().connection;
    let remote = there.describe_remote(peer.number(), 4096).unwrap();
    let iov = Iov { local: source.address(), length: 4096, region: Some(source.region()), remote };
    assert_eq!(outcome(&there, there.submit(Opcode::Write, &[iov][..]).unwrap()), Outcome::Done);
    stop(Pid::from_child(&peer.child));
    expect_to_be_given_up(&there, iov, seconds(12..17));
}

#[test]
fn a_host_that_vanishes_is_missed_within_the_keepalive_time() {
    expect_to_be_missed("vanish");
}

#[test]
fn a_sender_of_notifications_that_vanishes_gives_its_place_back() {
    expect_to_be_missed("vanish notifying");
}

/// Plays `role` in a network of its own, in which both ends lose sight of each other without a packet.
fn expect_to_be_missed(role: &str) {
    let in_namespace = |program: &std::ffi::OsStr| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net"]).arg(program);
        command
    };
    match in_namespace("true".as_ref()).output() {
        Ok(tried) if tried.status.success() => {}
        Ok(tried) => {
            let reason = String::from_utf8_lossy(&tried.stderr).trim().to_owned();
            return println!("skipped: no network namespace can be made: {reason}");
        }
        Err(error) => return println!("skipped: no network namespace can be made: unshare: {error}"),
    }
    let mut network = other_process(in_namespace(std::env::current_exe().unwrap().as_os_str()), role);
    let milliseconds = network.number();
    println!("missed after {milliseconds} ms with FLAGCX_P2P_KEEPALIVE_MS={KEEPALIVE_MS}");
    assert!((1000..2 * KEEPALIVE_MS + 1000).contains(&milliseconds), "missed after {milliseconds} ms");
}

const KEEPALIVE_MS: u64 = 2000;

/// Two engines connected through a loopback interface that then goes down: for each the other's host is down. Returns
/// the milliseconds until both have detected it and a transfer under way has ended.
fn vanish() -> u64 {
    loopback::switch(true);
    let keepalive = KEEPALIVE_MS.to_string();
    let pair = Pair::with(
        1 << 20,
        &[
            ("FLAGCX_P2P_PATH", "tcp"),
            ("FLAGCX_P2P_KEEPALIVE_MS", &keepalive),
            ("FLAGCX_P2P_XFER_TIMEOUT_MS", "60000"),
            // So long under way that it is on the wire when the host goes.
            ("FLAGCX_P2P_FAULTS", "seed=1;delay=us:100000"),
        ],
    );
    let write = || pair.here.submit(Opcode::Write, &[pair.iov(0, 0, 1 << 20)][..]).unwrap();
    assert_eq!(outcome(&pair.here, write()), Outcome::Done);
    let under_way = write();
    loopback::switch(false);
    let start = Instant::now();
    let ended = |connection: &Arc<Connection>| !connection.is_usable();
    support::eventually("both ends have detected it", || ended(&pair.here) && ended(&pair.there));
    assert!(matches!(pair.here.wait(under_way, Duration::from_secs(3)), Status::Ended(Outcome::Failed(_))));
    start.elapsed().as_millis() as u64
}

/// A sender of notifications that sends nothing after its preamble; only the receiver probes. Returns the
/// milliseconds until the receiver's end of the socket is closed.
fn vanish_notifying() -> u64 {
    loopback::switch(true);
    let engine = support::engine(&[("FLAGCX_P2P_KEEPALIVE_MS", &KEEPALIVE_MS.to_string())]);
    let port: u16 = engine.metadata().unwrap().rsplit_once('?').unwrap().1.parse().unwrap();
    let mut sender = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    sender.write_all(&SocketKind::Notifications.encode()).unwrap();
    // Its state is 1, established; a socket that is shutting down would have another one.
    let end = format!("0100007F:{port:04X} 0100007F:{:04X} 01", sender.local_addr().unwrap().port());
    let is_open = || std::fs::read_to_string("/proc/self/net/tcp").unwrap().contains(&end);
    support::eventually("the sender is in", is_open);
    loopback::switch(false);
    let start = Instant::now();
    while is_open() && start.elapsed() < support::LIMIT {
        std::thread::sleep(Duration::from_millis(5));
    }
    start.elapsed().as_millis() as u64
}

/// This binary in another process, which answers with a number.
struct Other {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

fn other_process(mut command: Command, role: &str) -> Other {
    let mut child = command
        .args(["--exact", "other_process_of_this_suite", "--nocapture"])
        .env(ROLE, role)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    Other { child, output }
}

impl Other {
    fn number(&mut self) -> u64 {
        let mut lines = self.output.by_ref().lines().map_while(Result::ok);
        let answer = lines.find_map(|line| line.split_once("answer:")?.1.trim().parse().ok());
        answer.unwrap_or_else(|| panic!("the other process gave no answer"))
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test of its own: what the other process of the tests above runs.
#[test]
fn other_process_of_this_suite() {
    let Ok(role) = std::env::var(ROLE) else { return };
    match role.as_str() {
        "vanish" => return println!("\nanswer: {}", vanish()),
        "vanish notifying" => return println!("\nanswer: {}", vanish_notifying()),
        _ => {}
    }
    let port = role.strip_prefix("connect ").unwrap().parse().unwrap();
    let engine = support::engine(SETTINGS);
    let target = engine.allocate(4096).unwrap();
    let _connection = engine.connect("127.0.0.1", port, 0, false).unwrap();
    println!("\nanswer: {}", target.address());
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// The same for the peer that the chaos harness starts.
#[test]
fn peer_process() {
    chaos::peer::play();
}

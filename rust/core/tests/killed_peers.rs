//! Peers that are killed while a process that they have forked keeps all of their sockets open. The sockets stay
//! open, and the end is detected at once nevertheless.
#![allow(unsafe_code, reason = "forks, and asks for the time that this process has used")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod forking_peer;
#[cfg(feature = "verbs")]
mod nullverbs;
mod support;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::{Engine, RegisteredBuffer};
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::notify::Message;
use flagcx_p2p::internals::observe::{EventKind, event_log};
use flagcx_p2p::internals::transfer::{Iov, Outcome, Status, TransferId};
use forking_peer::{LENGTH, Peer};
use rustix::process::Signal;

/// Generous: it takes a millisecond where nothing else runs.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Longer than anything here takes, so that it is not what ends a transfer.
const PATIENT: (&str, &str) = ("FLAGCX_P2P_XFER_TIMEOUT_MS", "60000");

/// The time that this process has used is measured: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection to a peer in another process, with a helper that holds the peer's descriptors.
struct Pair {
    here: Arc<Connection>,
    source: RegisteredBuffer,
    engine: Arc<Engine>,
    peer: Peer,
}

impl Pair {
    fn new(settings: &[(&str, &str)]) -> Self {
        Self::towards(Peer::start(settings), support::engine(settings))
    }

    fn towards(mut peer: Peer, engine: Arc<Engine>) -> Self {
        let source = engine.allocate(LENGTH).unwrap();
        let here = engine.connect("127.0.0.1", peer.port, 0, false).unwrap();
        peer.fork();
        Self { here, source, engine, peer }
    }

    fn iov(&self) -> Iov {
        let remote = self.here.describe_remote(self.peer.address, LENGTH as u32).unwrap();
        let (local, region) = (self.source.address(), Some(self.source.region()));
        Iov { local, length: LENGTH as u64, region, remote }
    }

    fn write(&self) -> TransferId {
        self.here.submit(Opcode::Write, &[self.iov()][..]).unwrap()
    }

    /// Kills the peer, and waits until that is noticed; answers how long it took.
    fn kill(&mut self) -> Duration {
        let iov = self.iov();
        assert!(self.here.is_usable());
        let start = Instant::now();
        self.peer.kill();
        support::eventually("the end of the peer is noticed", || !self.here.is_usable());
        let taken = start.elapsed();
        assert!(taken < AT_ONCE, "noticed after {taken:?}");
        assert!(
            self.here.submit(Opcode::Write, &[iov][..]).is_err(),
            "a dead peer's connection takes nothing"
        );
        taken
    }
}

/// The processor time of this process.
fn cpu_time() -> Duration {
    // SAFETY: all zeroes are a value of `rusage`, which the call fills.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &raw mut usage), 0);
        usage
    };
    let of = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    of(usage.ru_utime) + of(usage.ru_stime)
}

/// After a peer's death nothing spins.
fn expect_rest() {
    const SPAN: Duration = Duration::from_millis(300);
    // What the end of the connection costs is done before.
    std::thread::sleep(Duration::from_millis(50));
    let before = cpu_time();
    std::thread::sleep(SPAN);
    let used = cpu_time() - before;
    assert!(used < SPAN / 10, "{used:?} in {SPAN:?}");
}

#[test]
fn an_idle_connection_ends_with_its_peer() {
    let _alone = alone();
    for path in ["cross-memory", "tcp"] {
        let mut pair = Pair::new(&[("FLAGCX_P2P_PATH", path), PATIENT]);
        assert_eq!(support::outcome(&pair.here, pair.write()), Outcome::Done);
        println!("{path}: noticed after {:?}", pair.kill());
        support::eventually("its lanes are closed", || pair.here.info().healthy_lanes == 0);
        expect_rest();
    }
}

/// What is under way when the peer dies fails at once, and so does what comes next; nothing waits for a rebuild.
#[test]
fn transfers_fail_with_their_peer() {
    let _alone = alone();
    for path in ["cross-memory", "tcp"] {
        // So long under way that the peer dies before they are done.
        let settings = [("FLAGCX_P2P_PATH", path), PATIENT, ("FLAGCX_P2P_FAULTS", "seed=1;delay=us:300000")];
        let mut pair = Pair::new(&settings);
        let under_way: Vec<_> = (0..8).map(|_| pair.write()).collect();
        let start = Instant::now();
        pair.kill();
        for id in under_way {
            match pair.here.wait(id, support::LIMIT) {
                Status::Ended(Outcome::Failed(failure)) => {
                    assert!(failure.reason.contains("has ended"), "{failure:?}");
                }
                other => panic!("{path}: {other:?}"),
            }
        }
        assert!(start.elapsed() < AT_ONCE, "{path}: {:?}", start.elapsed());
        // Whatever is seen first: the end of the process, of its sockets, or the failure of a lane.
        let peer = pair.here.info().peer;
        let ends: Vec<_> = event_log()
            .recent()
            .into_iter()
            .filter(|event| event.peer.as_ref() == Some(&peer))
            .filter(|event| matches!(event.kind, EventKind::ConnectionLost | EventKind::ConnectionEnded))
            .collect();
        assert!(matches!(&ends[..], [end] if end.kind == EventKind::ConnectionLost), "{path}: {ends:?}");
    }
}

/// Each rebuilt lane is watched, and no earlier one leaves something behind that is readable for ever once the peer is
/// dead.
#[test]
fn a_peer_with_rebuilt_lanes_is_missed_as_well() {
    let _alone = alone();
    for path in ["cross-memory", "tcp"] {
        let faults = ("FLAGCX_P2P_FAULTS", "seed=3;fail=every:7:retry-exceeded");
        let mut pair = Pair::new(&[("FLAGCX_P2P_PATH", path), PATIENT, faults]);
        for _ in 0..60 {
            assert_eq!(support::outcome(&pair.here, pair.write()), Outcome::Done);
        }
        println!("{path}: noticed after {:?}", pair.kill());
        expect_rest();
    }
}

/// All connections to a process end with it, those of other engines too, and those that it has begun.
#[test]
fn every_connection_to_the_process_ends() {
    let _alone = alone();
    let settings = [("FLAGCX_P2P_PATH", "tcp"), PATIENT];
    let other = support::engine(&settings);
    let mut peer = Peer::start(&settings);
    let accepting = {
        let other = Arc::clone(&other);
        std::thread::spawn(move || other.accept().unwrap().connection)
    };
    peer.connect(other.rpc_port().unwrap());
    let accepted = accepting.join().unwrap();
    let more: Vec<_> = (0..4).map(|_| other.connect("127.0.0.1", peer.port, 0, false).unwrap()).collect();
    let mut pair = Pair::towards(peer, support::engine(&settings));
    let start = Instant::now();
    pair.kill();
    support::eventually("all ends notice", || {
        !accepted.is_usable() && more.iter().all(|connection| !connection.is_usable())
    });
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
}

#[test]
fn a_session_finds_the_next_process() {
    let _alone = alone();
    let settings = [("FLAGCX_P2P_PATH", "tcp"), PATIENT];
    let mut pair = Pair::new(&settings);
    let session = format!("127.0.0.1:{}", pair.peer.port);
    let first = pair.engine.session(&session).unwrap();
    pair.kill();
    support::eventually("the session's connection ends too", || !first.is_usable());
    // The helper gives the port free.
    let port = pair.peer.port;
    pair.peer.end_helper();
    let range = format!("{port}-{}", port.saturating_add(20));
    let next = Peer::start(&[&settings[..], &[("FLAGCX_P2P_PORT_RANGE", &range)]].concat());
    if next.port != pair.peer.port {
        return println!("not tested: another program has taken port {port}");
    }
    let second = pair.engine.session(&session).unwrap();
    assert!(second.is_usable() && !Arc::ptr_eq(&first, &second));
}

/// A dead peer no longer counts among the senders, also where its host is still connected; its messages are not lost.
#[test]
fn the_place_of_a_dead_sender_is_given_back() {
    let _alone = alone();
    let settings = [("FLAGCX_P2P_NOTIF_MAX_PEERS", "2"), PATIENT];
    let engine = support::engine(&settings);
    let staying = Pair::towards(Peer::start(&settings), Arc::clone(&engine));
    for number in 0..3 {
        let mut pair = Pair::towards(Peer::start(&settings), Arc::clone(&engine));
        pair.peer.notify(number);
        pair.kill();
        let mut received = Vec::new();
        support::eventually("the peer's message arrives", || {
            received.extend(engine.take_notifications());
            !received.is_empty()
        });
        assert_eq!(received, [Message::new(b"killed", number.to_string().as_bytes())]);
    }
    assert!(staying.here.is_usable());
}

/// A stopped process is there: nothing of the same host is given up because it is silent.
#[test]
fn a_stopped_peer_of_this_host_is_waited_for() {
    let _alone = alone();
    // Shorter than it is stopped.
    let settings = [("FLAGCX_P2P_PATH", "tcp"), PATIENT, ("FLAGCX_P2P_KEEPALIVE_MS", "450")];
    let pair = Pair::new(&settings);
    pair.peer.signal(Signal::STOP);
    std::thread::sleep(Duration::from_millis(700));
    assert!(pair.here.is_usable());
    pair.peer.signal(Signal::CONT);
    assert_eq!(support::outcome(&pair.here, pair.write()), Outcome::Done);
}

/// Over verbs nothing but the control connection belongs to the peer's process.
#[cfg(feature = "verbs")]
#[test]
fn a_connection_over_verbs_ends_with_its_peer() {
    let _alone = alone();
    let settings = [("FLAGCX_P2P_FABRIC", "verbs"), ("FLAGCX_P2P_BIND", "127.0.0.1"), PATIENT];
    let peer = Peer::start(&settings);
    let mut pair = Pair::towards(peer, forking_peer::engine(&settings));
    println!("verbs: noticed after {:?}", pair.kill());
    expect_rest();
}

/// Not a test of its own: what the other processes of the tests above run.
#[test]
fn peer_process() {
    forking_peer::play();
}

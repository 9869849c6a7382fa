//! Memory that goes away while it is registered: the request that names it fails, with the side of the memory; its
//! neighbours do not, no process dies, and the lanes are rebuilt.
#![allow(unsafe_code, reason = "registers memory by address, and filters system calls")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests report what they could not run"
)]

mod support;
mod vanishing_peer;

use std::sync::Arc;

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::{Engine, RegisterOptions, RegisteredBuffer};
use flagcx_p2p::internals::fabric::{CompletionStatus, Opcode};
use flagcx_p2p::internals::transfer::{Iov, Outcome, TransferId};
use support::outcome;
use support::vanishing::{How, PAGE, Vanishing};
use vanishing_peer::{Far, FarEngine, Peer};

/// The longest transfer.
const MOST: usize = 64 << 20;
/// Bytes of each transfer that is to be done beside the one that fails.
const GOOD: usize = 5000;

/// The side of the vanishing memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Initiator,
    Target,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    side: Side,
    how: How,
    opcode: Opcode,
    length: usize,
}

impl Case {
    /// The first bytes of long ones stay.
    fn from(self) -> usize {
        if self.length <= PAGE { 0 } else { (self.length / 2).next_multiple_of(PAGE) }
    }

    /// Whether the memory is written to.
    fn writes(self) -> bool {
        (self.side == Side::Target) == (self.opcode == Opcode::Write)
    }

    fn status(self) -> CompletionStatus {
        match self.side {
            Side::Initiator => CompletionStatus::LocalProtection,
            Side::Target => CompletionStatus::RemoteAccess,
        }
    }
}

fn cases(is_meant: impl Fn(How) -> bool) -> impl Iterator<Item = Case> {
    let mut cases = Vec::new();
    for how in How::ALL.into_iter().filter(|how| is_meant(*how)) {
        let most: &[usize] = if matches!(how, How::Truncated | How::Unmapped) { &[MOST] } else { &[] };
        for length in [64, PAGE, 100_000, 3 << 20].iter().chain(most) {
            for side in [Side::Initiator, Side::Target] {
                for opcode in [Opcode::Write, Opcode::Read] {
                    cases.push(Case { side, how, opcode, length: *length });
                }
            }
        }
    }
    cases.into_iter().filter(|case| case.how != How::ReadOnly || case.writes())
}

/// This side of a connection of one lane; the other side is `far`.
struct Rig<F> {
    engine: Arc<Engine>,
    here: Arc<Connection>,
    buffer: RegisteredBuffer,
    far: F,
    round: u8,
}

impl<F: Far> Rig<F> {
    fn new(engine: Arc<Engine>, far: F) -> Self {
        let here = engine.connect("127.0.0.1", far.port(), 0, false).unwrap();
        let buffer = engine.allocate(MOST).unwrap();
        Self { engine, here, buffer, far, round: 0 }
    }

    fn submit(&self, opcode: Opcode, local: u64, remote: u64, length: usize) -> TransferId {
        let Some(remote) = self.here.describe_remote(remote, length as u32) else {
            panic!("the peer has announced nothing at {remote:#x}+{length}")
        };
        let iov = Iov { local, length: length as u64, region: None, remote };
        self.here.submit(opcode, &[iov][..]).unwrap()
    }

    /// Runs a case between two transfers that are to be done.
    fn run(&mut self, case: Case) {
        let Case { side, how, opcode, length } = case;
        let mut own = None;
        let (local, remote) = match side {
            Side::Initiator => {
                let memory = Vanishing::new(how, length, case.from()).unwrap();
                let (start, bytes) = (memory.address(), length as u64);
                let options = RegisterOptions { file: memory.shared_file(), ..RegisterOptions::default() };
                // SAFETY: what happens to the memory is what this tests; no reference into it exists.
                let id = unsafe { self.engine.register(start, bytes, options) }.unwrap();
                memory.vanish();
                own = Some((memory, id));
                (start, self.far.buffer())
            }
            Side::Target => (self.buffer.address(), self.far.vanish(how, length, case.from())),
        };
        self.round = self.round.wrapping_add(1);
        let good = [self.round; GOOD];
        let places = [0, 2 * GOOD];
        places.iter().for_each(|place| assert!(self.buffer.write(MOST - 4 * GOOD + place, &good)));
        let at = |place: usize| (MOST - 4 * GOOD + place) as u64;
        let copy = |opcode, place| {
            self.submit(opcode, self.buffer.address() + at(place), self.far.buffer() + at(place), GOOD)
        };
        let before = copy(Opcode::Write, places[0]);
        let bad = self.submit(opcode, local, remote, length);
        let after = copy(Opcode::Write, places[1]);
        match outcome(&self.here, bad) {
            Outcome::Failed(failure) => assert_eq!(failure.status, case.status(), "{case:?}: {failure}"),
            other => panic!("{case:?}: {other:?}"),
        }
        for id in [before, after] {
            assert_eq!(outcome(&self.here, id), Outcome::Done, "{case:?}: beside it");
        }
        // The lane is back, and what was done is there.
        places.iter().for_each(|place| assert!(self.buffer.write(at(*place) as usize, &[0; GOOD])));
        for place in places {
            let id = copy(Opcode::Read, place);
            assert_eq!(outcome(&self.here, id), Outcome::Done, "{case:?}: afterwards");
            let mut bytes = [0; GOOD];
            assert!(self.buffer.read(at(place) as usize, &mut bytes));
            assert!(bytes == good, "{case:?}: other bytes");
        }
        match own {
            Some((memory, id)) => {
                assert!(self.engine.deregister(id), "{case:?}");
                drop(memory);
            }
            None => self.far.deregister(),
        }
    }
}

fn settings(path: &str) -> Vec<(&str, &str)> {
    vec![("FLAGCX_P2P_PATH", path), ("FLAGCX_P2P_QPS_PER_CONN", "1"), ("FLAGCX_P2P_WORKERS_PER_POOL", "1")]
}

/// Whether this way can be tested here; prints the reason if not.
fn can_vanish(how: How) -> bool {
    match Vanishing::new(how, PAGE, 0) {
        Ok(_) => true,
        Err(reason) => {
            println!("not run: {how:?}: {reason}");
            false
        }
    }
}

fn between_processes(path: &str) {
    let mut rig = Rig::new(support::engine(&settings(path)), Peer::start(path));
    cases(can_vanish).for_each(|case| rig.run(case));
    rig.far.expect_alive();
}

fn in_process() {
    let engine = || support::engine(&settings("in-process"));
    let mut rig = Rig::new(engine(), FarEngine::new(engine(), MOST));
    cases(|how| how.is_of_a_file() && can_vanish(how)).for_each(|case| rig.run(case));
}

#[test]
fn over_tcp_the_request_fails_and_no_process_dies() {
    between_processes("tcp");
}

#[test]
fn in_cross_memory_the_request_fails_and_no_process_dies() {
    between_processes("cross-memory");
}

/// Copies to and from what is mapped are plain instructions only if this side's memory cannot vanish either.
#[test]
fn beside_shared_memory_of_a_peer_the_request_fails_and_no_process_dies() {
    let mut rig = Rig::new(support::engine(&settings("auto")), Peer::start_shared("auto"));
    cases(|how| how.is_of_a_file() && can_vanish(how)).for_each(|case| rig.run(case));
    rig.far.expect_alive();
}

#[test]
fn in_process_the_request_fails_and_no_process_dies() {
    in_process();
}

/// Runs the test `name` in a process of its own, in which the kernel refuses these calls.
fn where_denied(name: &str, calls: [libc::c_long; 2], test: impl FnOnce()) {
    const ROLE: &str = "FLAGCX_P2P_TEST_DENIED";
    if std::env::var(ROLE).is_err() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(ROLE, "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    vanishing_peer::deny(calls);
    test();
}

/// Where a filter of system calls denies the copies, as some containers do: through a pipe.
#[test]
fn in_process_it_fails_where_process_vm_is_denied() {
    let calls = [libc::SYS_process_vm_readv, libc::SYS_process_vm_writev];
    where_denied("in_process_it_fails_where_process_vm_is_denied", calls, in_process);
}

/// READs take one path and WRITEs the other, on one lane.
fn mixed(path: &'static str) -> impl FnOnce() {
    move || {
        // The peer has the same filter, from the process that starts it.
        let mut rig = Rig::new(support::engine(&settings("auto")), Peer::start("auto"));
        let paths = rig.here.info().paths;
        assert_eq!(format!("{} {}", paths.read, paths.write), path);
        cases(can_vanish).filter(|case| case.length < MOST).for_each(|case| rig.run(case));
        rig.far.expect_alive();
    }
}

#[test]
fn where_writes_take_tcp_the_request_fails_and_no_process_dies() {
    let calls = [libc::SYS_process_vm_writev; 2];
    where_denied(
        "where_writes_take_tcp_the_request_fails_and_no_process_dies",
        calls,
        mixed("cross-memory tcp"),
    );
}

#[test]
fn where_reads_take_tcp_the_request_fails_and_no_process_dies() {
    let calls = [libc::SYS_process_vm_readv; 2];
    where_denied(
        "where_reads_take_tcp_the_request_fails_and_no_process_dies",
        calls,
        mixed("tcp cross-memory"),
    );
}

/// Many pieces, of which one cannot be read: the failure names it, wherever in a frame or a segment it lies.
#[test]
fn over_tcp_the_failure_names_the_piece() {
    let mut rig = Rig::new(support::engine(&settings("tcp")), Peer::start("tcp"));
    const PIECES: usize = 64;
    for side in [Side::Initiator, Side::Target] {
        for opcode in [Opcode::Write, Opcode::Read] {
            for bad in [0, 1, 17, 31, 32, 40, 63] {
                // Pieces of half a page, one in each page, so that they are not joined.
                let (length, from) = (PIECES * PAGE, bad * PAGE);
                let own = Vanishing::new(How::Truncated, length, from).unwrap();
                let (start, options) = (own.address(), RegisterOptions::default());
                // SAFETY: as in `run`.
                let id = unsafe { rig.engine.register(start, length as u64, options) }.unwrap();
                let (local, remote) = match side {
                    Side::Initiator => {
                        own.vanish();
                        (start, rig.far.buffer())
                    }
                    Side::Target => (rig.buffer.address(), rig.far.vanish(How::Truncated, length, from)),
                };
                let iovs: Vec<_> = (0..PIECES as u64)
                    .map(|at| {
                        let offset = at * PAGE as u64;
                        let remote = rig.here.describe_remote(remote + offset, 2048).unwrap();
                        Iov { local: local + offset, length: 2048, region: None, remote }
                    })
                    .collect();
                let transfer = rig.here.submit(opcode, &iovs[..]).unwrap();
                match outcome(&rig.here, transfer) {
                    Outcome::Failed(failure) => {
                        assert_eq!(failure.iov, bad, "{side:?} {opcode:?}: {failure}");
                    }
                    other => panic!("{side:?} {opcode:?} {bad}: {other:?}"),
                }
                assert!(rig.engine.deregister(id));
                if side == Side::Target {
                    rig.far.deregister();
                }
            }
        }
    }
    rig.far.expect_alive();
}

/// Not a test of its own: what the other process of the tests above runs.
#[test]
fn peer_process() {
    vanishing_peer::play(MOST);
}

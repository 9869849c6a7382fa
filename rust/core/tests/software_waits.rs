//! Requests of the software fabric that wait cost no CPU. One test, because it measures the whole process.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

mod chaos;
mod support;

use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::transfer::{Iov, Outcome};
use rustix::time::{ClockId, clock_gettime};
use support::{Pair, outcome};

const DELAY: Duration = Duration::from_millis(800);
const SETTINGS: &[(&str, &str)] = &[
    ("FLAGCX_P2P_FAULTS", "seed=1;delay=us:800000"),
    ("FLAGCX_P2P_QPS_PER_CONN", "1"),
    ("FLAGCX_P2P_WORKERS_PER_POOL", "1"),
];

fn settings(path: &str) -> Vec<(&str, &str)> {
    SETTINGS.iter().copied().chain([("FLAGCX_P2P_PATH", path)]).collect()
}

/// CPU time of this process so far.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// One write that waits for most of a second before its bytes move.
fn expect_to_sleep(path: &str, connection: &Connection, iov: Iov) {
    let (start, before) = (Instant::now(), cpu());
    let id = connection.submit(Opcode::Write, &[iov][..]).unwrap();
    assert_eq!(outcome(connection, id), Outcome::Done);
    let (took, spent) = (start.elapsed(), cpu() - before);
    println!("{path}: {took:?}, of it {spent:?} on a CPU");
    assert!(took >= DELAY && took < DELAY * 2, "{path}: it took {took:?}");
    assert!(spent < DELAY / 5, "{path}: waiting for {took:?} has cost {spent:?} of CPU time");
}

#[test]
fn waiting_costs_no_cpu() {
    for path in ["in-process", "tcp"] {
        let pair = Pair::with(4096, &settings(path));
        expect_to_sleep(path, &pair.here, pair.iov(0, 0, 4096));
    }
    let peer = chaos::peer::Peer::start(&settings("cross-memory"));
    let engine = support::engine(&settings("cross-memory"));
    let source = engine.allocate(4096).unwrap();
    let here = engine.connect("127.0.0.1", peer.port, 0, false).unwrap();
    let remote = here.describe_remote(peer.address, 4096).unwrap();
    let iov = Iov { local: source.address(), length: 4096, region: Some(source.region()), remote };
    expect_to_sleep("cross-memory", &here, iov);
}

/// Not a test of its own: what the other process of the test above runs.
#[test]
fn peer_process() {
    chaos::peer::play();
}

//! A program that lowers its limit of descriptors to 0 when it has opened what it needs, as sandboxes do, keeps its connections.
//! One test, because the limit is the process's.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    dead_code,
    reason = "a panic is how a test fails, and helpers are shared"
)]

mod chaos;
mod support;

use std::time::{Duration, Instant};

use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::transfer::{Iov, Outcome};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use support::{Pair, outcome};

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn a_process_without_descriptors_left_keeps_its_connections() {
    let settings = |path| [("FLAGCX_P2P_PATH", path), ("FLAGCX_P2P_KEEPALIVE_MS", "300")];
    let pair = Pair::with(4096, &settings("tcp"));
    let peer = chaos::peer::Peer::start(&settings("cross-memory"));
    let engine = support::engine(&settings("cross-memory"));
    let source = engine.allocate(4096).unwrap();
    let other = engine.connect("127.0.0.1", peer.port, 0, false).unwrap();
    let remote = other.describe_remote(peer.address, 4096).unwrap();
    let iov = Iov { local: source.address(), length: 4096, region: Some(source.region()), remote };
    let transfers = || {
        for opcode in [Opcode::Write, Opcode::Read] {
            let id = pair.here.submit(opcode, &[pair.iov(0, 0, 4096)][..]).unwrap();
            assert_eq!(outcome(&pair.here, id), Outcome::Done);
            let id = other.submit(opcode, &[iov][..]).unwrap();
            assert_eq!(outcome(&other, id), Outcome::Done);
        }
    };
    transfers();
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..before }).unwrap();
    let (begin, spent) = (Instant::now(), cpu());
    transfers();
    // Several pings, and looks of threads that have nothing to do.
    while begin.elapsed() < Duration::from_millis(700) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let (took, spent) = (begin.elapsed(), cpu() - spent);
    transfers();
    setrlimit(Resource::Nofile, before).unwrap();
    println!("{took:?} at rest, of it {spent:?} on a CPU");
    assert!(spent < took / 4, "threads that sleep have used {spent:?} of {took:?}");
}

/// Not a test of its own: what the other process of the test above runs.
#[test]
fn peer_process() {
    chaos::peer::play();
}

//! A peer that is stopped in the middle of transfers: what an operator sees of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod forking_peer;
#[cfg(feature = "verbs")]
mod nullverbs;
mod support;

use std::time::{Duration, Instant};

use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::observe::{Direction, Metric, Value, metrics, registry};
use flagcx_p2p::internals::transfer::{Iov, Outcome};
use forking_peer::{LENGTH, Peer};
use rustix::process::Signal;
use support::outcome;

/// TCP, where the peer's data thread takes part; and a deadline that nothing here reaches.
const SETTINGS: &[(&str, &str)] = &[("FLAGCX_P2P_PATH", "tcp"), ("FLAGCX_P2P_XFER_TIMEOUT_MS", "60000")];

/// How soon a stopped peer is visible.
const WITHIN: Duration = Duration::from_secs(1);

/// The sum of a metric's values with this label.
fn value(metric: &'static Metric, label: &str) -> f64 {
    let snapshot = registry().snapshot();
    let samples = snapshot.of(metric).filter(|sample| sample.labels.iter().any(|(_, value)| value == label));
    samples
        .map(|sample| match sample.value {
            Value::Number(number) => number as f64,
            Value::Seconds(time) => time.as_secs_f64(),
            Value::Histogram(_) => panic!("no number"),
        })
        .sum()
}

#[test]
fn a_stopped_peer_is_found_by_the_age_of_what_waits_for_it() {
    let peer = Peer::start(SETTINGS);
    let engine = support::engine(SETTINGS);
    let source = engine.allocate(LENGTH).unwrap();
    let here = engine.connect("127.0.0.1", peer.port, 0, false).unwrap();
    let name = here.info().peer;
    let remote = here.describe_remote(peer.address, LENGTH as u32).unwrap();
    let iov = Iov { local: source.address(), length: LENGTH as u64, region: Some(source.region()), remote };
    assert_eq!(outcome(&here, here.submit(Opcode::Write, &[iov][..]).unwrap()), Outcome::Done);
    assert_eq!(engine.slow_transfers(Duration::ZERO), [], "nothing is in flight");
    let done = value(&metrics::PEER_ENDED, &name);
    let slow = |metric| {
        registry()
            .snapshot()
            .of(metric)
            .map(|sample| match sample.value {
                Value::Number(number) => number,
                _ => 0,
            })
            .sum::<u64>()
    };
    let slow_before = slow(&metrics::SLOW);

    peer.stop();
    let stopped = Instant::now();
    let ids: Vec<_> =
        [Opcode::Write, Opcode::Read].map(|opcode| here.submit(opcode, &[iov][..]).unwrap()).into();
    // No caller asks about them.
    let oldest = || value(&metrics::PEER_OLDEST_AGE, &name);
    support::eventually("the age of the oldest grows", || oldest() > 0.1);
    assert!(stopped.elapsed() < WITHIN, "after {:?}", stopped.elapsed());
    assert_eq!(value(&metrics::PEER_IN_FLIGHT, &name), 2.0);
    assert_eq!(value(&metrics::PEER_IN_FLIGHT_BYTES, &name), 2.0 * LENGTH as f64);
    assert_eq!(value(&metrics::PEER_ENDED, &name), done, "what is stuck has not ended");
    // The second one began a moment later.
    support::eventually("both are slow", || engine.slow_transfers(Duration::from_millis(100)).len() == 2);
    let found = engine.slow_transfers(Duration::from_millis(100));
    assert!(stopped.elapsed() < WITHIN, "after {:?}", stopped.elapsed());
    assert_eq!(registry().slow_transfers(Duration::from_millis(100)).len(), 2, "those of the process");
    for (id, opcode) in ids.iter().zip([Direction::Write, Direction::Read]) {
        let transfer = found.iter().find(|transfer| transfer.id == id.0).unwrap();
        assert_eq!((transfer.opcode, transfer.path, &transfer.peer), (opcode, "tcp", &name));
        assert_eq!((transfer.bytes, transfer.lanes.len()), (LENGTH as u64, 1), "{transfer:?}");
        assert!(transfer.pieces_done < transfer.pieces && transfer.pieces > 0, "{transfer:?}");
        assert!(transfer.age >= Duration::from_millis(100) && transfer.age < WITHIN, "{transfer:?}");
    }
    assert_eq!(engine.slow_transfers(Duration::from_secs(3600)), [], "nothing is as old as that");

    peer.signal(Signal::CONT);
    for id in ids {
        assert_eq!(outcome(&here, id), Outcome::Done);
    }
    assert_eq!(engine.slow_transfers(Duration::ZERO), []);
    assert_eq!((value(&metrics::PEER_ENDED, &name), oldest()), (done + 2.0, 0.0));
    assert_eq!(slow(&metrics::SLOW), slow_before + 2, "both took longer than a millisecond");
}

/// Not a test of its own: what the other process of the test above runs.
#[test]
fn peer_process() {
    forking_peer::play();
}

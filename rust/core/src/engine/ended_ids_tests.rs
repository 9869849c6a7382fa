//! Futures and queues give the ids of their transfers back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::pin::Pin;
use std::task::{Context as TaskContext, Waker};
use std::time::{Duration, Instant};

use super::test_pair::TestPair;
use super::*;
use crate::connection::Transfer;
use crate::fabric::Opcode;
use crate::transfer::Iov;

const LIMIT: Duration = Duration::from_secs(20);

/// Two engines, each with 4 KiB. Requests take 20 ms, longer than it takes to begin them all, and each third fails.
struct Pair {
    client: Arc<Engine>,
    here: Arc<Connection>,
    iov: [Iov; 1],
    _source: RegisteredBuffer,
    _target: RegisteredBuffer,
    _server: Arc<Engine>,
}

impl Pair {
    fn new() -> Self {
        let faults = "delay=us:20000;fail=every:3:general";
        let TestPair { client, server, here, source, target } = TestPair::new(&[], faults);
        let remote = here.describe_remote(target.address(), 4096).unwrap();
        let iov = [Iov { local: source.address(), length: 4096, region: None, remote }];
        Self { client, here, iov, _source: source, _target: target, _server: server }
    }

    fn start(&self) -> Transfer {
        self.here.transfer(Opcode::Write, &self.iov).unwrap()
    }

    fn live(&self) -> usize {
        self.client.context().unwrap().transfers.live_ids().len()
    }

    /// Nothing asks any more.
    fn expect_none_live(&self) {
        let begun = Instant::now();
        while self.live() > 0 {
            assert!(begun.elapsed() < LIMIT, "{} ids are in use", self.live());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn a_dropped_future_gives_its_id_back_when_the_transfer_ends() {
    let pair = Pair::new();
    let mut transfers: Vec<_> = (0..16).map(|_| pair.start()).collect();
    for transfer in transfers.iter_mut().step_by(2) {
        assert!(Pin::new(transfer).poll(&mut TaskContext::from_waker(Waker::noop())).is_pending());
    }
    assert_eq!(pair.live(), 16);
    drop(transfers);
    assert!(pair.live() > 0, "they are still under way");
    pair.expect_none_live();
}

#[test]
fn a_future_that_has_answered_has_given_its_id_back() {
    let pair = Pair::new();
    let transfers: Vec<_> = (0..6).map(|_| pair.start()).collect();
    for transfer in transfers {
        let _ = futures_lite::future::block_on(transfer);
    }
    assert_eq!(pair.live(), 0);
}

#[test]
fn a_queue_gives_ids_back_when_they_are_taken_or_when_it_is_dropped() {
    let pair = Pair::new();
    let ended = pair.client.ended().unwrap();
    let start_eight = || {
        (0..8).for_each(|_| {
            let _ = pair.here.try_submit_to(&ended, Opcode::Write, &pair.iov).unwrap();
        });
    };
    start_eight();
    let (mut taken, begun) = (Vec::new(), Instant::now());
    while taken.len() < 8 {
        ended.take_ended(&mut taken);
        assert!(begun.elapsed() < LIMIT);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(pair.live(), 0);
    start_eight();
    // Those are in the queue when it is dropped, others are under way.
    std::thread::sleep(Duration::from_millis(50));
    start_eight();
    drop(ended);
    pair.expect_none_live();
}

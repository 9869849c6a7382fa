//! Calls at the end of a transfer, and at the arrival of a notification.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::mpsc::{Receiver as Told, RecvTimeoutError, channel};
use std::time::Duration;

use super::test_pair::TestPair;
use super::*;
use crate::fabric::Opcode;
use crate::transfer::{Iov, Outcome, Status, TransferId};

const LIMIT: Duration = Duration::from_secs(20);

fn start(pair: &TestPair) -> TransferId {
    let remote = pair.here.describe_remote(pair.target.address(), 4096).unwrap();
    let iov = Iov { local: pair.source.address(), length: 4096, region: None, remote };
    pair.here.submit(Opcode::Write, &[iov]).unwrap()
}

fn call(pair: &TestPair, id: TransferId, times: usize) -> Told<bool> {
    let (tell, told) = channel();
    for _ in 0..times {
        let tell = tell.clone();
        pair.here.call_at_end(id, move |done| tell.send(done).unwrap());
    }
    told
}

fn expect(told: &Told<bool>, answers: &[bool]) {
    for answer in answers {
        assert_eq!(told.recv_timeout(LIMIT).unwrap(), *answer);
    }
    assert_eq!(told.recv_timeout(LIMIT), Err(RecvTimeoutError::Disconnected), "each call is made once");
}

#[test]
fn each_call_is_made_once_whatever_is_to_be_told_later() {
    let pair = TestPair::new(&[], "delay=us:20000");
    let id = start(&pair);
    assert!(pair.here.is_under_way(id));
    let told = call(&pair, id, 3);
    pair.here.release_at_end(id);
    expect(&told, &[true; 3]);
    assert!(!pair.here.is_under_way(id));
}

#[test]
fn a_transfer_that_fails_or_is_cancelled_is_not_done() {
    let pair = TestPair::new(&[], "delay=us:20000;fail=every:1:general");
    expect(&call(&pair, start(&pair), 1), &[false]);
    let pair = TestPair::new(&[], "delay=us:20000");
    let id = start(&pair);
    let told = call(&pair, id, 1);
    assert!(pair.here.cancel(id));
    expect(&told, &[false]);
}

#[test]
fn a_transfer_that_has_ended_but_was_not_asked_about_is_told_of_at_once() {
    let pair = TestPair::new(&[], "delay=us:1000");
    let id = start(&pair);
    expect(&call(&pair, id, 1), &[true]);
    expect(&call(&pair, id, 1), &[true]);
    assert_eq!(pair.here.status(id), Status::Ended(Outcome::Done));
}

#[test]
fn a_transfer_that_was_asked_about_is_told_of_as_it_ended() {
    let pair = TestPair::new(&[], "delay=us:1000");
    let id = start(&pair);
    assert_eq!(pair.here.wait(id, LIMIT), Status::Ended(Outcome::Done));
    expect(&call(&pair, id, 1), &[true]);
    expect(&call(&pair, TransferId::COMPLETE, 1), &[true]);
}

#[test]
fn a_short_attempt_to_cancel_returns_and_the_end_comes_later() {
    let pair = TestPair::new(&[], "delay=us:15000");
    let id = start(&pair);
    let told = call(&pair, id, 1);
    let begun = Instant::now();
    assert!(!pair.here.try_cancel(id, Duration::ZERO), "the request is at the device");
    assert!(begun.elapsed() < Duration::from_millis(15), "{:?}", begun.elapsed());
    assert!(pair.here.cancel(id));
    assert_eq!(pair.here.status(id), Status::Ended(Outcome::Cancelled));
    assert!(pair.here.try_cancel(id, Duration::ZERO), "it has ended");
    expect(&told, &[false]);
}

#[test]
fn a_listener_is_called_after_each_arrival_and_may_take_it() {
    let pair = TestPair::new(&[], "");
    let (tell, told) = channel();
    let (tell, server) = (Mutex::new(tell), Arc::downgrade(&pair.server));
    let listener = move || {
        let arrived = server.upgrade().and_then(|server| server.take_first_notification());
        tell.lock().unwrap().send(arrived.unwrap().content().len()).unwrap();
    };
    assert!(pair.server.on_notification(listener));
    assert!(!pair.server.on_notification(|| ()), "one listener");
    for size in [10, 1000, 0] {
        pair.here.send_notification_bytes(b"name", &vec![1; size]).unwrap();
        assert_eq!(told.recv_timeout(LIMIT).unwrap(), size);
    }
    assert!(pair.server.take_all_notifications().is_empty());
    assert!(pair.server.take_first_notification().is_none());
}

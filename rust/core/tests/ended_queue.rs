//! Transfers that have ended, taken from a queue that is waited for as a descriptor.

#![allow(unsafe_code, reason = "drops in a forked child what is not its own")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests, which say what they could not run"
)]

mod support;

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::Context;
use flagcx_p2p::{
    CompletionStatus, Connection, Ended, Failure, Iov, Opcode, Outcome, Status, SubmitError, TransferId,
};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use support::children::{expect_success, fork};
use support::{LIMIT, Pair, config, content, eventually, has_faults, outcome, pattern};

/// Whether it becomes readable within this time.
fn is_readable(ended: &Ended, within: Duration) -> bool {
    let mut fds = [PollFd::new(ended, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::try_from(within).unwrap())).unwrap() == 1
}

/// Takes until there are `count`.
fn take(ended: &Ended, count: usize) -> Vec<(TransferId, Outcome)> {
    let mut taken = Vec::new();
    while taken.len() < count {
        assert!(is_readable(ended, LIMIT), "{} of {count} after {LIMIT:?}", taken.len());
        assert!(ended.take_ended(&mut taken) > 0);
    }
    assert_eq!(taken.len(), count);
    taken
}

/// Starts a transfer as soon as there is room.
fn start(here: &std::sync::Arc<Connection>, ended: &Ended, iov: Iov) -> TransferId {
    let begun = Instant::now();
    loop {
        match here.try_submit_to(ended, Opcode::Write, &[iov]) {
            Err(SubmitError::WouldBlock) if begun.elapsed() < LIMIT => std::thread::yield_now(),
            started => return started.unwrap(),
        }
    }
}

#[test]
fn each_transfer_is_taken_once_with_its_outcome() {
    let pair = Pair::new(1 << 20);
    let ours = pattern(1, 1 << 20);
    assert!(pair.source.write(0, &ours));
    let ended = pair.client.ended().unwrap();
    assert!(!is_readable(&ended, Duration::ZERO));
    let mut ids: Vec<_> =
        (0..64).map(|i| start(&pair.here, &ended, pair.iov(i << 14, i << 14, 1 << 14))).collect();
    let mut taken = take(&ended, 64);
    assert!(content(&pair.target) == ours);
    taken.sort_by_key(|(id, _)| *id);
    ids.sort();
    assert!(taken.iter().map(|(id, _)| *id).eq(ids.iter().copied()));
    assert!(taken.iter().all(|(_, outcome)| *outcome == Outcome::Done), "{taken:?}");
    assert!(!is_readable(&ended, Duration::ZERO) && ended.take_ended(&mut taken) == 0);
}

/// Of the others, nothing is told.
#[test]
fn only_what_was_started_for_a_queue_is_in_it() {
    let pair = Pair::new(4096);
    let (one, other) = (pair.client.ended().unwrap(), pair.client.ended().unwrap());
    let plain = pair.here.submit(Opcode::Write, &[pair.iov(0, 0, 4096)]).unwrap();
    let id = start(&pair.here, &one, pair.iov(0, 0, 4096));
    // From the other end, of another engine.
    let remote = pair.there.describe_remote(pair.source.address(), 4096).unwrap();
    let back = Iov { local: pair.target.address(), length: 4096, region: None, remote };
    let back = start(&pair.there, &one, back);
    assert_eq!(pair.here.wait(plain, LIMIT), Status::Ended(Outcome::Done));
    let mut taken: Vec<_> = take(&one, 2).into_iter().map(|(id, _)| id).collect();
    taken.sort();
    let mut expected = [id, back];
    expected.sort();
    assert_eq!(taken, expected);
    assert!(!is_readable(&other, Duration::ZERO));
}

#[test]
fn other_outcomes_are_taken_too() {
    if !has_faults() {
        return;
    }
    let failing = [("FLAGCX_P2P_FAULTS", "fail=at:1:remote-access")];
    let pair = Pair::with(4096, &failing);
    let ended = pair.client.ended().unwrap();
    let id = start(&pair.here, &ended, pair.iov(0, 0, 4096));
    let taken = take(&ended, 1);
    assert!(
        matches!(&taken[0], (failed, Outcome::Failed(Failure { status: CompletionStatus::RemoteAccess, .. }))
            if *failed == id),
        "{taken:?}"
    );

    let slow = [("FLAGCX_P2P_FAULTS", "delay=us:5000000"), ("FLAGCX_P2P_XFER_TIMEOUT_MS", "100")];
    let pair = Pair::with(4096, &slow);
    let (ended, iov) = (pair.client.ended().unwrap(), pair.iov(0, 0, 4096));
    let (cancelled, late) = (start(&pair.here, &ended, iov), start(&pair.here, &ended, iov));
    assert!(pair.here.cancel(cancelled));
    let taken: HashMap<_, _> = take(&ended, 2).into_iter().collect();
    assert_eq!((&taken[&late], &taken[&cancelled]), (&Outcome::TimedOut, &Outcome::Cancelled));
}

/// Threads start, others take, and sleep while there is nothing: a wake-up that was lost would leave them asleep.
#[test]
fn no_wake_up_is_lost_between_threads_that_start_and_threads_that_take() {
    const STARTERS: u64 = 3;
    const EACH: u64 = 3000;
    let pair = Pair::new(4096);
    let ended = pair.client.ended().unwrap();
    let taken = Mutex::new(Vec::new());
    let missing = AtomicUsize::new((STARTERS * EACH) as usize);
    std::thread::scope(|scope| {
        for starter in 0..STARTERS {
            let (pair, ended) = (&pair, &ended);
            scope.spawn(move || {
                for round in 0..EACH {
                    let place = (starter * EACH + round) % 64 * 64;
                    start(&pair.here, ended, pair.iov(place, place, 64));
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                let (mut mine, mut silent_since) = (Vec::new(), Instant::now());
                while missing.load(Ordering::SeqCst) > 0 {
                    // Another thread may take what woke both, and the last of all.
                    if is_readable(&ended, Duration::from_millis(200)) {
                        missing.fetch_sub(ended.take_ended(&mut mine), Ordering::SeqCst);
                        silent_since = Instant::now();
                    }
                    assert!(silent_since.elapsed() < LIMIT, "{} are missing", missing.load(Ordering::SeqCst));
                }
                taken.lock().unwrap().append(&mut mine);
            });
        }
    });
    let mut taken = taken.into_inner().unwrap();
    taken.sort_by_key(|(id, _)| *id);
    taken.dedup_by_key(|(id, _)| *id);
    assert_eq!(taken.len() as u64, STARTERS * EACH);
    assert!(taken.iter().all(|(_, outcome)| *outcome == Outcome::Done));
}

/// Edge-triggered: an event comes with the first that ends after each take.
#[test]
fn an_edge_triggered_wait_sees_each_first_end() {
    let pair = Pair::new(4096);
    let ended = pair.client.ended().unwrap();
    let events = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(&events, ended.as_fd(), epoll::EventData::new_u64(7), flags).unwrap();
    for _ in 0..200 {
        let id = start(&pair.here, &ended, pair.iov(0, 0, 4096));
        let mut seen = Vec::with_capacity(1);
        epoll::wait(
            &events,
            rustix::buffer::spare_capacity(&mut seen),
            Some(&Timespec::try_from(LIMIT).unwrap()),
        )
        .unwrap();
        assert_eq!(seen.len(), 1, "no event within {LIMIT:?}");
        let mut taken = Vec::new();
        assert_eq!(ended.take_ended(&mut taken), 1);
        assert_eq!(taken, [(id, Outcome::Done)]);
    }
}

/// Not taken, and the queue is dropped: the transfers go on, and everything that they held is given back.
#[test]
fn dropping_a_queue_ends_no_transfer() {
    let settings = [("FLAGCX_P2P_FAULTS", "delay=us:20000")];
    let pair = Pair::with(8192, &settings[usize::from(!has_faults())..]);
    assert!(pair.source.write(0, &pattern(3, 8192)));
    let ended = pair.client.ended().unwrap();
    start(&pair.here, &ended, pair.iov(0, 0, 4096));
    assert!(is_readable(&ended, LIMIT));
    start(&pair.here, &ended, pair.iov(4096, 4096, 4096));
    drop(ended);
    eventually("both are there", || content(&pair.target) == pattern(3, 8192));
    let connection = std::sync::Arc::downgrade(&pair.here);
    drop(pair);
    eventually("nothing keeps the connection", || connection.upgrade().is_none());
}

#[test]
fn a_forked_child_takes_nothing_from_its_parent() {
    if std::env::var("FLAGCX_P2P_FABRIC").is_ok_and(|fabric| fabric == "verbs") {
        println!("not run over verbs: forked_children has its own ways there");
        return;
    }
    let pair = Pair::new(4096);
    let ended = pair.client.ended().unwrap();
    let iov = [pair.iov(0, 0, 4096)];
    let id = start(&pair.here, &ended, iov[0]);
    assert!(is_readable(&ended, LIMIT));
    let mut future = pair.here.transfer(Opcode::Write, &iov).unwrap();
    let child = fork(|| {
        let mut taken = Vec::new();
        assert_eq!(ended.take_ended(&mut taken), 0);
        let refused = pair.here.try_submit_to(&ended, Opcode::Write, &iov);
        assert!(matches!(refused, Err(SubmitError::Forked(_))), "{refused:?}");
        let refused = pair.client.ended();
        assert!(matches!(refused, Err(flagcx_p2p::EngineError::Forked(_))), "{refused:?}");
        let outcome = futures_lite::future::block_on(&mut future);
        assert!(
            matches!(&outcome, Outcome::Failed(failure) if failure.reason.contains("forked")),
            "{outcome:?}"
        );
        // SAFETY: of the child's copies, which are not used again: it ends without dropping them.
        let inherited = unsafe { (std::ptr::read(&raw const ended), std::ptr::read(&raw const future)) };
        drop(inherited);
    });
    expect_success(child);
    assert_eq!(take(&ended, 1), [(id, Outcome::Done)]);
    assert_eq!(futures_lite::future::block_on(future), Outcome::Done);
}

/// What the parent's threads hold at the fork is held in the child for ever.
#[test]
fn a_forked_child_that_gives_up_a_transfer_waits_for_no_worker() {
    if !has_faults() {
        return;
    }
    let settings = [("FLAGCX_P2P_FAULTS", "delay=us:50000"), ("FLAGCX_P2P_WORKERS_PER_POOL", "1")];
    let pair = Pair::with(4096, &settings);
    let iov = [pair.iov(0, 0, 4096)];
    let pool = Context::open(&config(&settings), pair.client.device().unwrap()).unwrap().pool;
    let id = pair.here.submit(Opcode::Write, &iov).unwrap();
    let child = pool.workers()[0].with_state(|_| {
        assert!(pair.here.is_under_way(id));
        fork(|| {
            pair.here.release_at_end(id);
            pair.here.call_at_end(id, |_| panic!("called in the child"));
        })
    });
    expect_success(child);
    assert_eq!(outcome(&pair.here, id), Outcome::Done);
}

//! Calls that ask only whether a transfer has ended return no for a failed one until its hold is over; then the next
//! notification is refused (FLAGCX_P2P_FAILED_HOLD_MS).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::notify::{Message, NotifyError};
use flagcx_p2p::internals::transfer::{Iov, Outcome, Status, SubmitError, TransferId};
use support::{Pair, connect, has_faults, outcome, pattern};

const HOLD: Duration = Duration::from_millis(300);

fn pair(settings: &[(&str, &str)]) -> Pair {
    Pair::with(1 << 16, &[&[("FLAGCX_P2P_FAILED_HOLD_MS", "300")], settings].concat())
}

/// A piece that the peer's fabric refuses: its key is in no table.
fn refused(pair: &Pair) -> Iov {
    let mut iov = pair.iov(0, 0, 64);
    iov.remote.rkey ^= 0x5555;
    iov
}

fn fail(pair: &Pair) -> TransferId {
    pair.here.submit(Opcode::Write, [refused(pair)].as_slice()).unwrap()
}

/// Asks until the answer is yes; how long that took.
fn ask_until_ended(connection: &Connection, id: TransferId) -> Duration {
    let start = Instant::now();
    while !connection.has_ended(id) {
        assert!(start.elapsed() < support::LIMIT, "transfer {id:?} does not read as ended");
        std::thread::sleep(Duration::from_micros(200));
    }
    start.elapsed()
}

fn notify(connection: &Connection) -> Result<usize, NotifyError> {
    connection.send_notification(&Message::new(b"name", b"text"))
}

fn assert_names(refusal: Result<usize, NotifyError>, transfer: TransferId) {
    let Err(error) = refusal else { panic!("a notification was sent") };
    assert!(error.to_string().contains(&format!("{:#x}", transfer.0)), "{error}");
    let NotifyError::TransferFailed { id, end, .. } = error else { panic!("{error}") };
    assert_eq!(id, transfer.0);
    assert!(end.contains("remote access"), "{end}");
}

#[test]
fn a_failed_transfer_does_not_read_as_ended_within_its_hold_and_its_notification_is_refused_after_it() {
    let pair = pair(&[]);
    let (other, _there) = connect(&pair.client, &pair.server);
    let id = fail(&pair);
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while start.elapsed() < HOLD / 2 {
                assert!(!pair.here.has_ended(id), "asked by another thread");
                assert!(!other.has_ended(id), "asked by another connection");
            }
        });
        ask_until_ended(&pair.here, id);
        assert!(start.elapsed() >= HOLD);
    });
    std::thread::scope(|scope| scope.spawn(|| assert!(notify(&pair.here).is_ok())).join().unwrap());
    assert!(notify(&other).is_ok(), "on another connection");
    assert_names(notify(&pair.here), id);
    assert!(notify(&pair.here).is_ok(), "refused once");
    assert!(pair.here.has_ended(id));
    assert!(matches!(pair.here.status(id), Status::Ended(Outcome::Failed(_))), "the outcome stays readable");
}

#[test]
fn notifications_of_any_size_are_refused_once_for_each_failed_transfer() {
    let pair = pair(&[("FLAGCX_P2P_FAILED_HOLD_MS", "0")]);
    let ids = [fail(&pair), fail(&pair)];
    for id in ids {
        ask_until_ended(&pair.here, id);
    }
    assert_names(pair.here.send_notification_bytes(b"name", &[1; 1000]), ids[0]);
    assert_names(notify(&pair.here), ids[1]);
    assert!(notify(&pair.here).is_ok());
}

#[test]
fn an_answer_with_the_outcome_ends_the_hold() {
    let pair = pair(&[("FLAGCX_P2P_FAILED_HOLD_MS", "60000")]);
    let query: [fn(&Connection, TransferId) -> Status; 3] = [
        |connection, id| connection.status(id),
        |connection, id| connection.wait(id, support::LIMIT),
        |connection, id| {
            let mut ended = [None];
            connection.test_batch(&[id], &mut ended);
            ended[0].clone().unwrap_or(Status::Pending)
        },
    ];
    for query in query {
        let id = fail(&pair);
        for _ in 0..1000 {
            assert!(!pair.here.has_ended(id));
        }
        let mut reported = Status::Pending;
        support::eventually("the outcome is reported", || {
            reported = query(&pair.here, id);
            !matches!(reported, Status::Pending)
        });
        assert!(matches!(reported, Status::Ended(Outcome::Failed(_))), "{reported:?}");
        assert!(pair.here.has_ended(id));
        assert_eq!(query(&pair.here, id), reported, "it stays readable");
        assert!(notify(&pair.here).is_ok(), "nothing is left to report");
    }
}

#[test]
fn a_transfer_that_timed_out_is_held_as_one_that_failed() {
    if !has_faults() {
        return;
    }
    let pair = pair(&[("FLAGCX_P2P_XFER_TIMEOUT_MS", "30"), ("FLAGCX_P2P_FAULTS", "delay=us:10000000")]);
    let id = pair.here.submit(Opcode::Write, [pair.iov(0, 0, 64)].as_slice()).unwrap();
    assert!(ask_until_ended(&pair.here, id) >= HOLD);
    let refusal = notify(&pair.here);
    assert!(
        matches!(&refusal, Err(NotifyError::TransferFailed { end, .. }) if end == "timed out"),
        "{refusal:?}"
    );
}

#[test]
fn a_cancelled_transfer_reads_as_ended() {
    if !has_faults() {
        return;
    }
    let pair = pair(&[("FLAGCX_P2P_FAULTS", "delay=us:10000000")]);
    let id = pair.here.submit(Opcode::Write, [pair.iov(0, 0, 64)].as_slice()).unwrap();
    assert!(pair.here.cancel(id));
    assert!(pair.here.has_ended(id));
    assert!(notify(&pair.here).is_ok());
}

/// Threads that ask in either way, good transfers beside failing ones: a yes that nothing refuses is of bytes that arrived.
#[test]
fn every_thread_distinguishes_good_transfers_from_failing_ones() {
    const THREADS: usize = 4;
    const EACH: usize = 12;
    const BYTES: usize = 256;
    let pair = pair(&[("FLAGCX_P2P_FAILED_HOLD_MS", "100")]);
    let wrong = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (pair, wrong) = (&pair, &wrong);
            scope.spawn(move || {
                for round in 0..EACH {
                    let offset = ((thread * EACH + round) * BYTES) as u64;
                    let bytes = pattern(offset, BYTES);
                    assert!(pair.source.write(offset as usize, &bytes));
                    let mut iov = pair.iov(offset, offset, BYTES as u64);
                    let fails = round % 3 == thread % 3;
                    if fails {
                        iov.remote.rkey ^= 0x5555;
                    }
                    let id = pair.here.submit(Opcode::Write, [iov].as_slice()).unwrap();
                    let took = ask_until_ended(&pair.here, id);
                    let reported = match notify(&pair.here) {
                        Ok(_) => false,
                        Err(NotifyError::TransferFailed { id: of, .. }) => of == id.0,
                        Err(error) => panic!("{error}"),
                    };
                    // A good one may be flushed by a failing neighbour and repeated; it must not read as failed.
                    let held = took >= Duration::from_millis(100);
                    if reported != fails || fails && !held {
                        wrong.fetch_add(1, Ordering::Relaxed);
                    }
                    let mut arrived = vec![0; BYTES];
                    assert!(pair.target.read(offset as usize, &mut arrived));
                    assert_eq!(arrived == bytes, !fails, "thread {thread}, round {round}");
                }
            });
        }
    });
    assert_eq!(wrong.load(Ordering::Relaxed), 0);
}

#[test]
fn a_call_that_waits_inside_leaves_nothing_to_report() {
    let pair = pair(&[("FLAGCX_P2P_FAILED_HOLD_MS", "0")]);
    assert!(pair.here.submit_and_wait(Opcode::Write, [refused(&pair)].as_slice()).is_err());
    assert!(notify(&pair.here).is_ok());
}

#[test]
fn a_failure_met_through_a_handle_that_is_gone_is_held_for_the_others() {
    let pair = pair(&[]);
    let (other, _there) = connect(&pair.client, &pair.server);
    let id = fail(&pair);
    assert!(!other.has_ended(id));
    // What fails after it has ended after it.
    assert!(matches!(outcome(&pair.here, fail(&pair)), Outcome::Failed(_)));
    assert!(!other.has_ended(id));
    other.close();
    other.forget_failed();
    assert!(!pair.here.has_ended(id));
    ask_until_ended(&pair.here, id);
    assert_names(notify(&pair.here), id);
}

#[test]
fn an_outcome_reported_to_one_thread_is_not_reported_to_another() {
    let pair = pair(&[("FLAGCX_P2P_FAILED_HOLD_MS", "0")]);
    let id = fail(&pair);
    ask_until_ended(&pair.here, id);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert!(matches!(pair.here.status(id), Status::Ended(Outcome::Failed(_))));
            assert!(notify(&pair.here).is_ok());
        });
    });
    assert_names(notify(&pair.here), id);
    assert!(notify(&pair.here).is_ok());
}

#[test]
fn a_failed_transfer_that_is_cancelled_is_not_held() {
    let pair = pair(&[("FLAGCX_P2P_FAILED_HOLD_MS", "60000")]);
    for asked_before in [false, true] {
        let id = fail(&pair);
        // What fails after it has ended after it.
        assert!(matches!(outcome(&pair.here, fail(&pair)), Outcome::Failed(_)));
        if asked_before {
            assert!(!pair.here.has_ended(id));
        }
        assert!(pair.here.cancel(id), "{asked_before}");
        assert!(pair.here.has_ended(id), "{asked_before}");
        assert!(notify(&pair.here).is_ok(), "{asked_before}");
        assert!(matches!(pair.here.status(id), Status::Ended(Outcome::Failed(_))), "{asked_before}");
    }
}

/// The limit of the engine, for real. Takes a while, so `./x proofs` runs it.
#[test]
fn a_connection_with_a_million_failures_within_their_hold_starts_no_others() {
    const LIMIT: usize = 1 << 20;
    if support::share_or(2, 2) < 2 {
        println!("not run: a million failures take a while: ./x proofs");
        return;
    }
    if !has_faults() {
        return;
    }
    let settings = [
        // Longer than a busy machine takes for all of them.
        ("FLAGCX_P2P_FAILED_HOLD_MS", "600000"),
        ("FLAGCX_P2P_XFER_TIMEOUT_MS", "100"),
        ("FLAGCX_P2P_FAULTS", "delay=us:10000000"),
    ];
    let pair = Pair::with(1 << 16, &settings);
    let iov = [pair.iov(0, 0, 64)];
    let mut asked = Vec::with_capacity(LIMIT);
    while asked.len() < LIMIT {
        let ids: Vec<_> = (0..(LIMIT - asked.len()).min(1 << 17))
            .map(|_| pair.here.submit(Opcode::Write, iov.as_slice()).unwrap())
            .collect();
        for id in &ids {
            assert!(!pair.here.has_ended(*id));
        }
        // The first question that meets the failure begins the hold.
        std::thread::sleep(Duration::from_millis(300));
        for id in &ids {
            assert!(!pair.here.has_ended(*id));
        }
        asked.extend(ids);
    }
    let refused = pair.here.submit(Opcode::Write, iov.as_slice());
    assert!(matches!(refused, Err(SubmitError::TooManyFailures { .. })), "{refused:?}");
    let refused = pair.here.try_submit(Opcode::Write, iov.as_slice());
    assert!(matches!(refused, Err(SubmitError::TooManyFailures { .. })), "{refused:?}");
    let (other, _there) = connect(&pair.client, &pair.server);
    assert!(other.submit(Opcode::Write, iov.as_slice()).is_ok(), "another connection");
    // A reported outcome makes room.
    assert_eq!(pair.here.status(asked[0]), Status::Ended(Outcome::TimedOut));
    assert!(pair.here.submit(Opcode::Write, iov.as_slice()).is_ok());
    assert!(asked.iter().skip(1).all(|id| !pair.here.has_ended(*id)), "none is dropped");
}

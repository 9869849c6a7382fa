//! Questions about transfers of which the slots are used again meanwhile.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::mpsc::sync_channel;

use super::*;
use crate::fabric::CompletionStatus;
use crate::pool::RequestFailure;
use crate::transfer::failed::Asked;

const HELD: Duration = Duration::from_secs(3600);

/// As `Connection::status`.
fn status(table: &Table, id: TransferId, thread: usize) -> Option<Outcome> {
    if let Some(live) = table.find(id) {
        assert!(live.record().is_ended() || !live.is_current());
        if table.release_done(&live) {
            return Some(Outcome::Done);
        }
        if let Some(outcome) = table.release(&live, String::new) {
            return Some(outcome);
        }
    }
    table.take_failed(id, thread).or_else(|| table.outcome(id))
}

/// As `Connection::has_ended`.
fn set_aside(table: &Table, id: TransferId, thread: usize) {
    let asked = Asked { connection: 1, thread, now: std::time::Instant::now() };
    if let Some(live) = table.find(id)
        && !table.release_done(&live)
    {
        let _ = table.set_aside(&live, asked, String::new);
    }
    let _ = table.has_failed_ended(id, asked);
}

/// Begins a transfer under the worker's lock, and ends it, each in one of five ways. Answers how.
fn run(table: &Table, worker: &Mutex<()>, number: u64) -> (TransferId, Outcome) {
    let held = lock(worker);
    let transfer = table.acquire_at(0).or_else(|| table.acquire()).unwrap();
    let (record, iov) = (transfer.record(), transfer.id as u32);
    record.start(1, TimeLimit::NEVER);
    let id = table.publish(transfer, 1);
    let outcome = match number % 5 {
        0 => {
            let status = CompletionStatus::RemoteAccess;
            record.fail(RequestFailure {
                iov,
                last_iov: iov,
                status,
                vendor_error: 0,
                reason: String::new(),
            });
            let (iov, peer, reason) = (iov as usize, String::new(), String::new());
            Outcome::Failed(Failure { iov, last_iov: iov, status, vendor_error: 0, peer, reason })
        }
        1 => {
            record.condemn(EndState::TimedOut);
            Outcome::TimedOut
        }
        2 => {
            record.condemn(EndState::Cancelled);
            Outcome::Cancelled
        }
        _ => Outcome::Done,
    };
    record.end_part();
    drop(held);
    (id, outcome)
}

/// Two threads ask about each transfer, one of them also whether it has ended only, and two others take its slot as soon as it is
/// free: each answer is how this transfer ended.
#[test]
fn every_thread_is_told_how_the_transfer_ended_that_it_asks_about() {
    const EACH: u64 = 20_000;
    let (table, worker) = (Table::new(HELD, 1), Mutex::new(()));
    let (first, first_asks) = sync_channel(100);
    let (second, second_asks) = sync_channel(100);
    std::thread::scope(|threads| {
        for _ in 0..2 {
            let (table, worker, first, second) = (&table, &worker, first.clone(), second.clone());
            threads.spawn(move || {
                for number in 0..EACH {
                    let ended = run(table, worker, number);
                    first.send(ended.clone()).unwrap();
                    second.send(ended).unwrap();
                }
            });
        }
        drop((first, second));
        for (thread, asks) in [first_asks, second_asks].into_iter().enumerate() {
            let table = &table;
            threads.spawn(move || {
                for (number, (id, outcome)) in asks.into_iter().enumerate() {
                    if thread == 1 && number % 3 == 0 {
                        set_aside(table, id, thread);
                    }
                    assert_eq!(status(table, id, thread), Some(outcome.clone()), "{id:?}");
                    assert_eq!(table.outcome(id), Some(outcome), "{id:?}");
                }
            });
        }
    });
    assert_eq!(table.live_ids(), []);
}

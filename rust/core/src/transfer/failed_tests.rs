//! The hold in virtual time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const HOLD: Duration = Duration::from_secs(35);
const A: u64 = 1;
const B: u64 = 2;

fn failed(reason: &str) -> Outcome {
    Outcome::Failed(Failure {
        iov: 3,
        last_iov: 3,
        status: CompletionStatus::RemoteAccess,
        vendor_error: 7,
        peer: "10.0.0.2:1000".to_owned(),
        reason: reason.to_owned(),
    })
}

fn limited(held: usize, past: usize) -> FailedTransfers {
    FailedTransfers::new(HOLD, Limits { held, past })
}

fn transfers() -> FailedTransfers {
    FailedTransfers::new(HOLD, Limits::DEFAULT)
}

/// Seconds after a fixed start, asked by one thread on one connection.
struct Clock(Instant);

impl Clock {
    fn at(&self, connection: u64, thread: usize, seconds: u64) -> Asked {
        Asked { connection, thread, now: self.0 + Duration::from_secs(seconds) }
    }
}

fn clock() -> Clock {
    Clock(Instant::now())
}

#[test]
fn a_failure_reads_as_not_ended_for_the_hold_for_each_thread_and_then_refuses_one_notification() {
    let (mut table, clock) = (transfers(), clock());
    let id = TransferId(5);
    table.insert(id, &failed("gone"), clock.at(A, 0, 0));
    for (connection, thread, seconds) in [(A, 0, 0), (A, 1, 1), (B, 0, 20), (A, 0, 34)] {
        assert_eq!(table.has_ended(id, clock.at(connection, thread, seconds)), Some(false));
        assert_eq!(table.take_refusal(connection, thread), None);
    }
    assert_eq!(table.has_ended(id, clock.at(A, 0, 35)), Some(true));
    assert_eq!(table.has_ended(id, clock.at(A, 1, 36)), Some(true), "and from then on to every thread");
    assert_eq!(table.take_refusal(A, 2), None, "that was not told");
    assert_eq!(table.take_refusal(B, 0), None, "another handle");
    for thread in [0, 1] {
        assert_eq!(table.take_refusal(A, thread), Some((id, failed("gone"))));
        assert_eq!(table.has_ended(id, clock.at(A, thread, 36)), Some(true));
        assert_eq!(table.take_refusal(A, thread), None, "once");
    }
}

#[test]
fn refusals_queue_in_the_order_of_the_failures() {
    let (mut table, clock) = (transfers(), clock());
    let ids = [9, 4, 7].map(TransferId);
    for id in ids {
        table.insert(id, &Outcome::TimedOut, clock.at(A, 0, 0));
    }
    for id in ids.into_iter().rev() {
        assert_eq!(table.has_ended(id, clock.at(A, 0, 40)), Some(true));
    }
    for id in ids {
        assert_eq!(table.take_refusal(A, 0), Some((id, Outcome::TimedOut)));
    }
    assert_eq!(table.take_refusal(A, 0), None);
}

#[test]
fn the_outcome_ends_the_hold_and_the_refusal() {
    let (mut table, clock) = (transfers(), clock());
    let [held, told] = [1, 2].map(TransferId);
    table.insert(told, &failed("a"), clock.at(A, 0, 0));
    table.insert(held, &failed("b"), clock.at(A, 0, 30));
    assert_eq!(table.has_ended(told, clock.at(A, 0, 40)), Some(true));
    assert_eq!(table.tell(told, 0), Some(failed("a")));
    assert_eq!(table.tell(held, 1), Some(failed("b")));
    assert_eq!(table.take_refusal(A, 0), None);
    assert_eq!(table.has_ended(held, clock.at(A, 0, 40)), None);
    assert!(table.by_id.is_empty() && table.refusals.is_empty());
}

#[test]
fn without_a_hold_only_the_notification_tells() {
    let (mut table, clock) = (FailedTransfers::new(Duration::ZERO, Limits::DEFAULT), clock());
    table.insert(TransferId(1), &failed("a"), clock.at(A, 0, 0));
    assert_eq!(table.has_ended(TransferId(1), clock.at(A, 0, 0)), Some(true));
    assert!(table.take_refusal(A, 0).is_some());
}

#[test]
fn done_and_cancelled_transfers_are_not_kept() {
    let (mut table, clock) = (transfers(), clock());
    table.insert(TransferId(1), &Outcome::Done, clock.at(A, 0, 0));
    table.insert(TransferId(2), &Outcome::Cancelled, clock.at(A, 0, 0));
    assert!(table.by_id.is_empty());
}

/// An answer to one thread is none to another: that has its notification refused all the same.
#[test]
fn the_outcome_is_told_to_the_thread_that_asks_for_it() {
    let (mut table, clock) = (transfers(), clock());
    let id = TransferId(1);
    table.insert(id, &failed("a"), clock.at(A, 0, 0));
    assert_eq!(table.has_ended(id, clock.at(A, 0, 40)), Some(true));
    assert!(table.tell(id, 1).is_some());
    assert_eq!(table.has_ended(id, clock.at(A, 1, 40)), Some(true));
    assert_eq!(table.take_refusal(A, 0), Some((id, failed("a"))));
    assert!(table.tell(id, 1).is_some() && table.by_id.is_empty());
}

#[test]
fn a_connection_forgets_what_was_told_through_it_only() {
    let (mut table, clock) = (transfers(), clock());
    for (id, connection, seconds) in [(1, A, 0), (2, B, 0), (4, A, 0), (3, A, 1)] {
        table.insert(TransferId(id), &failed("a"), clock.at(connection, 0, seconds));
    }
    assert_eq!(table.has_ended(TransferId(1), clock.at(A, 0, 35)), Some(true));
    assert_eq!(table.has_ended(TransferId(4), clock.at(B, 0, 35)), Some(true));
    table.forget(A);
    assert_eq!(table.has_ended(TransferId(1), clock.at(B, 0, 35)), None, "told");
    assert_eq!(table.has_ended(TransferId(3), clock.at(B, 0, 35)), Some(false), "within its hold");
    assert_eq!(table.has_ended(TransferId(3), clock.at(B, 0, 36)), Some(true));
    assert_eq!(table.take_refusal(A, 0), None);
    for id in [4, 3] {
        assert_eq!(table.take_refusal(B, 0), Some((TransferId(id), failed("a"))));
    }
    assert_eq!(table.has_ended(TransferId(2), clock.at(A, 0, 34)), Some(false));
}

#[test]
fn of_destroyed_connections_a_bounded_number_is_kept() {
    let (mut table, clock) = (limited(100, 4), clock());
    for connection in 1..50 {
        for id in 0..10 {
            table.insert(TransferId(connection * 16 + id), &failed("a"), clock.at(connection, 0, connection));
        }
        table.forget(connection);
        assert_eq!(table.by_id.len(), 4);
    }
    assert_eq!(table.has_ended(TransferId(49 * 16 + 9), clock.at(99, 0, 83)), Some(false));
}

#[test]
fn within_their_hold_none_is_dropped_and_the_connection_has_no_room() {
    let (mut table, clock) = (limited(4, 2), clock());
    for id in 1..=6 {
        table.insert(TransferId(id), &failed("a"), clock.at(A, 0, id));
    }
    let now = |seconds| clock.at(A, 0, seconds).now;
    assert!(!table.has_room(A, now(35)), "6 of 4");
    assert!(table.has_room(B, now(35)), "another connection");
    for id in 1..=6 {
        assert_eq!(table.has_ended(TransferId(id), clock.at(A, 0, 35)), Some(false));
    }
    assert!(!table.has_room(A, now(37)), "4 of 4");
    assert!(table.has_room(A, now(38)));
    assert_eq!(table.has_ended(TransferId(1), clock.at(A, 0, 38)), None, "3 are past their hold, 2 are kept");
    assert_eq!(table.has_ended(TransferId(2), clock.at(A, 0, 38)), Some(true));
    table.tell(TransferId(5), 0).unwrap();
    assert_eq!(table.connections[&A].held.len(), 2);
}

#[test]
fn equal_reasons_are_kept_once() {
    let (mut table, clock) = (transfers(), clock());
    for id in 1..100 {
        table.insert(TransferId(id), &failed("the same"), clock.at(A, 0, 0));
    }
    assert_eq!(Arc::strong_count(&table.texts), 100);
}

/// The limits of the engine, for real: nothing within its hold is lost, and what is kept stays bounded.
#[test]
fn all_failures_within_the_hold_are_kept() {
    // A million in an optimised build; tests/failed_hold.rs has them all.
    let held = if cfg!(debug_assertions) { 1 << 17 } else { Limits::DEFAULT.held };
    let limits = Limits { held, ..Limits::DEFAULT };
    let (mut table, clock) = (FailedTransfers::new(HOLD, limits), clock());
    let count = limits.held as u64;
    let outcome = failed("the peer is gone");
    for id in 1..=count {
        table.insert(TransferId(id), &outcome, clock.at(A, 0, 0));
    }
    assert!(!table.has_room(A, clock.0));
    assert_eq!(table.by_id.len() as u64, count);
    for id in (1..=count).step_by(101) {
        assert_eq!(table.has_ended(TransferId(id), clock.at(A, 0, 34)), Some(false));
    }
    assert!(table.has_room(A, clock.0 + HOLD));
    assert_eq!(table.by_id.len(), Limits::DEFAULT.past, "past their hold");
    assert!(table.by_id.contains_key(&TransferId(count)) && !table.by_id.contains_key(&TransferId(1)));
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u64),
    Ask(u64, u64, usize),
    Tell(u64, usize),
    Refuse(u64, usize),
    Pass(u64),
}

/// A kept transfer as the rules see it.
struct Model {
    /// Of the hold, in seconds.
    end: u64,
    /// Connections and threads that were told that it has ended, and whether their notification was refused since.
    told: HashMap<(u64, usize), bool>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..3u64).prop_map(Step::Insert),
        6 => (0..30u64, 1..3u64, 0..2usize).prop_map(|(id, connection, thread)| Step::Ask(id, connection, thread)),
        2 => (0..30u64, 0..2usize).prop_map(|(id, thread)| Step::Tell(id, thread)),
        2 => (1..3u64, 0..2usize).prop_map(|(connection, thread)| Step::Refuse(connection, thread)),
        3 => (1..20u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    /// Beside a model that keeps every transfer in a plain map: the same answers, and nothing left behind.
    #[test]
    fn answers_as_the_rules_say(steps in steps()) {
        let (mut table, clock) = (transfers(), clock());
        let mut model: HashMap<u64, Model> = HashMap::new();
        let (mut seconds, mut next) = (0, 0);
        for step in steps {
            match step {
                Step::Insert(connection) => {
                    table.insert(TransferId(next), &failed("x"), clock.at(connection, 0, seconds));
                    model.insert(next, Model { end: seconds + 35, told: HashMap::new() });
                    next += 1;
                }
                Step::Ask(id, connection, thread) => {
                    let expected = model.get_mut(&id).map(|kept| {
                        let ended = seconds >= kept.end;
                        if ended {
                            kept.told.entry((connection, thread)).or_insert(false);
                        }
                        ended
                    });
                    let answer = table.has_ended(TransferId(id), clock.at(connection, thread, seconds));
                    prop_assert_eq!(answer, expected);
                }
                Step::Tell(id, thread) => {
                    prop_assert_eq!(table.tell(TransferId(id), thread).is_some(), model.contains_key(&id));
                    if let Some(kept) = model.get_mut(&id) {
                        kept.told.iter_mut().filter(|((_, told), _)| *told == thread).for_each(|(_, refused)| *refused = true);
                        if kept.told.values().all(|refused| *refused) {
                            model.remove(&id);
                        }
                    }
                }
                Step::Refuse(connection, thread) => {
                    let told = (connection, thread);
                    let first = model.iter().filter(|(_, kept)| kept.told.get(&told) == Some(&false)).map(|(id, _)| *id).min();
                    let refused = table.take_refusal(connection, thread).map(|(id, ..)| id.0);
                    prop_assert_eq!(refused, first);
                    if let Some(kept) = first.and_then(|id| model.get_mut(&id)) {
                        kept.told.insert(told, true);
                    }
                }
                Step::Pass(time) => seconds += time,
            }
            let kept: usize = table.connections.values().map(|of| of.held.len() + of.past.len()).sum();
            prop_assert_eq!((table.by_id.len(), kept), (model.len(), model.len()));
        }
    }
}

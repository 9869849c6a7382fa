#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::pool::COPY_WORKER;
use crate::transfer::REMEMBERED;
use crate::transfer::failed::Asked;

fn finish(table: &Table) -> TransferId {
    let id = begin(table);
    table.find(id).unwrap().record().end_part();
    let live = table.find(id).unwrap();
    assert_eq!(table.release(&live, String::new), Some(Outcome::Done));
    id
}

#[test]
fn an_old_id_is_known_as_ended_and_then_forgotten_but_never_live() {
    let table = Table::default();
    let first = finish(&table);
    assert!(table.find(first).is_none());
    for n in 0..2 * REMEMBERED {
        if n < REMEMBERED {
            assert_eq!(table.outcome(first), Some(Outcome::Done), "after {n}");
        }
        assert_ne!(finish(&table), first);
    }
    assert_eq!(table.outcome(first), None);
    assert_eq!(table.outcome(TransferId(0)), None);
    assert_eq!(table.outcome(TransferId(u64::MAX)), None);
    assert!(table.find(TransferId(u64::MAX)).is_none());
}

#[test]
fn grows_to_what_is_in_flight_and_reuses_slots() {
    let table = Table::default();
    let ids: Vec<_> = (0..1000).map(|_| begin(&table)).collect();
    assert_eq!(table.live_ids().len(), 1000);
    for id in &ids {
        let live = table.find(*id).unwrap();
        live.record().end_part();
        assert!(table.release(&live, String::new).is_some());
        assert!(table.release(&live, String::new).is_none(), "released twice");
    }
    assert_eq!(table.live_ids(), []);
    assert!(finish(&table).0 & SLOT_MASK < 1024);
}

fn begin(table: &Table) -> TransferId {
    let transfer = table.acquire().unwrap();
    transfer.record().start(1, TimeLimit::NEVER);
    table.publish(transfer, 1)
}

/// Blocks of slots go from table to table, and with them no id of another one.
#[test]
fn a_table_knows_no_id_of_the_one_before() {
    let mut before = None;
    for round in 0..4 {
        let table = Table::default();
        assert_eq!(table.live_ids(), [], "round {round}");
        let id = finish(&table);
        assert!(before.is_none_or(|before| before == id), "numbers begin anew");
        assert_eq!(table.outcome(id), Some(Outcome::Done));
        before = Some(id);
    }
}

#[test]
fn other_outcomes_are_remembered_as_long() {
    let table = Table::default();
    let late = begin(&table);
    let live = table.find(late).unwrap();
    live.record().condemn(EndState::TimedOut);
    live.record().end_part();
    assert_eq!(table.release(&live, String::new), Some(Outcome::TimedOut));
    for n in 0..2 * REMEMBERED {
        if n < REMEMBERED {
            assert_eq!(table.outcome(late), Some(Outcome::TimedOut), "after {n}");
        }
        finish(&table);
        assert!(table.find(late).is_none());
    }
    assert_eq!(table.outcome(late), None);
}

/// However many younger ones have ended before it did.
#[test]
fn the_outcome_of_a_transfer_that_ran_long_is_remembered() {
    let table = Table::default();
    let long = begin(&table);
    for _ in 0..5 * REMEMBERED {
        finish(&table);
    }
    let live = table.find(long).unwrap();
    live.record().condemn(EndState::Cancelled);
    live.record().end_part();
    assert_eq!(table.release(&live, String::new), Some(Outcome::Cancelled));
    for _ in 0..REMEMBERED {
        assert_eq!(table.outcome(long), Some(Outcome::Cancelled));
        finish(&table);
    }
}

#[test]
fn a_failure_keeps_its_details() {
    let table = Table::default();
    let id = begin(&table);
    let live = table.find(id).unwrap();
    live.record().fail(crate::pool::RequestFailure {
        iov: 17,
        last_iov: 17,
        status: crate::fabric::CompletionStatus::RemoteAccess,
        vendor_error: 9,
        reason: "why".to_owned(),
    });
    live.record().end_part();
    assert!(table.release(&live, || "peer".to_owned()).is_some());
    let Some(Outcome::Failed(failure)) = table.outcome(id) else { panic!("no failure") };
    assert_eq!((failure.iov, failure.vendor_error, failure.peer.as_str()), (17, 9, "peer"));
}

/// Of a worker, of which slots are taken under its lock, as long as some are free: then those of the list.
#[test]
fn slots_of_a_worker_are_taken_in_turn_and_free_once_their_transfers_are_released() {
    let table = Table::new(Duration::ZERO, 1);
    let begin = || {
        let transfer = table.acquire_at(0).or_else(|| table.acquire()).unwrap();
        transfer.record().start(1, TimeLimit::NEVER);
        table.publish(transfer, 1)
    };
    let release = |id: &TransferId| {
        let live = table.find(*id).unwrap();
        live.record().end_part();
        table.release_done(&live)
    };
    let is_of_worker = |id: &&TransferId| id.0 & SLOT_MASK >= MOST_TRANSFERS as u64;
    let ids: Vec<_> = (0..200).map(|_| begin()).collect();
    assert_eq!(ids.iter().filter(is_of_worker).count(), BLOCK);
    let mut live = table.live_ids();
    live.sort_unstable();
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    assert_eq!(live, sorted);
    assert!(ids.iter().all(&release));
    assert_eq!(table.live_ids(), []);
    for _ in 0..3 * BLOCK {
        let id = begin();
        assert!(is_of_worker(&&id) && !ids.contains(&id) && release(&id));
        assert_eq!(table.outcome(id), Some(Outcome::Done));
    }
    assert!(table.acquire_at(1).is_none(), "there is no such worker");
}

/// That a transfer was done is not recorded: a failure that is forgotten must not be taken for that.
#[test]
fn an_outcome_that_is_forgotten_is_unknown() {
    let table = Table::default();
    let failed: Vec<_> = (0..=REMEMBERED).map(|_| begin(&table)).collect();
    for id in &failed {
        let live = table.find(*id).unwrap();
        live.record().condemn(EndState::TimedOut);
        live.record().end_part();
        assert_eq!(table.outcome(*id), None, "not released");
        assert_eq!(table.release(&live, String::new), Some(Outcome::TimedOut));
    }
    assert_eq!(table.outcome(failed[0]), None);
    assert_eq!(
        (table.outcome(failed[1]), table.end_state(failed[1])),
        (Some(Outcome::TimedOut), Some(EndState::TimedOut))
    );
    // The one released last has its slot taken first.
    let done: Vec<_> = failed.iter().map(|_| finish(&table)).collect();
    assert!(done.iter().step_by(64).all(|id| table.outcome(*id) == Some(Outcome::Done)));
    let never = TransferId(done[REMEMBERED].0 + 2 * FREE);
    assert_eq!((table.outcome(never), table.outcome(TransferId(done[0].0 & SLOT_MASK))), (None, None));
}

/// A failure that is met by a caller without the outcome, and told to another one later, takes one place, and not that of others.
#[test]
fn a_failure_that_is_told_late_pushes_out_no_other() {
    let table = Table::new(Duration::ZERO, 0);
    let fail = |state| {
        let id = begin(&table);
        let live = table.find(id).unwrap();
        live.record().condemn(state);
        live.record().end_part();
        (id, live)
    };
    let (cancelled, live) = fail(EndState::Cancelled);
    assert_eq!(table.release(&live, String::new), Some(Outcome::Cancelled));
    let asked = Asked { connection: 1, thread: 1, now: std::time::Instant::now() };
    let failed: Vec<_> = (1..REMEMBERED)
        .map(|_| {
            let (id, live) = fail(EndState::TimedOut);
            assert_eq!(table.set_aside(&live, asked, String::new), Some(Outcome::TimedOut));
            id
        })
        .collect();
    for id in &failed {
        assert_eq!(table.take_failed(*id, 1), Some(Outcome::TimedOut));
    }
    assert_eq!(table.outcome(cancelled), Some(Outcome::Cancelled), "one of the last {REMEMBERED}");
    assert_eq!(table.outcome(failed[0]), Some(Outcome::TimedOut));
    // Of the time when they were told: the other one was recorded before.
    let (_, live) = fail(EndState::TimedOut);
    assert!(table.release(&live, String::new).is_some());
    assert_eq!((table.outcome(cancelled), table.outcome(failed[0])), (None, Some(Outcome::TimedOut)));
}

/// Callers that sleep until its end watch all workers that may have a part, also those that one has moved to.
#[test]
fn a_transfer_is_with_the_workers_that_its_parts_moved_to() {
    let table = Table::default();
    let transfer = table.acquire().unwrap();
    transfer.record().start(2, TimeLimit::NEVER);
    let bits = 1 | 1 << 62 | 1 << COPY_WORKER;
    let live = table.find(table.publish(transfer, bits)).unwrap();
    assert_eq!(live.workers().collect::<Vec<_>>(), [0, 62, COPY_WORKER]);
    live.record().watch();
    assert_eq!(live.workers().count(), 3);
    live.record().moves_to(9);
    assert_eq!(live.workers().collect::<Vec<_>>(), [0, 9, 62, COPY_WORKER]);
    assert!(live.is_with(62) && live.is_with(COPY_WORKER) && !live.is_with(9), "it was given to them");
    (0..2).for_each(|_| _ = live.record().end_part());
    assert!(table.release_done(&live));
    let next = table.acquire().unwrap();
    assert!(std::ptr::eq(next.record(), live.record()), "the slot is used again");
    next.record().start(1, TimeLimit::NEVER);
    let live = table.find(table.publish(next, 2)).unwrap();
    assert_eq!(live.workers().collect::<Vec<_>>(), [1]);
    live.record().end_part();
}

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::*;
use crate::transfer::REMEMBERED;

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

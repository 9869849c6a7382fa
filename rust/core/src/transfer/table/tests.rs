#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::*;
use crate::transfer::REMEMBERED;

fn finish(table: &Table) -> TransferId {
    let claim = table.claim().unwrap();
    claim.task().start(1, TimeLimit::NEVER);
    let id = table.publish(claim, 1);
    table.find(id).unwrap().task().end_part();
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
    let ids: Vec<_> = (0..1000)
        .map(|_| {
            let claim = table.claim().unwrap();
            claim.task().start(1, TimeLimit::NEVER);
            table.publish(claim, 1)
        })
        .collect();
    assert_eq!(table.live_ids().len(), 1000);
    for id in &ids {
        let live = table.find(*id).unwrap();
        live.task().end_part();
        assert!(table.release(&live, String::new).is_some());
        assert!(table.release(&live, String::new).is_none(), "released twice");
    }
    assert_eq!(table.live_ids(), []);
    assert!(finish(&table).0 & SLOT_MASK < 1024);
}

fn begin_for(table: &Table, worker: usize) -> TransferId {
    let (id, _) = table.begin_one(worker, TimeLimit::NEVER).unwrap();
    assert_eq!(table.find(id).unwrap().workers().collect::<Vec<_>>(), [worker]);
    id
}

fn end(table: &Table, id: TransferId) {
    let live = table.find(id).unwrap();
    live.task().end_part();
    assert!(table.release_done(&live));
    assert!(!table.release_done(&live), "released twice");
}

#[test]
fn a_worker_takes_its_own_slots_in_turn_and_others_while_they_are_in_use() {
    let table = Table::default();
    let slot = |id: TransferId| id.0 & SLOT_MASK;
    end(&table, begin_for(&table, 3)); // its worker_slots is made
    let long = begin_for(&table, 3);
    let worker_slots = slot(long) / CHUNK as u64;
    let ids: Vec<_> = (1..2 * CHUNK).map(|_| begin_for(&table, 3)).collect();
    let at_home = ids.iter().filter(|id| slot(**id) / CHUNK as u64 == worker_slots).count();
    assert_eq!(at_home, CHUNK - 1, "all of its own, and then others");
    assert_ne!(slot(begin_for(&table, 4)) / CHUNK as u64, worker_slots);
    for id in &ids {
        end(&table, *id);
        assert_eq!(table.outcome(*id), Some(Outcome::Done));
    }
    let mut seen = std::collections::HashSet::new();
    for _ in 0..3 * CHUNK {
        let id = begin_for(&table, 3);
        assert!(seen.insert(id) && !ids.contains(&id) && slot(id) != slot(long));
        end(&table, id);
    }
    assert_eq!(table.find(long).map(|live| live.task().is_ended()), Some(false));
    end(&table, long);
}

/// Chunks of slots go from table to table, and a worker's own to the next that needs some.
#[test]
fn slots_are_at_home_only_as_long_as_their_table_lives() {
    let used = |table: &Table| {
        end(table, begin_for(table, 0)); // its worker_slots is made
        let own = begin_for(table, 0);
        let other = finish(table);
        end(table, own);
        [own, other]
            .map(|id| (table.slot((id.0 & SLOT_MASK) as u32).unwrap().worker_slots(), table.outcome(id)))
    };
    let expected = [(Some(0), Some(Outcome::Done)), (None, Some(Outcome::Done))];
    for round in 0..4 {
        assert_eq!(used(&Table::default()), expected, "round {round}");
    }
}

#[test]
fn outcomes_at_home_are_remembered_as_long_as_others() {
    let table = Table::default();
    end(&table, begin_for(&table, 0)); // its worker_slots is made
    let failed = begin_for(&table, 0);
    let live = table.find(failed).unwrap();
    live.task().condemn(EndState::TimedOut);
    live.task().end_part();
    assert_eq!(table.release(&live, String::new), Some(Outcome::TimedOut));
    for n in 0..2 * REMEMBERED {
        if n < REMEMBERED {
            assert_eq!(table.outcome(failed), Some(Outcome::TimedOut), "after {n}");
        }
        end(&table, begin_for(&table, 0));
        assert!(table.find(failed).is_none());
    }
    assert_eq!(table.outcome(failed), None);
}

/// However many younger ones have ended before it did.
#[test]
fn the_outcome_of_a_transfer_that_ran_long_is_remembered() {
    let table = Table::default();
    end(&table, begin_for(&table, 0)); // a worker_slots is made
    let elsewhere = || {
        let claim = table.claim().unwrap();
        claim.task().start(1, TimeLimit::NEVER);
        table.publish(claim, 1)
    };
    let (general, at_home) = (elsewhere(), begin_for(&table, 0));
    for _ in 0..5 * REMEMBERED {
        finish(&table);
        end(&table, begin_for(&table, 0));
    }
    for long in [general, at_home] {
        let live = table.find(long).unwrap();
        live.task().condemn(EndState::Cancelled);
        live.task().end_part();
        assert_eq!(table.release(&live, String::new), Some(Outcome::Cancelled));
    }
    for _ in 0..REMEMBERED {
        assert_eq!(table.outcome(general), Some(Outcome::Cancelled));
        assert_eq!(table.outcome(at_home), Some(Outcome::Cancelled));
        finish(&table);
        end(&table, begin_for(&table, 0));
    }
}

#[test]
fn a_failure_keeps_its_details() {
    let table = Table::default();
    let claim = table.claim().unwrap();
    claim.task().start(1, TimeLimit::NEVER);
    let id = table.publish(claim, 0);
    let live = table.find(id).unwrap();
    live.task().fail(crate::pool::RequestFailure {
        iov: 17,
        status: crate::fabric::CompletionStatus::RemoteAccess,
        vendor_error: 9,
        reason: "why".to_owned(),
    });
    live.task().end_part();
    assert!(table.release(&live, || "peer".to_owned()).is_some());
    let Some(Outcome::Failed(failure)) = table.outcome(id) else { panic!("no failure") };
    assert_eq!((failure.iov, failure.vendor_error, failure.peer.as_str()), (17, 9, "peer"));
}

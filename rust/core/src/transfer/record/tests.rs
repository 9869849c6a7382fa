#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::*;
use crate::fabric::CompletionStatus;

#[test]
fn ends_with_its_last_part_and_keeps_the_first_end_state() {
    let record = TransferRecord::default();
    record.start(2, TimeLimit::new(Duration::from_millis(7)));
    assert!(!record.is_ended());
    record.end_part();
    record.fail(RequestFailure {
        iov: 3,
        last_iov: 3,
        status: CompletionStatus::RemoteAccess,
        vendor_error: 0,
        reason: String::new(),
    });
    assert!(!record.condemn(EndState::TimedOut));
    record.end_part();
    assert!(record.is_ended());
    assert_eq!(record.end_state(), EndState::Failed);
    assert_eq!(record.failure().map(|f| f.iov), Some(3));
    record.start(1, TimeLimit::NEVER);
    assert_eq!((record.end_state(), record.failure()), (EndState::Done, None));
}

#[test]
fn its_time_counts_from_the_first_look() {
    let record = TransferRecord::default();
    record.start(1, TimeLimit::new(Duration::from_millis(100)));
    assert!(!record.is_late(5_000) && !record.is_late(5_099) && record.is_late(5_100));
    record.start(1, TimeLimit::NEVER);
    assert!(!record.is_late(u64::MAX));
}

#[test]
fn a_late_caller_does_not_change_the_next_transfer() {
    let record = TransferRecord::default();
    record.start(1, TimeLimit::NEVER);
    let first = record.generation();
    record.end_part();
    record.start(1, TimeLimit::NEVER);
    assert!(!record.condemn_generation(first, EndState::Cancelled));
    record.abort_generation(first);
    assert!(!record.is_aborted() && record.end_state() == EndState::Done);
    record.abort();
    assert!(record.is_aborted() && record.condemn(EndState::Cancelled));
}

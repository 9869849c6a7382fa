//! Lanes that fail: by which end, and when nothing arrives over them any more.

use super::*;

/// A bad request has the same name there, and is tried on two rails at most.
#[test]
fn a_path_that_fails_as_a_local_error_interrupts() {
    let outcome_after = |local: bool, heals: usize, moves: usize| {
        let mut sides = [Side::new(0), Side::new(8)];
        let record = sides[0].begin(Opcode::Read, 0..2);
        for attempt in 0..=heals + moves {
            let [from, to] = &mut sides;
            {
                let mut nic = from.nic.state();
                nic.local = local;
                nic.fail(from.pair, CompletionStatus::LocalQpOperation);
            }
            from.step();
            if outcome(record).is_some() {
                return Some(attempt);
            }
            let parts = if attempt < moves { from.take() } else { Vec::new() };
            from.heal();
            if attempt < moves {
                assert!(to.put(parts).is_empty());
                sides.swap(0, 1);
            }
        }
        None
    };
    assert_eq!(outcome_after(false, 3, 0), Some(0), "a device that means the request");
    assert_eq!(outcome_after(true, 0, 0), None);
    assert_eq!(outcome_after(true, 3, 0), Some(1), "the same rail again");
    assert_eq!(outcome_after(true, 0, 1), None);
    assert_eq!(outcome_after(true, 0, 5), Some(2), "each time on another one");
}

#[test]
fn flushes_before_a_local_error_do_not_count_as_one() {
    let mut side = Side::new(0);
    side.nic.state().local = true;
    let record = side.begin(Opcode::Read, 0..2);
    for (flushes, expected) in [(2, None), (0, Some(EndState::Failed))] {
        for _ in 0..flushes {
            side.break_lane();
            side.heal();
        }
        side.nic.state().fail(side.pair, CompletionStatus::LocalQpOperation);
        side.step();
        assert_eq!(outcome(record), expected, "behind {flushes} flushes");
        side.heal();
    }
}

#[test]
fn a_lane_knows_whether_it_has_failed_or_this_end_has_stopped_it() {
    let mut side = Side::new(0);
    let cancelled = side.begin(Opcode::Write, 0..2);
    cancelled.abort();
    cancelled.condemn(EndState::Cancelled);
    side.state.early_ends.note();
    side.state.step_at(1000);
    assert_ne!(side.status.health(), LaneHealth::Healthy);
    assert_eq!(side.status.break_cause(), BreakCause::ThisEnd);
    side.step();
    side.heal();
    side.begin(Opcode::Write, 2..4);
    side.nic.state().fail(side.pair, CompletionStatus::RetryExceeded);
    side.step();
    assert_ne!(side.status.health(), LaneHealth::Healthy);
    assert_eq!(side.status.break_cause(), BreakCause::Failure);
}

/// As long as the queue pair is not in ERROR, requests of the peer may arrive over it. A device that is gone lets nothing through.
#[test]
fn a_queue_pair_that_is_not_moved_to_error_is_not_drained() {
    for (errno, is_drained) in [(libc::EAGAIN, false), (libc::EIO, false), (libc::ENODEV, true)] {
        let mut side = Side::new(0);
        side.nic.state().resists = Some(errno);
        side.break_lane();
        let record = side.begin(Opcode::Write, 0..2);
        side.step();
        assert_eq!(side.status.health() == LaneHealth::Drained, is_drained, "{errno}");
        let taken = side.take();
        assert_eq!(taken.len(), usize::from(is_drained));
        assert!(side.put(taken).is_empty());
        if !is_drained {
            side.nic.state().resists = None;
            side.step();
            assert_eq!(side.status.health(), LaneHealth::Drained);
            side.heal();
            side.run(2);
            assert_eq!(outcome(record), Some(EndState::Done));
        }
    }
}

/// One that has refused a post, or is broken for another reason than a completion in error, may be in order as its device sees it.
#[test]
fn a_queue_pair_that_has_failed_and_is_not_moved_to_error_is_not_drained() {
    for (errno, is_drained) in [(libc::EAGAIN, false), (libc::EIO, false), (libc::ENXIO, true)] {
        let mut side = Side::new(0);
        side.nic.state().resists = Some(errno);
        side.nic.state().refuse(side.pair, Some((0, libc::EINVAL)));
        let record = side.begin(Opcode::Write, 0..2);
        side.step();
        assert_eq!(outcome(record), Some(EndState::Failed));
        assert_eq!(side.status.health() == LaneHealth::Drained, is_drained, "{errno}");
        assert_eq!(
            side.state.turn().busy,
            !is_drained,
            "nothing is in flight, and the device is to be asked again"
        );
        side.nic.state().resists = None;
        // Deadlines are looked at every few milliseconds.
        (0..4).for_each(|_| side.step());
        assert!(!side.state.turn().busy);
        assert_eq!(side.status.health(), LaneHealth::Drained);
    }
    let mut side = Side::new(0);
    side.begin(Opcode::Write, 0..2);
    side.nic.state().resists = Some(libc::EAGAIN);
    side.nic.state().fail(side.pair, CompletionStatus::RetryExceeded);
    side.step();
    assert_eq!(side.status.health(), LaneHealth::Drained, "a completion in error says that it is in ERROR");
}

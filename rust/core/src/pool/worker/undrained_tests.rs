//! Queue pairs that do not drain, and lanes that are given up while others go on.

use super::*;
use crate::fabric::{FabricError, WorkQueue};

impl Side {
    /// The lane is in ERROR, and its requests stay outstanding.
    fn get_stuck(&mut self) {
        self.nic.state().silent = true;
        self.break_lane();
        assert_eq!(self.status.health(), LaneHealth::Broken);
    }

    fn take_queue_pair(&mut self) -> Box<dyn WorkQueue> {
        let Undrained::Destroy(queue_pair) = self.state.take_undrained(self.lane) else { unreachable!() };
        queue_pair
    }

    /// The device has destroyed it.
    fn destroyed(&mut self) {
        self.state.end_undrained(self.lane, Ok(()));
    }

    fn give_up(&mut self) -> (Vec<TakenPart>, bool) {
        let (taken, closing) = self.state.give_up_lane(self.lane, "given up");
        (taken, closing.is_closed())
    }
}

#[test]
fn what_a_destroyed_queue_pair_has_interrupted_goes_on_elsewhere() {
    let mut sides = [Side::new(0), Side::new(8)];
    let [from, to] = &mut sides;
    let record = from.begin(Opcode::Write, 0..6);
    from.run(2);
    from.get_stuck();
    let queue_pair = from.take_queue_pair();
    from.step();
    assert!(from.take().is_empty() && outcome(record).is_none(), "the device may be at work on them");
    drop(queue_pair);
    from.destroyed();
    assert_eq!((from.status.health(), from.state.outstanding()), (LaneHealth::Drained, 0));
    let taken = from.take();
    assert_eq!(taken.len(), 1);
    assert!(to.put(taken).is_empty());
    to.run(6);
    assert_eq!(outcome(record), Some(EndState::Done));
    // All that was not known to be done, and nothing twice on the other one.
    assert!((0..6).all(|note| from.nic.state().done.contains(&note) || to.nic.state().done.contains(&note)));
}

#[test]
fn a_lane_goes_on_with_the_queue_pair_that_takes_the_place_of_a_destroyed_one() {
    let mut side = Side::new(0);
    let record = side.begin(Opcode::Read, 0..4);
    side.get_stuck();
    drop(side.take_queue_pair());
    assert!(matches!(side.state.take_undrained(side.lane), Undrained::UnderWay));
    side.destroyed();
    side.nic.state().silent = false;
    side.heal();
    // Completions of the destroyed one come late, or were in the queue.
    for index in 0..4 {
        side.nic.state().complete_posted(index, CompletionStatus::Flushed);
        side.nic.state().complete_posted(index, CompletionStatus::Success);
    }
    side.step();
    assert_eq!((side.status.health(), outcome(record)), (LaneHealth::Healthy, None), "they are of no use");
    side.run(4);
    assert_eq!(outcome(record), Some(EndState::Done));
    assert_eq!(side.state.outstanding(), 0);
}

/// Completions that come while it is being destroyed count; the lane stays broken until it is.
#[test]
fn a_lane_is_not_rebuilt_while_its_queue_pair_is_being_destroyed() {
    let mut side = Side::new(0);
    let record = side.begin(Opcode::Write, 0..2);
    side.get_stuck();
    let queue_pair = side.take_queue_pair();
    (0..2).for_each(|index| side.nic.state().complete_posted(index, CompletionStatus::Success));
    side.step();
    assert_eq!(outcome(record), Some(EndState::Done));
    side.heal();
    assert_eq!(side.status.health(), LaneHealth::Broken);
    side.now += 60_000;
    side.step();
    assert_eq!(side.status.health(), LaneHealth::Broken, "nor is it destroyed once more");
    drop(queue_pair);
    side.destroyed();
    assert_eq!(side.status.health(), LaneHealth::Drained);
}

/// The device has other commands to carry out before.
#[test]
fn a_lane_is_not_given_up_while_its_queue_pair_waits_to_be_destroyed() {
    let mut side = Side::new(0);
    let record = side.begin(Opcode::Read, 0..2);
    side.get_stuck();
    side.state.await_destroy(side.lane);
    for _ in 0..10 {
        side.now += 3_000;
        side.step();
    }
    assert_eq!((side.status.health(), outcome(record)), (LaneHealth::Broken, None));
    drop(side.take_queue_pair());
    side.destroyed();
    assert_eq!((side.status.health(), outcome(record)), (LaneHealth::Drained, None));
    // Without a turn to come it is.
    side.nic.state().silent = false;
    side.heal();
    side.get_stuck();
    for _ in 0..2 {
        side.now += 3_000;
        side.step();
    }
    assert_eq!(side.status.health(), LaneHealth::Closed);
}

#[test]
fn what_is_interrupted_again_and_again_fails() {
    let mut side = Side::new(0);
    let record = side.begin(Opcode::Write, 0..2);
    for round in 0.. {
        assert!(round < 8, "it never ends");
        side.get_stuck();
        drop(side.take_queue_pair());
        side.destroyed();
        if outcome(record).is_some() {
            assert_eq!((round, outcome(record)), (3, Some(EndState::Failed)));
            return;
        }
        side.nic.state().silent = false;
        side.heal();
    }
}

/// Its memory is in use until the device is done with it.
#[test]
fn a_lane_that_is_closed_meanwhile_ends_once_its_queue_pair_is_destroyed() {
    for closes in [true, false] {
        let mut side = Side::new(0);
        let record = side.begin(Opcode::Write, 0..2);
        side.get_stuck();
        let queue_pair = side.take_queue_pair();
        if closes {
            assert!(!side.state.close_lane(side.lane, EndState::Cancelled, "closed").is_closed());
        }
        side.state.detach_lane(side.lane, EndState::Cancelled, "closed");
        side.state.destroy_detached();
        assert!(outcome(record).is_none() && side.state.is_detached(side.lane));
        drop(queue_pair);
        side.destroyed();
        assert_eq!((outcome(record), side.status.health()), (Some(EndState::Cancelled), LaneHealth::Closed));
        assert!(!side.state.is_detached(side.lane) && !side.state.has_lanes());
        assert_eq!(side.state.outstanding(), 0);
    }
}

#[test]
fn a_queue_pair_that_cannot_be_destroyed_moves_nothing() {
    let mut side = Side::new(0);
    let record = side.begin(Opcode::Read, 0..2);
    side.get_stuck();
    drop(side.take_queue_pair());
    let error = FabricError::call("ibv_destroy_qp", "fake", libc::EBUSY);
    side.state.end_undrained(side.lane, Err(error));
    assert_eq!((outcome(record), side.status.health()), (Some(EndState::Failed), LaneHealth::Closed));
    assert!(side.status.leaks(), "the device may be at work on it");
}

/// There is nothing to go on with.
#[test]
fn what_has_failed_meanwhile_ends_once_its_queue_pair_is_destroyed() {
    let mut side = Side::new(0);
    let record = side.begin(Opcode::Write, 0..2);
    side.get_stuck();
    let queue_pair = side.take_queue_pair();
    side.nic.state().complete_posted(0, CompletionStatus::RemoteAccess);
    side.step();
    assert!(outcome(record).is_none(), "the device may be at work on the other request");
    drop(queue_pair);
    side.destroyed();
    assert_eq!(outcome(record), Some(EndState::Failed));
}

/// What was never posted is for other lanes; what was posted ends, as nothing is known of the peer.
#[test]
fn a_lane_that_is_given_up_answers_what_was_never_posted() {
    let mut sides = [Side::new(0), Side::new(8)];
    let [from, to] = &mut sides;
    let posted = from.begin(Opcode::Write, 0..2);
    from.break_lane();
    let waiting = from.begin(Opcode::Write, 2..4);
    let (taken, is_closed) = from.give_up();
    assert!(is_closed && taken.len() == 1);
    assert_eq!((outcome(posted), from.status.health()), (Some(EndState::Failed), LaneHealth::Closed));
    assert!(to.put(taken).is_empty());
    to.run(2);
    assert_eq!(outcome(waiting), Some(EndState::Done));
    // One that was on its way.
    let late = from.begin(Opcode::Write, 4..6);
    assert!(outcome(late).is_none());
    let taken = from.state.take_unposted(from.lane);
    assert!(to.put(taken).is_empty());
    to.run(2);
    assert_eq!(outcome(late), Some(EndState::Done));
    // The connection ends.
    let last = from.begin(Opcode::Write, 6..8);
    assert!(from.state.close_lane(from.lane, EndState::Cancelled, "closed").is_closed());
    assert_eq!((outcome(last), from.state.has_lanes()), (Some(EndState::Cancelled), false));
}

#[test]
fn a_lane_is_given_up_once_it_is_drained() {
    let mut side = Side::new(0);
    let record = side.begin(Opcode::Write, 0..2);
    side.get_stuck();
    assert!(!side.give_up().1 && outcome(record).is_none());
    drop(side.take_queue_pair());
    assert!(!side.give_up().1);
    side.destroyed();
    assert!(side.give_up().1);
    assert_eq!(outcome(record), Some(EndState::Failed));
}

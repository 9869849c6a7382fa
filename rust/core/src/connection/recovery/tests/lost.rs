//! A device that is lost where no other rail works, and one may come.

use super::rails::{FIRST, RAILS_FOLLOWER, RAILS_LEADER};
use super::*;

const LOST: DeviceHealth = DeviceHealth::Lost("it was removed");
const QUIESCE: ChannelFrame = ChannelFrame::Quiesce { lane: 0, number: 1 };
const QUIESCED: ChannelFrame = ChannelFrame::Quiesced { lane: 0, number: 1 };
const ADD: ChannelFrame = ChannelFrame::AddRail { rail: 1, own: 3, peer: 4, lanes: 1 };

fn moved(both_ends: bool) -> Action {
    Action::MoveParts { lane: 0, both_ends }
}

fn end() -> Action {
    close(LostReason::Device("it was removed"))
}

impl Fixture {
    /// The device is lost, and whether there are NICs for another rail is known.
    fn lose(&mut self, has_spare: bool) -> Vec<Action> {
        self.machine.set_spare(has_spare, self.now);
        self.device(LOST)
    }

    /// A follower with one rail of which the device is lost; the peer knows it.
    fn waiting() -> Self {
        let mut fixture = Self::new(RAILS_FOLLOWER, 1);
        let actions = [Action::Break { lane: 0, reason: "it was removed" }, Action::Send(QUIESCE)];
        assert_eq!(fixture.lose(true), actions);
        assert_eq!(fixture.drain(0), [], "its parts wait");
        assert_eq!(fixture.receive(QUIESCED), []);
        assert!(fixture.machine.lacks_rail());
        fixture
    }

    /// The first lane of rail 1 becomes healthy; what that leads to.
    fn get_rail(&mut self) -> Vec<Action> {
        self.receive(ADD);
        self.machine.rail_opened(1, Ok(()), self.now);
        self.actions();
        let request = ChannelFrame::Rebuild { lane: FIRST as u32, attempt: 1, record: record(7) };
        self.receive(request);
        self.machine.created(FIRST, 1, Ok(record(9)), self.now);
        self.actions();
        self.receive(ChannelFrame::Ready { lane: FIRST as u32, attempt: 1 })
    }
}

#[test]
fn without_nics_for_another_rail_the_connection_ends_at_once() {
    let mut fixture = Fixture::new(RAILS_LEADER, 2);
    assert_eq!(fixture.lose(false), [Action::Lose(LostReason::Device("it was removed"))]);
}

#[test]
fn parts_move_to_the_rail_that_is_made_and_the_lane_is_closed_once_it_is_empty() {
    let mut fixture = Fixture::waiting();
    fixture.now += 2 * SECOND;
    assert_eq!(fixture.get_rail(), [Action::Install { lane: FIRST, attempt: 1 }, moved(true)]);
    assert!(!fixture.machine.lacks_rail());
    assert_eq!(fixture.device(LOST), [], "not all keys are known there");
    fixture.machine.lane_empty(0, fixture.now);
    assert_eq!(fixture.actions(), [end(), refused(0)]);
    assert!(!fixture.machine.is_over());
}

#[test]
fn what_does_not_fit_on_the_rail_that_is_made_has_some_time() {
    let mut fixture = Fixture::waiting();
    fixture.now += 2 * SECOND;
    fixture.get_rail();
    assert_eq!(fixture.expire(2 * SECOND + STEP_LIMIT), [end(), refused(0)]);
    assert!(!fixture.machine.is_over());
}

#[test]
fn a_rail_that_never_comes_is_not_waited_for_without_end() {
    let mut fixture = Fixture::waiting();
    let last = fixture.expire(DEVICE_LIMIT).pop();
    assert!(matches!(last, Some(Action::Lose(LostReason::NoLane(_)))), "{last:?}");
}

#[test]
fn once_no_nics_are_left_the_connection_ends() {
    let mut fixture = Fixture::waiting();
    assert_eq!(fixture.lose(false), [Action::Lose(LostReason::Device("it was removed"))]);
    // A rail that is being made may still come.
    let mut fixture = Fixture::waiting();
    fixture.receive(ADD);
    assert_eq!(fixture.lose(false), []);
}

#[test]
fn the_second_device_that_is_lost_ends_the_connection() {
    let mut fixture = Fixture::two_rails(RAILS_LEADER);
    fixture.machine.device(1, LOST, fixture.now);
    fixture.drain(FIRST);
    assert_eq!(fixture.lose(false), [Action::Lose(LostReason::Device("it was removed"))]);
}

/// The peer's device is lost: its end was not in working order yet, and here parts are on their way.
#[test]
fn a_working_lane_that_the_peer_has_closed_is_left_for_a_rail_that_may_come() {
    let closed = ChannelFrame::Refused { lane: 0, attempt: 0 };
    let waiting = || {
        let mut fixture = Fixture::new(RAILS_FOLLOWER, 1);
        fixture.machine.set_spare(true, fixture.now);
        let left = Action::Break { lane: 0, reason: "the peer has closed its end of the lane" };
        assert_eq!(fixture.receive(closed), [left]);
        assert_eq!(fixture.drain(0), []);
        assert!(fixture.machine.lacks_rail(), "it is asked for");
        fixture
    };
    assert!(waiting().get_rail().contains(&moved(true)));
    assert_eq!(waiting().expire(DEVICE_LIMIT)[0], close(LostReason::Refused), "none comes");
    let mut fixture = waiting();
    fixture.machine.set_spare(false, fixture.now);
    assert_eq!(fixture.actions()[0], close(LostReason::Refused), "there is none after all");
    // Two rails of which the peer has closed both do not wait for each other.
    let mut fixture = Fixture::two_rails(RAILS_FOLLOWER);
    fixture.receive(closed);
    fixture.drain(0);
    let last = fixture.receive(ChannelFrame::Refused { lane: FIRST as u32, attempt: 0 }).pop();
    assert!(matches!(last, Some(Action::Lose(_))), "{last:?}");
    // It has failed here too.
    let mut fixture = Fixture::new(RAILS_FOLLOWER, 1);
    fixture.machine.set_spare(true, fixture.now);
    fixture.machine.lane_broken(0, "retries exceeded", fixture.now);
    fixture.actions();
    assert_eq!(fixture.receive(closed), []);
    fixture.drain(0);
    assert!(fixture.get_rail().contains(&moved(true)));
    // None can come.
    let mut fixture = Fixture::new(RAILS_FOLLOWER, 1);
    assert_eq!(fixture.receive(closed)[0], close(LostReason::Refused));
}

/// Otherwise it would take three attempts of 3 s, and then give up.
#[test]
fn a_leader_that_asks_for_a_rebuild_is_told_to_wait() {
    let mut fixture = Fixture::waiting();
    let not_now = Action::Send(ChannelFrame::NotNow { lane: 0, attempt: 1 });
    assert_eq!(fixture.receive(ask(1)), [not_now]);
    let mut leader = Fixture::new(RAILS_LEADER, 1);
    let left = leader.receive(QUIESCE);
    assert!(matches!(left[..], [Action::Break { lane: 0, .. }]), "{left:?}");
    assert_eq!(leader.drain(0), [Action::Create { lane: 0, attempt: 1 }, Action::Send(QUIESCED)]);
}

/// The device refuses before it says that it is lost.
#[test]
fn a_queue_pair_that_cannot_be_created_does_not_end_a_connection_that_may_get_a_rail() {
    let error = || Err("ENODEV".to_owned());
    let mut fixture = Fixture::new(RAILS_LEADER, 1);
    fixture.machine.set_spare(true, fixture.now);
    fixture.drain(0);
    fixture.machine.created(0, 1, error(), fixture.now);
    assert_eq!(fixture.actions(), [discard(1)]);
    assert_eq!(fixture.lose(true), [Action::Send(QUIESCE)]);
    assert!(fixture.machine.lacks_rail());
    // It is not lost, and no rail comes.
    let mut fixture = Fixture::new(RAILS_LEADER, 1);
    fixture.machine.set_spare(true, fixture.now);
    fixture.drain(0);
    let mut attempt = 1;
    while !fixture.machine.is_over() {
        fixture.machine.created(0, attempt, error(), fixture.now);
        if fixture.actions() == [discard(attempt)] {
            fixture.now = fixture.machine.deadline().unwrap();
            fixture.machine.timeout(fixture.now);
            attempt += 1;
            assert_eq!(fixture.actions(), [Action::Create { lane: 0, attempt }]);
        }
    }
    assert!(fixture.now - fixture.start < 4 * SECOND && attempt > 3, "{attempt}");
}

/// The other rail has failed and is being rebuilt.
#[test]
fn parts_wait_for_a_rail_that_is_being_rebuilt() {
    let mut fixture = Fixture::two_rails(RAILS_LEADER);
    fixture.drain(FIRST);
    fixture.lose(false);
    assert_eq!(fixture.drain(0), []);
    fixture.build_quietly(FIRST, 2);
    assert!(fixture.actions().contains(&moved(false)));
}

/// A peer that says again and again that its end is closed costs nothing, and postpones nothing.
#[test]
fn a_lane_that_the_peer_has_closed_is_not_kept_for_longer_by_its_words() {
    let mut fixture = Fixture::waiting();
    fixture.get_rail();
    let refused = ChannelFrame::Refused { lane: 0, attempt: 0 };
    assert_eq!(fixture.receive(refused), [moved(true)]);
    fixture.now += SECOND;
    assert_eq!(fixture.receive(refused), []);
    assert!(matches!(fixture.expire(STEP_LIMIT)[..], [Action::Close { lane: 0, .. }, ..]));
}

/// Its device is not known to be lost, and a rail may come.
#[test]
fn a_device_that_does_not_answer_is_not_waited_for_again_and_again() {
    let mut fixture = Fixture::new(RAILS_LEADER, 1);
    fixture.machine.set_spare(true, fixture.now);
    fixture.drain(0);
    let mut waited = Duration::ZERO;
    while !fixture.machine.is_over() {
        let next = fixture.machine.deadline().unwrap();
        (waited, fixture.now) = (next - fixture.start, next);
        fixture.machine.timeout(next);
        fixture.actions();
    }
    assert!(waited < DRIVER_LIMIT + SECOND, "{waited:?}");
}

/// The NIC of the other rail is still registering it, or the peer announces it.
#[test]
fn memory_that_only_the_lost_rail_has_is_waited_for() {
    let mut fixture = Fixture::waiting();
    fixture.get_rail();
    fixture.machine.set_memory_comes(0, true);
    for round in 1..=4 {
        fixture.machine.lane_empty(0, fixture.now);
        assert_eq!(fixture.actions(), [], "the next transfer may be of such memory");
        assert_eq!(fixture.expire(STEP_LIMIT * round), []);
    }
    fixture.machine.set_memory_comes(0, false);
    fixture.machine.lane_empty(0, fixture.now);
    assert_eq!(fixture.actions(), [end(), refused(0)]);
    // Not for ever.
    let mut fixture = Fixture::waiting();
    fixture.get_rail();
    fixture.machine.set_memory_comes(0, true);
    while !fixture.actions().contains(&end()) {
        fixture.now += STEP_LIMIT;
        fixture.machine.timeout(fixture.now);
    }
    assert_eq!(fixture.now - fixture.start, MEMORY_LIMIT);
}

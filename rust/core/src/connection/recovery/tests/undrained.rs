//! Queue pairs that do not drain while another rail works.

use super::rails::{FIRST, RAILS_LEADER};
use super::*;

fn quiesce(number: u32) -> ChannelFrame {
    ChannelFrame::Quiesce { lane: FIRST as u32, number }
}

fn quiesced(number: u32) -> ChannelFrame {
    ChannelFrame::Quiesced { lane: FIRST as u32, number }
}

#[test]
fn a_queue_pair_that_does_not_drain_is_destroyed_and_its_parts_move() {
    let destroy = [Action::Destroy { lane: FIRST }];
    let mut fixture = Fixture::two_rails(RAILS_LEADER);
    fixture.machine.lane_broken(FIRST, "retries exceeded", fixture.now);
    assert_eq!(fixture.actions(), [Action::Send(quiesce(1))]);
    assert_eq!(fixture.receive(quiesced(1)), [], "this end may still read the memory");
    assert_eq!(fixture.expire(DRAIN_LIMIT), destroy);
    assert_eq!(
        fixture.drain(FIRST),
        [Action::MoveParts { lane: FIRST, both_ends: true }, Action::Create { lane: FIRST, attempt: 2 }]
    );
    // The next failure has its own time. The end that the peer asks does the same.
    fixture.build(FIRST, 2);
    fixture.receive(quiesce(4));
    assert_eq!(fixture.pass(DRAIN_LIMIT), destroy);
    assert!(fixture.drain(FIRST).contains(&Action::Send(quiesced(4))));
}

/// There it may still drain, and its parts have nowhere to go.
#[test]
fn without_another_rail_a_queue_pair_is_not_destroyed_early() {
    let mut fixture = Fixture::two_rails(RAILS_LEADER);
    fixture.drain(0);
    fixture.machine.lane_broken(FIRST, "retries exceeded", fixture.now);
    fixture.actions();
    assert_eq!(fixture.pass(DRAIN_LIMIT), []);
    // Rail 0 is back.
    fixture.build_quietly(0, 1);
    assert!(fixture.actions().contains(&Action::Destroy { lane: FIRST }));
}

#[test]
fn a_lost_device_has_no_time_to_drain() {
    let mut fixture = Fixture::two_rails(RAILS_LEADER);
    fixture.machine.device(1, DeviceHealth::Lost("it was removed"), fixture.now);
    fixture.actions();
    assert_eq!(fixture.expire(LOST_DRAIN_LIMIT), [Action::Destroy { lane: FIRST }]);
}

/// What is on it can go on elsewhere once the command returns, also after more than the time of a step.
#[test]
fn a_queue_pair_that_takes_long_to_destroy_is_waited_for_while_another_rail_works() {
    let mut fixture = Fixture::two_rails(RAILS_LEADER);
    fixture.machine.lane_broken(FIRST, "retries exceeded", fixture.now);
    fixture.actions();
    fixture.receive(quiesced(1));
    assert_eq!(fixture.expire(DRAIN_LIMIT), [Action::Destroy { lane: FIRST }]);
    assert_eq!(fixture.pass_slowly(DESTROY_LIMIT - SECOND), []);
    assert!(fixture.drain(FIRST).contains(&Action::MoveParts { lane: FIRST, both_ends: true }));
    // The next one never returns.
    fixture.build(FIRST, 2);
    fixture.machine.lane_broken(FIRST, "retries exceeded", fixture.now);
    fixture.actions();
    assert!(fixture.pass(DRAIN_LIMIT).contains(&Action::Destroy { lane: FIRST }));
    assert_eq!(fixture.pass_slowly(DESTROY_LIMIT - SECOND), []);
    assert!(fixture.pass_slowly(STEP_LIMIT + 2 * SECOND).iter().any(is_close));
}

/// There is nothing to wait for any more.
#[test]
fn without_another_rail_a_queue_pair_that_takes_long_to_destroy_is_given_up() {
    let mut fixture = Fixture::two_rails(RAILS_LEADER);
    fixture.machine.lane_broken(FIRST, "retries exceeded", fixture.now);
    fixture.actions();
    fixture.pass_slowly(2 * STEP_LIMIT - SECOND);
    fixture.drain(0);
    assert!(!fixture.pass_slowly(STEP_LIMIT - SECOND).iter().any(is_close), "its time begins now");
    assert!(fixture.pass_slowly(2 * SECOND).iter().any(is_close));
}

impl Fixture {
    /// Some time, in which all deadlines are looked at.
    pub(super) fn pass_slowly(&mut self, time: Duration) -> Vec<Action> {
        let moment = Duration::from_millis(50);
        (0..time.as_millis() / moment.as_millis()).flat_map(|_| self.pass(moment)).collect()
    }
}

fn is_close(action: &Action) -> bool {
    matches!(action, Action::Close { lane: FIRST, .. })
}

/// Its own parts may stay: the peer waits for the drain.
#[test]
fn the_end_that_is_asked_destroys_although_it_has_no_other_rail() {
    let mut fixture = Fixture::new(RAILS_LEADER, 1);
    let asked = ChannelFrame::Quiesce { lane: 0, number: 1 };
    assert!(matches!(fixture.receive(asked)[..], [Action::Break { lane: 0, .. }]));
    fixture.machine.lane_broken(0, "left", fixture.now);
    assert_eq!(fixture.expire(DRAIN_LIMIT), [Action::Destroy { lane: 0 }]);
    let answer = Action::Send(ChannelFrame::Quiesced { lane: 0, number: 1 });
    assert!(fixture.drain(0).contains(&answer));
}

/// As while the channel is away.
#[test]
fn a_queue_pair_is_destroyed_although_the_time_stands_still() {
    let mut fixture = Fixture::two_rails(RAILS_LEADER);
    assert_eq!(fixture.machine.undrained_lanes().count(), 0);
    fixture.machine.lane_broken(FIRST, "retries exceeded", fixture.now);
    fixture.actions();
    assert!(fixture.machine.undrained_lanes().eq([FIRST]));
    fixture.machine.drain_is_late(FIRST, fixture.now);
    assert_eq!(fixture.actions(), [Action::Destroy { lane: FIRST }]);
    assert_eq!(fixture.machine.undrained_lanes().count(), 0, "once");
}

/// What the peer has posted may still arrive.
#[test]
fn of_a_queue_pair_that_is_not_destroyed_nothing_is_said() {
    let mut fixture = Fixture::two_rails(RAILS_LEADER);
    fixture.receive(quiesce(4));
    // The worker has closed it, in vain.
    fixture.machine.lane_lingers(FIRST, fixture.now);
    fixture.machine.lane_lingers(FIRST, fixture.now);
    assert_eq!(fixture.actions(), []);
    for frame in [quiesce(5), ChannelFrame::Refused { lane: FIRST as u32, attempt: 0 }] {
        assert_eq!(fixture.receive(frame), []);
    }
    // It is destroyed after all.
    fixture.machine.lane_closed(FIRST, fixture.now);
    let gone = Action::Send(ChannelFrame::Refused { lane: FIRST as u32, attempt: 1 });
    assert_eq!(fixture.actions(), [Action::Send(quiesced(5)), gone]);
}

/// It is closed by the machine, and its queue pair takes long.
#[test]
fn what_was_to_be_said_of_a_lane_is_said_once_it_is_destroyed() {
    let mut fixture = Fixture::two_rails(RAILS_LEADER);
    fixture.receive(quiesce(4));
    fixture.now += STEP_LIMIT + SECOND;
    while !fixture.machine.next_local_action().is_some_and(|action| matches!(action, Action::Close { .. })) {
        fixture.machine.timeout(fixture.now);
        fixture.now += SECOND;
    }
    fixture.machine.lane_lingers(FIRST, fixture.now);
    assert_eq!(fixture.actions(), []);
    fixture.machine.lane_closed(FIRST, fixture.now);
    let gone = Action::Send(ChannelFrame::Refused { lane: FIRST as u32, attempt: 1 });
    assert_eq!(fixture.actions(), [Action::Send(quiesced(4)), gone]);
    fixture.machine.lane_closed(FIRST, fixture.now);
    assert_eq!(fixture.actions(), [], "once");
}

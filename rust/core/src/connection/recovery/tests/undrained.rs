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

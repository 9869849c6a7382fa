//! The rules of the connection: its port, frames that fit nothing, the ways that it is lost.

use std::io;

use super::*;

#[test]
fn a_port_that_is_down_breaks_the_lanes_and_has_eight_seconds() {
    let mut fixture = Fixture::new(LEADER, 2);
    let reason = "the port is down";
    let both = [0, 1].map(|lane| Action::Break { lane, reason });
    assert_eq!(fixture.port_down(), both);
    assert_eq!(fixture.drain(0), []);
    assert_eq!(fixture.drain(1), []);
    let actions = fixture.expire(PORT_LIMIT);
    assert!(actions.contains(&close(LostReason::PortDown)));
    let last = LostReason::NoLane(Box::new(LostReason::PortDown));
    assert_eq!(actions.last(), Some(&Action::Lose(last)));
    assert!(fixture.machine.is_over() && fixture.machine.deadline().is_none());
}

#[test]
fn a_flapping_port_uses_no_attempts() {
    let mut fixture = Fixture::asked();
    for attempt in 1..50 {
        assert_eq!(fixture.port_down()[0], discard(attempt));
        fixture.drain(1);
        let next = Action::Create { lane: 0, attempt: attempt + 1 };
        assert!(fixture.device(DeviceHealth::Up).contains(&next));
        fixture.create(attempt + 1);
        fixture.machine.created(1, attempt, Ok(record(1)), fixture.now);
        fixture.actions();
    }
    assert!(!fixture.machine.is_over());
}

#[test]
fn a_follower_with_its_port_down_sends_nothing() {
    let mut fixture = Fixture::new(FOLLOWER, 1);
    fixture.drain(0);
    fixture.port_down();
    assert_eq!(fixture.receive(ask(1)), []);
    fixture.now += STEP_LIMIT;
    assert_eq!(fixture.device(DeviceHealth::Up), []);
    assert_eq!(fixture.receive(ask(2)), [create_connected(2)]);
    assert_eq!(fixture.port_down(), [discard(2)], "it would not survive this");
    fixture.device(DeviceHealth::Up);
    assert_eq!(fixture.create(2), [discard(2)]);
}

#[test]
fn a_half_that_a_port_took_is_not_ready() {
    let mut fixture = Fixture::answered();
    assert_eq!(fixture.port_down()[0], discard(1));
    assert_eq!(fixture.receive(ready(1)), [broken()]);
}

#[test]
fn lanes_of_a_peer_that_heals_nothing_are_closed_when_they_are_drained() {
    for leads in [true, false] {
        let mut fixture = Fixture::new(RebuildPolicy { leads, heals: false, ..LEADER }, 2);
        assert_eq!(fixture.port_down(), [], "the device's own retries decide");
        for frame in [ask(1), rebuilt(1), ready(1), ChannelFrame::Broken { lane: 0 }] {
            assert_eq!(fixture.receive(frame), []);
        }
        fixture.machine.lane_broken(0, "retries exceeded", fixture.now);
        assert_eq!(fixture.actions(), []);
        assert_eq!(fixture.drain(0), [close(LostReason::NotHealed(cause()))]);
        let last = Action::Lose(LostReason::NoLane(Box::new(LostReason::NotHealed(cause()))));
        assert_eq!(fixture.drain(1).last(), Some(&last));
    }
}

#[test]
fn frames_for_the_other_side_or_for_no_lane_are_ignored() {
    let mut leader = Fixture::new(LEADER, 1);
    assert_eq!(leader.receive(ask(1)), []);
    assert_eq!(leader.receive(ready(1)), []);
    let mut follower = Fixture::new(FOLLOWER, 1);
    assert_eq!(follower.receive(rebuilt(1)), []);
    assert_eq!(follower.receive(ChannelFrame::Broken { lane: 0 }), []);
    for fixture in [&mut leader, &mut follower] {
        for lane in [1, u32::MAX] {
            assert_eq!(fixture.receive(ChannelFrame::Rebuild { lane, attempt: 1, record: record(1) }), []);
            assert_eq!(fixture.receive(ChannelFrame::Refused { lane, attempt: 1 }), []);
            assert_eq!(fixture.receive(ChannelFrame::Broken { lane }), []);
        }
        assert_eq!(fixture.receive(ChannelFrame::Ping(7)), [Action::Send(ChannelFrame::Pong(7))]);
        assert_eq!(fixture.receive(ChannelFrame::Pong(7)), []);
    }
}

/// After that the machine does nothing.
#[test]
fn connections_are_lost_at_once_where_there_is_no_way_on() {
    let lost = |event: &dyn Fn(&mut Fixture)| {
        let mut fixture = Fixture::asked();
        event(&mut fixture);
        let actions = fixture.actions();
        assert_eq!(actions[0], discard(1));
        assert!(fixture.machine.is_over() && fixture.machine.deadline().is_none());
        assert_eq!(fixture.receive(ChannelFrame::Ping(1)), []);
        assert_eq!(fixture.receive(ChannelFrame::Goodbye), []);
        assert_eq!(fixture.drain(1), []);
        fixture.machine.timeout(fixture.now + 60 * SECOND);
        assert_eq!(fixture.actions(), []);
        actions[1].clone()
    };
    let goodbye = lost(&|fixture| fixture.machine.frame(ChannelFrame::Goodbye, fixture.now));
    assert_eq!(goodbye, Action::Lose(LostReason::Goodbye));
    let hung_up = lost(&|fixture| fixture.machine.channel_lost(&io::ErrorKind::UnexpectedEof.into()));
    assert_eq!(hung_up, Action::Lose(LostReason::HungUp));
    let device =
        lost(&|fixture| fixture.machine.device(0, DeviceHealth::Lost("it was removed"), fixture.now));
    assert_eq!(device, Action::Lose(LostReason::Device("it was removed")));
}

#[test]
fn frames_wait_apart_for_a_socket_that_takes_none() {
    let mut fixture = Fixture::new(FOLLOWER, 1);
    fixture.machine.lane_drained(0, "", fixture.now);
    fixture.machine.frame(ChannelFrame::Ping(1), fixture.now);
    fixture.machine.frame(ask(1), fixture.now);
    assert_eq!(fixture.machine.next_local_action(), Some(create_connected(1)));
    assert_eq!(fixture.machine.next_local_action(), None);
    fixture.machine.created(0, 1, Ok(record(101)), fixture.now);
    assert_eq!(fixture.machine.next_local_action(), None);
    // The Broken frame is obsolete.
    assert_eq!(fixture.actions(), [Action::Send(rebuilt(1)), Action::Send(ChannelFrame::Pong(1))]);
}

//! Lanes of a further rail that are made when it is used.

use super::rails::{FIRST, RAILS_FOLLOWER, RAILS_LEADER};
use super::*;

const LEADER: RebuildPolicy = RebuildPolicy { lanes_on_use: true, ..RAILS_LEADER };
const FOLLOWER: RebuildPolicy = RebuildPolicy { lanes_on_use: true, ..RAILS_FOLLOWER };

/// Lanes of rail 1.
const LANES: usize = 3;
const OTHERS: [usize; 2] = [FIRST + 1, FIRST + 2];
const LOST: DeviceHealth = DeviceHealth::Lost("it was removed");

fn create(lane: usize) -> Action {
    Action::Create { lane, attempt: 1 }
}

fn broken(lane: usize) -> Action {
    Action::Send(ChannelFrame::Broken { lane: lane as u32 })
}

fn is_create(action: &Action) -> bool {
    matches!(action, Action::Create { .. } | Action::CreateConnected { .. })
}

/// What an end does to have the other lanes made.
fn needs(policy: RebuildPolicy) -> [Action; 2] {
    OTHERS.map(if policy.leads { create } else { broken })
}

impl Fixture {
    fn use_rail(&mut self) -> Vec<Action> {
        self.machine.rail_is_used(1, self.now);
        self.actions()
    }

    /// With one lane on rail 1 that works.
    fn unused(policy: RebuildPolicy) -> Self {
        Self::two_rails_of(policy, LANES)
    }
}

#[test]
fn a_rail_has_one_lane_until_it_is_used() {
    for policy in [LEADER, FOLLOWER] {
        let mut fixture = Fixture::unused(policy);
        assert_eq!(fixture.machine.deadline(), None, "nothing is waited for");
        assert_eq!(fixture.machine.made_lanes(), 1 | 1 << FIRST);
        assert_eq!(fixture.pass(3600 * SECOND), []);
        assert_eq!(fixture.use_rail(), needs(policy));
        assert_eq!(fixture.use_rail(), [], "once");
        OTHERS.into_iter().for_each(|lane| fixture.build(lane, 1));
        assert_eq!(fixture.machine.made_lanes(), 1 | 0b111 << FIRST);
    }
}

#[test]
fn the_end_that_does_not_use_it_follows() {
    let mut leader = Fixture::unused(LEADER);
    assert_eq!(leader.receive(ChannelFrame::Broken { lane: 9 }), [create(9)]);
    assert_eq!(leader.receive(ChannelFrame::Broken { lane: 9 }), [], "it is being made");
    let mut follower = Fixture::unused(FOLLOWER);
    follower.build(FIRST + 2, 1);
    assert_eq!(follower.use_rail(), [broken(FIRST + 1)], "the other one is there");
}

#[test]
fn a_rail_that_is_alone_needs_all_its_lanes() {
    for policy in [LEADER, FOLLOWER] {
        let mut fixture = Fixture::unused(policy);
        let actions = fixture.drain(0);
        assert!(needs(policy).iter().all(|need| actions.contains(need)), "{actions:?}");
    }
    // None of these is made beside another one.
    let mut leader = Fixture::new(LEADER, 1);
    leader.drain(0);
    leader.machine.add_rail(1, 3, 4, LANES, leader.now);
    leader.open(1, Ok(()));
    let made = leader.receive(ChannelFrame::RailReady { rail: 1 });
    assert_eq!(made, [FIRST, OTHERS[0], OTHERS[1]].map(create));
    let mut follower = Fixture::new(FOLLOWER, 1);
    follower.drain(0);
    follower.receive(ChannelFrame::AddRail { rail: 1, own: 3, peer: 4, lanes: LANES as u8 });
    let ready = Action::Send(ChannelFrame::RailReady { rail: 1 });
    assert_eq!(follower.open(1, Ok(())), [ready, broken(OTHERS[0]), broken(OTHERS[1])]);
}

#[test]
fn a_first_lane_that_is_closed_leaves_the_rail_its_others() {
    for policy in [LEADER, FOLLOWER] {
        let mut fixture = Fixture::unused(policy);
        fixture.machine.lane_closed(FIRST, fixture.now);
        let actions = fixture.actions();
        assert!(needs(policy).iter().all(|need| actions.contains(need)), "{actions:?}");
    }
}

/// Before and while its lanes are made.
#[test]
fn a_rail_that_is_lost_makes_no_lanes() {
    for (policy, is_used) in [(LEADER, false), (FOLLOWER, false), (LEADER, true), (FOLLOWER, true)] {
        let mut fixture = Fixture::unused(policy);
        if is_used {
            fixture.use_rail();
        }
        fixture.machine.device(1, LOST, fixture.now);
        let actions = fixture.actions();
        for lane in OTHERS {
            let close = Action::Close { lane, reason: LostReason::Device("it was removed") };
            assert!(actions.contains(&close), "{actions:?}");
            let discard = Action::Discard { lane, attempt: 1 };
            assert_eq!(actions.contains(&discard), is_used && policy.leads, "{actions:?}");
        }
        assert!(!actions.iter().any(is_create) && !fixture.machine.is_over(), "{actions:?}");
        assert_eq!(fixture.use_rail(), []);
    }
}

#[test]
fn the_end_of_a_rail_that_the_peer_has_lost_makes_no_lanes() {
    let mut fixture = Fixture::unused(LEADER);
    for lane in OTHERS {
        let closed = fixture.receive(ChannelFrame::Refused { lane: lane as u32, attempt: 0 });
        assert_eq!(closed.first(), Some(&Action::Close { lane, reason: LostReason::Refused }));
    }
    assert_eq!(fixture.use_rail(), []);
}

#[test]
fn lanes_that_are_needed_wait_for_the_port_and_for_a_rail_that_is_left() {
    let mut fixture = Fixture::unused(LEADER);
    fixture.machine.device(1, DeviceHealth::PortDown(fixture.now), fixture.now);
    fixture.actions();
    assert_eq!(fixture.use_rail(), []);
    fixture.machine.device(1, DeviceHealth::Up, fixture.now);
    assert_eq!(fixture.actions(), OTHERS.map(create));
    for policy in [LEADER, FOLLOWER] {
        let mut fixture = Fixture::unused(policy);
        fixture.machine.leave_rail(1, "it is silent", fixture.now);
        fixture.actions();
        assert_eq!(fixture.use_rail(), []);
        fixture.machine.resume_rail(1, fixture.now);
        assert_eq!(fixture.actions(), needs(policy), "its first lane is not drained yet");
    }
}

#[test]
fn a_rail_of_which_the_first_lane_does_not_connect_is_reported() {
    let mut fixture = Fixture::new(LEADER, 1);
    fixture.machine.add_rail(1, 3, 4, LANES, fixture.now);
    fixture.open(1, Ok(()));
    fixture.receive(ChannelFrame::RailReady { rail: 1 });
    for attempt in 1..=MAX_ATTEMPTS {
        fixture.machine.created(FIRST, attempt, Ok(record(7)), fixture.now);
        fixture.receive(ChannelFrame::Rebuilt { lane: FIRST as u32, attempt, record: record(8) });
        fixture.machine.connected(FIRST, attempt, Err("EIO".to_owned()), fixture.now);
        let actions = fixture.actions();
        let is_reported = actions.iter().any(|action| matches!(action, Action::RailUnconnected { .. }));
        assert_eq!(is_reported, attempt == MAX_ATTEMPTS, "{attempt}: {actions:?}");
    }
}

/// Of a peer that asks for the lanes without end, or closes them.
#[test]
fn a_peer_may_have_them_made_and_close_them() {
    let mut fixture = Fixture::unused(FOLLOWER);
    let ask = ChannelFrame::Rebuild { lane: 9, attempt: 1, record: record(7) };
    assert!(fixture.receive(ask).iter().all(is_create));
    fixture.receive(ChannelFrame::Refused { lane: 9, attempt: 1 });
    assert_eq!(fixture.machine.made_lanes(), 1 | 1 << FIRST);
    assert!(!fixture.machine.is_over());
}

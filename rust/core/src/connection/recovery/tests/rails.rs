//! Rails that are added.

use super::*;
use crate::control::RailRefusal;

pub(super) const RAILS_LEADER: RebuildPolicy = RebuildPolicy { rails: true, ..LEADER };
pub(super) const RAILS_FOLLOWER: RebuildPolicy = RebuildPolicy { rails: true, ..FOLLOWER };

/// The first lane of rail 1.
pub(super) const FIRST: usize = LANES_PER_RAIL;

const ADD: ChannelFrame = ChannelFrame::AddRail { rail: 1, own: 3, peer: 4, lanes: 1 };
const READY: ChannelFrame = ChannelFrame::RailReady { rail: 1 };

impl Fixture {
    /// One healthy lane on rail 0, and one on rail 1.
    pub(super) fn two_rails(policy: RebuildPolicy) -> Self {
        Self::two_rails_of(policy, 1)
    }

    /// The same; rail 1 has further lanes that are not made yet.
    pub(super) fn two_rails_of(policy: RebuildPolicy, lanes: usize) -> Self {
        let mut fixture = Self::new(policy, 1);
        if policy.leads {
            fixture.machine.add_rail(1, 3, 4, lanes, fixture.now);
            fixture.open(1, Ok(()));
            assert_eq!(fixture.receive(READY), [Action::Create { lane: FIRST, attempt: 1 }]);
        } else {
            fixture.receive(ChannelFrame::AddRail { rail: 1, own: 3, peer: 4, lanes: lanes as u8 });
            assert_eq!(fixture.open(1, Ok(())), [Action::Send(READY)]);
        }
        fixture.build(FIRST, 1);
        fixture
    }

    /// Builds a lane, from the moment that the queue pair is to be created, or the request comes.
    pub(super) fn build(&mut self, lane: usize, attempt: u32) {
        let (index, record) = (lane as u32, record(7));
        if self.machine.policy.leads {
            self.machine.created(lane, attempt, Ok(record), self.now);
            let rebuild = ChannelFrame::Rebuild { lane: index, attempt, record };
            assert_eq!(self.actions().last(), Some(&Action::Send(rebuild)));
            let rebuilt = ChannelFrame::Rebuilt { lane: index, attempt, record };
            assert_eq!(self.receive(rebuilt), [Action::Connect { lane, attempt, peer: record }]);
            self.machine.connected(lane, attempt, Ok(()), self.now);
            let ready = Action::Send(ChannelFrame::Ready { lane: index, attempt });
            assert_eq!(self.actions(), [Action::Install { lane, attempt }, ready]);
        } else {
            let rebuild = ChannelFrame::Rebuild { lane: index, attempt, record };
            assert_eq!(self.receive(rebuild), [Action::CreateConnected { lane, attempt, peer: record }]);
            self.machine.created(lane, attempt, Ok(record), self.now);
            self.actions();
            let ready = ChannelFrame::Ready { lane: index, attempt };
            assert_eq!(self.receive(ready), [Action::Install { lane, attempt }]);
        }
    }

    /// Lets a leader's lane become healthy; its actions are left.
    pub(super) fn build_quietly(&mut self, lane: usize, attempt: u32) {
        self.machine.created(lane, attempt, Ok(record(7)), self.now);
        let rebuilt = ChannelFrame::Rebuilt { lane: lane as u32, attempt, record: record(7) };
        self.machine.frame(rebuilt, self.now);
        self.machine.connected(lane, attempt, Ok(()), self.now);
    }

    pub(super) fn open(&mut self, rail: usize, result: Result<(), RailRefusal>) -> Vec<Action> {
        self.machine.rail_opened(rail, result, self.now);
        self.actions()
    }

    fn add(&mut self, rail: usize, own: u16, peer: u16, lanes: usize) -> Vec<Action> {
        self.machine.add_rail(rail, own, peer, lanes, self.now);
        self.actions()
    }
}

fn refused(rail: usize, why: RailRefusal) -> Action {
    Action::RailRefused { rail, why }
}

#[test]
fn a_leader_opens_its_end_then_asks_then_builds_the_lanes() {
    let mut fixture = Fixture::new(RAILS_LEADER, 1);
    assert_eq!(fixture.add(2, 3, 4, 2), [Action::OpenRail { rail: 2, nic: 3, peer: 4, lanes: 2 }]);
    let frame = ChannelFrame::AddRail { rail: 2, own: 3, peer: 4, lanes: 2 };
    assert_eq!(fixture.open(2, Ok(())), [Action::Send(frame)]);
    let create = |lane| Action::Create { lane, attempt: 1 };
    assert_eq!(fixture.receive(ChannelFrame::RailReady { rail: 2 }), [create(16), create(17)]);
    assert_eq!(fixture.receive(ChannelFrame::RailReady { rail: 2 }), [], "once");
    fixture.build(17, 1);
    assert_eq!(fixture.machine.made_lanes(), 1 | 1 << 17);
    assert_eq!(fixture.add(2, 3, 4, 2), [], "it has it");
    assert_eq!(fixture.add(2, 3, 5, 2), [refused(2, RailRefusal::Unknown)]);
}

#[test]
fn a_follower_opens_its_end_and_waits_for_the_rebuilds() {
    let mut fixture = Fixture::new(RAILS_FOLLOWER, 1);
    // The receiver's NIC of the frame is the one here.
    assert_eq!(fixture.receive(ADD), [Action::OpenRail { rail: 1, nic: 4, peer: 3, lanes: 1 }]);
    assert_eq!(fixture.receive(ADD), [], "on its way");
    assert_eq!(fixture.open(1, Ok(())), [Action::Send(READY)]);
    assert_eq!(fixture.receive(ADD), [Action::Send(READY)], "answered again");
    assert_eq!(fixture.open(1, Ok(())), [], "once");
    fixture.build(FIRST, 1);
    let refused = |rail| Action::Send(ChannelFrame::RailRefused { rail, why: RailRefusal::Unknown });
    for (rail, own, lanes) in [(1, 5, 1), (1, 3, 2), (0, 3, 1), (8, 3, 1), (255, 3, 1), (2, 3, 0), (2, 3, 9)]
    {
        let frame = ChannelFrame::AddRail { rail, own, peer: 4, lanes };
        assert_eq!(fixture.receive(frame), [refused(rail)]);
    }
}

#[test]
fn either_end_may_refuse() {
    let mut leader = Fixture::new(RAILS_LEADER, 1);
    leader.add(1, 3, 4, 1);
    assert_eq!(leader.open(1, Err(RailRefusal::Unlike)), [refused(1, RailRefusal::Unlike)]);
    leader.add(1, 3, 5, 1);
    leader.open(1, Ok(()));
    let frame = ChannelFrame::RailRefused { rail: 1, why: RailRefusal::Limited };
    assert_eq!(leader.receive(frame), [refused(1, RailRefusal::Limited)]);
    assert_eq!(leader.receive(frame), []);
    assert_eq!(
        leader.add(1, 6, 7, 1),
        [Action::OpenRail { rail: 1, nic: 6, peer: 7, lanes: 1 }],
        "its number is free"
    );

    let mut follower = Fixture::new(RAILS_FOLLOWER, 1);
    follower.receive(ADD);
    let frame = ChannelFrame::RailRefused { rail: 1, why: RailRefusal::Unusable };
    assert_eq!(follower.open(1, Err(RailRefusal::Unusable)), [Action::Send(frame)]);
    assert_eq!(follower.receive(ADD), [Action::OpenRail { rail: 1, nic: 4, peer: 3, lanes: 1 }]);
}

/// The trial was answered, so the pair of NICs is not refused by that.
#[test]
fn a_rail_of_which_no_lane_connects_is_reported_once_and_tried_ever_more_rarely() {
    let mut fixture = Fixture::new(RAILS_LEADER, 1);
    fixture.add(1, 3, 4, 2);
    fixture.open(1, Ok(()));
    fixture.receive(READY);
    let unconnected =
        Action::RailUnconnected { rail: 1, reason: "the new queue pair did not connect: EIO".to_owned() };
    let try_to_build = |fixture: &mut Fixture, lane: usize, attempt: u32| {
        fixture.machine.created(lane, attempt, Ok(record(7)), fixture.now);
        fixture.receive(ChannelFrame::Rebuilt { lane: lane as u32, attempt, record: record(8) });
        fixture.machine.connected(lane, attempt, Err("EIO".to_owned()), fixture.now);
        fixture.actions()
    };
    for lane in [FIRST, FIRST + 1] {
        for attempt in 1..=MAX_ATTEMPTS {
            let actions = try_to_build(&mut fixture, lane, attempt);
            let is_last = lane > FIRST && attempt == MAX_ATTEMPTS;
            assert_eq!(actions.contains(&unconnected), is_last, "{lane}, {attempt}: {actions:?}");
        }
    }
    let mut pauses = Vec::new();
    for attempt in MAX_ATTEMPTS + 1.. {
        let before = fixture.now;
        fixture.now = fixture.machine.deadline().unwrap();
        fixture.machine.timeout(fixture.now);
        let create = |lane| Action::Create { lane, attempt };
        assert_eq!(fixture.actions(), [create(FIRST), create(FIRST + 1)]);
        pauses.push((fixture.now - before).as_millis());
        if pauses.len() == 12 {
            break;
        }
        for lane in [FIRST, FIRST + 1] {
            assert!(!try_to_build(&mut fixture, lane, attempt).contains(&unconnected), "once");
        }
    }
    let expected = [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 60_000, 60_000];
    assert_eq!(pauses, expected);
    fixture.build(FIRST, MAX_ATTEMPTS + 12);
    assert!(fixture.machine.made_lanes() >> FIRST & 1 == 1, "it is used once it connects");
}

/// The peer may still make it: then it must not take another rail for this one.
#[test]
fn a_rail_without_an_answer_is_refused_and_its_number_kept_for_its_nics() {
    let mut fixture = Fixture::new(RAILS_LEADER, 1);
    fixture.add(1, 3, 4, 1);
    fixture.open(1, Ok(()));
    assert_eq!(fixture.expire(STEP_LIMIT), [refused(1, RailRefusal::Unusable)]);
    assert_eq!(fixture.machine.deadline(), None);
    assert_eq!(fixture.receive(READY), [], "too late");
    assert_eq!(fixture.add(1, 5, 4, 1), [refused(1, RailRefusal::Unknown)]);
    assert_eq!(fixture.add(1, 3, 4, 1), [Action::OpenRail { rail: 1, nic: 3, peer: 4, lanes: 1 }]);
    fixture.open(1, Ok(()));
    assert_eq!(fixture.receive(READY), [Action::Create { lane: FIRST, attempt: 1 }]);
}

#[test]
fn a_follower_asks_and_the_leader_hears_it_with_its_own_eyes() {
    let mut follower = Fixture::new(RAILS_FOLLOWER, 1);
    follower.machine.request_rail(1, 2);
    let frame = ChannelFrame::RequestRail { own: 1, peer: 2 };
    assert_eq!(follower.actions(), [Action::Send(frame)]);
    let mut leader = Fixture::new(RAILS_LEADER, 1);
    assert_eq!(leader.receive(frame), [Action::RailRequested { own: 2, peer: 1 }]);
    // Each of the other side's.
    leader.machine.request_rail(1, 2);
    assert_eq!(leader.actions(), []);
    assert_eq!(leader.receive(ADD), []);
    assert_eq!(follower.receive(frame), []);
    assert_eq!(follower.add(1, 3, 4, 1), [refused(1, RailRefusal::Unknown)]);
    for (rail, lanes) in [(0, 1), (8, 1), (1, 0), (1, 9)] {
        assert_eq!(leader.add(rail, 3, 4, lanes), [refused(rail, RailRefusal::Unknown)]);
    }
}

#[test]
fn frames_of_rails_are_ignored_where_there_are_none() {
    for policy in [LEADER, FOLLOWER, RebuildPolicy { heals: false, ..RAILS_FOLLOWER }] {
        let mut fixture = Fixture::new(policy, 1);
        for frame in [
            ADD,
            READY,
            ChannelFrame::RailRefused { rail: 1, why: RailRefusal::Unknown },
            ChannelFrame::RequestRail { own: 1, peer: 1 },
            ChannelFrame::Quiesce { lane: 0, number: 1 },
            ChannelFrame::Quiesced { lane: 0, number: 1 },
        ] {
            assert_eq!(fixture.receive(frame), [], "{frame:?}");
        }
    }
}

/// The actions are not taken.
#[test]
fn floods_take_a_fixed_amount_of_memory() {
    for policy in [RAILS_LEADER, RAILS_FOLLOWER] {
        let mut fixture = Fixture::two_rails(policy);
        for number in 0..5000_u32 {
            let (small, byte) = (number as u16, number as u8);
            for frame in [
                ChannelFrame::AddRail { rail: byte, own: small, peer: small, lanes: 1 + byte % 8 },
                ChannelFrame::RailReady { rail: byte },
                ChannelFrame::RailRefused { rail: byte, why: RailRefusal::Unknown },
                ChannelFrame::RequestRail { own: small, peer: small },
                ChannelFrame::Quiesce { lane: number, number },
                ChannelFrame::Quiesced { lane: number, number },
            ] {
                fixture.machine.frame(frame, fixture.now);
            }
        }
        // A refusal for each number of a rail, an answer for each lane that there could be, and a few others.
        assert!(fixture.machine.backlog() <= 256 + 64 + 8 + 10, "{}", fixture.machine.backlog());
    }
}

#[test]
fn a_connection_is_lost_when_no_rail_has_a_lane() {
    let mut fixture = Fixture::two_rails(RAILS_FOLLOWER);
    fixture.machine.lane_closed(0, fixture.now);
    assert!(!fixture.machine.is_over(), "rail 1 works");
    fixture.actions();
    fixture.machine.lane_closed(FIRST, fixture.now);
    let lost = Action::Lose(LostReason::NoLane(Box::new(LostReason::Destroyed)));
    assert_eq!(fixture.actions(), [lost]);
}

#[test]
fn a_lost_device_takes_its_rail_only() {
    let mut fixture = Fixture::two_rails(RAILS_LEADER);
    let lost = DeviceHealth::Lost("it was removed");
    fixture.machine.device(0, lost, fixture.now);
    let left = Action::Send(ChannelFrame::Quiesce { lane: 0, number: 1 });
    assert_eq!(fixture.actions(), [Action::Break { lane: 0, reason: "it was removed" }, left]);
    assert_eq!(fixture.drain(0), [Action::MoveParts { lane: 0, both_ends: false }], "it is not rebuilt");
    fixture.machine.device(0, lost, fixture.now);
    assert_eq!(fixture.actions(), [], "it waits for the peer's drain");
    let end = Action::Close { lane: 0, reason: LostReason::Device("it was removed") };
    let refused = Action::Send(ChannelFrame::Refused { lane: 0, attempt: 0 });
    let moved = Action::MoveParts { lane: 0, both_ends: true };
    assert_eq!(fixture.receive(ChannelFrame::Quiesced { lane: 0, number: 1 }), [moved]);
    fixture.machine.lane_empty(0, fixture.now);
    assert_eq!(fixture.actions(), [end, refused]);
    assert!(!fixture.machine.is_over());
    fixture.machine.device(1, lost, fixture.now);
    assert_eq!(fixture.actions(), [Action::Lose(LostReason::Device("it was removed"))]);
}

#[test]
fn a_peer_that_does_not_answer_does_not_keep_a_lost_device() {
    let mut fixture = Fixture::two_rails(RAILS_FOLLOWER);
    fixture.machine.device(1, DeviceHealth::Lost("it was removed"), fixture.now);
    fixture.drain(FIRST);
    let end = Action::Close { lane: FIRST, reason: LostReason::Device("it was removed") };
    assert_eq!(fixture.expire(STEP_LIMIT)[0], end);
}

//! Trials of a path, before a rail is made over it.

use super::rails::{RAILS_FOLLOWER, RAILS_LEADER};
use super::*;
use crate::control::{PathAnswer, RailRefusal};

const NICS: (u16, u16) = (3, 4);

fn try_path(number: u32) -> ChannelFrame {
    ChannelFrame::TryPath { rail: 1, number, own: 3, peer: 4, record: record(number) }
}

fn tried(number: u32, answer: PathAnswer) -> ChannelFrame {
    ChannelFrame::PathTried { rail: 1, number, answer }
}

fn says(number: u32, answer: PathAnswer) -> Action {
    Action::Send(tried(number, answer))
}

fn create(number: u32) -> Action {
    Action::CreateTrial { rail: 1, number, nic: 3 }
}

fn make(number: u32) -> Action {
    Action::AnswerTrial { rail: 1, number, nic: 4, peer: record(number) }
}

fn end(number: u32) -> Action {
    Action::EndTrial { rail: 1, number }
}

fn refused(why: RailRefusal) -> Action {
    Action::RailRefused { rail: 1, why }
}

const OPEN: Action = Action::OpenRail { rail: 1, nic: 3, peer: 4, lanes: 2 };

impl Fixture {
    fn try_rail(&mut self) -> Vec<Action> {
        self.machine.try_rail(1, NICS, 2, self.now);
        self.actions()
    }

    fn trial_created(&mut self, number: u32, result: Result<LaneRecord, Option<RailRefusal>>) -> Vec<Action> {
        self.machine.trial_created(1, number, result, self.now);
        self.actions()
    }

    fn trial_written(&mut self, number: u32, result: Result<(), &str>) -> Vec<Action> {
        self.machine.trial_written(1, number, result.map_err(str::to_owned));
        self.actions()
    }

    /// A leader that has asked the peer in trial `number`.
    fn trying(number: u32) -> Self {
        let mut fixture = Self::new(RAILS_LEADER, 1);
        for before in 1..number {
            assert_eq!(fixture.try_rail(), [create(before)]);
            fixture.trial_created(before, Err(Some(RailRefusal::Unusable)));
        }
        assert_eq!(fixture.try_rail(), [create(number)]);
        let asks = Action::Send(try_path(number));
        assert_eq!(fixture.trial_created(number, Ok(record(number))), [asks]);
        fixture
    }

    /// A follower that has answered trial 1.
    fn holding() -> Self {
        let mut fixture = Self::new(RAILS_FOLLOWER, 1);
        assert_eq!(fixture.receive(try_path(1)), [make(1)], "the receiver's NIC is the one here");
        assert_eq!(fixture.trial_created(1, Ok(record(9))), [says(1, PathAnswer::Ready(record(9)))]);
        fixture
    }
}

#[test]
fn a_rail_is_made_after_a_request_has_gone_over_its_path() {
    let mut leader = Fixture::trying(1);
    let write = Action::WriteTrial { rail: 1, number: 1, peer: record(9) };
    assert_eq!(leader.receive(tried(1, PathAnswer::Ready(record(9)))), [write]);
    assert_eq!(leader.receive(tried(1, PathAnswer::Ready(record(9)))), [], "once");
    assert_eq!(leader.try_rail(), [], "it is under way");
    assert_eq!(leader.trial_written(1, Ok(())), [end(1), OPEN, says(1, PathAnswer::Ended)]);
    assert_eq!(leader.machine.deadline(), None);
    assert_eq!(leader.try_rail(), [], "it is being opened");

    let mut follower = Fixture::holding();
    assert_eq!(follower.receive(try_path(1)), [], "repeated");
    assert_eq!(follower.receive(tried(1, PathAnswer::Ended)), [end(1)]);
    assert_eq!(follower.receive(tried(1, PathAnswer::Ended)), []);
    assert_eq!(follower.machine.deadline(), None);
}

#[test]
fn a_path_that_carries_nothing_is_refused_and_its_number_free() {
    let mut leader = Fixture::trying(1);
    leader.receive(tried(1, PathAnswer::Ready(record(9))));
    let refused = |reason: &str| Action::PathRefused { rail: 1, reason: reason.to_owned() };
    let ended = says(1, PathAnswer::Ended);
    assert_eq!(
        leader.trial_written(1, Err("retries exceeded")),
        [end(1), refused("retries exceeded"), ended]
    );
    assert_eq!(leader.try_rail(), [create(2)]);

    let mut leader = Fixture::trying(1);
    let reason = "the peer's queue pair did not connect: its log says why at level DEBUG";
    assert_eq!(leader.receive(tried(1, PathAnswer::Unreached)), [end(1), refused(reason)]);
}

#[test]
fn a_path_that_cannot_be_tried_is_no_path_that_fails() {
    let mut leader = Fixture::new(RAILS_LEADER, 1);
    leader.try_rail();
    assert_eq!(leader.trial_created(1, Err(Some(RailRefusal::Unlike))), [refused(RailRefusal::Unlike)]);
    let mut leader = Fixture::trying(2);
    let limited = tried(2, PathAnswer::Refused(RailRefusal::Limited));
    assert_eq!(leader.receive(limited), [end(2), refused(RailRefusal::Limited)]);
    let mut leader = Fixture::trying(1);
    let gone = [end(1), refused(RailRefusal::Unusable), says(1, PathAnswer::Ended)];
    assert_eq!(leader.expire(STEP_LIMIT), gone, "a peer that does not answer");

    let mut follower = Fixture::new(RAILS_FOLLOWER, 1);
    follower.receive(try_path(1));
    let unlike = PathAnswer::Refused(RailRefusal::Unlike);
    assert_eq!(follower.trial_created(1, Err(Some(RailRefusal::Unlike))), [says(1, unlike)]);
    follower.receive(try_path(2));
    assert_eq!(follower.trial_created(2, Err(None)), [says(2, PathAnswer::Unreached)]);
}

#[test]
fn answers_that_come_late_or_of_another_trial_change_nothing() {
    let mut leader = Fixture::trying(2);
    assert_eq!(leader.receive(tried(1, PathAnswer::Ready(record(9)))), []);
    assert_eq!(leader.receive(tried(3, PathAnswer::Unreached)), []);
    assert_eq!(leader.trial_written(1, Ok(())), [end(1)]);
    assert_eq!(leader.trial_created(1, Ok(record(1))), [end(1)], "its queue pair is destroyed");
    leader.expire(STEP_LIMIT);
    assert_eq!(leader.receive(tried(2, PathAnswer::Ready(record(9)))), [], "given up");
    assert_eq!(leader.trial_written(2, Ok(())), [end(2)]);
    leader.machine.rail_opened(1, Ok(()), leader.now);
    assert_eq!(leader.actions(), []);
}

#[test]
fn a_follower_makes_one_queue_pair_at_a_time_for_each_number() {
    let mut follower = Fixture::new(RAILS_FOLLOWER, 1);
    assert_eq!(follower.receive(try_path(1)), [make(1)]);
    for number in 2..1000 {
        assert_eq!(follower.receive(try_path(number)), []);
    }
    assert_eq!(follower.trial_created(1, Ok(record(9))), [end(1), make(999)]);
    let ready = PathAnswer::Ready(record(9));
    assert_eq!(follower.trial_created(999, Ok(record(9))), [says(999, ready)]);
    assert_eq!(follower.receive(try_path(1000)), [end(999), make(1000)]);
    assert_eq!(follower.receive(tried(1000, PathAnswer::Ended)), [], "it is being created");
    assert_eq!(follower.trial_created(1000, Ok(record(9))), [end(1000)], "and not waited for any more");
    for rail in [0, 8, 255] {
        let frame = ChannelFrame::TryPath { rail, number: 1, own: 3, peer: 4, record: record(1) };
        assert_eq!(follower.receive(frame), []);
    }
}

#[test]
fn a_leader_that_goes_silent_holds_no_queue_pair() {
    let mut follower = Fixture::holding();
    assert_eq!(follower.expire(STEP_LIMIT), [end(1)]);
    assert_eq!(follower.receive(tried(1, PathAnswer::Ended)), []);
}

/// A driver that does not answer in time.
#[test]
fn a_step_that_never_ends_is_given_up() {
    let mut leader = Fixture::new(RAILS_LEADER, 1);
    leader.try_rail();
    assert_eq!(leader.expire(DRIVER_LIMIT), [end(1), refused(RailRefusal::Unusable)]);
    let mut leader = Fixture::trying(1);
    leader.receive(tried(1, PathAnswer::Ready(record(9))));
    let reason = "a request of no bytes was not answered".to_owned();
    let gone = [end(1), Action::PathRefused { rail: 1, reason }, says(1, PathAnswer::Ended)];
    assert_eq!(leader.expire(STEP_LIMIT + DRIVER_LIMIT), gone);
    let mut follower = Fixture::new(RAILS_FOLLOWER, 1);
    follower.receive(try_path(1));
    assert_eq!(follower.expire(DRIVER_LIMIT), [end(1), says(1, PathAnswer::Unreached)]);
    assert_eq!(follower.trial_created(1, Ok(record(9))), [end(1)]);
}

#[test]
fn a_number_that_is_in_use_is_not_tried() {
    let mut follower = Fixture::two_rails(RAILS_FOLLOWER);
    let unknown = PathAnswer::Refused(RailRefusal::Unknown);
    assert_eq!(follower.receive(try_path(1)), [says(1, unknown)]);
    let mut leader = Fixture::two_rails(RAILS_LEADER);
    assert_eq!(leader.try_rail(), [refused(RailRefusal::Unknown)], "of other lanes");
    assert_eq!(leader.receive(try_path(1)), []);
    assert_eq!(follower.try_rail(), [refused(RailRefusal::Unknown)], "the leader tries");
}

#[test]
fn a_follower_is_told_that_it_gets_no_rail() {
    let mut leader = Fixture::new(RAILS_LEADER, 1);
    leader.machine.refuse_request(2, 1, RailRefusal::Unusable);
    let frame = ChannelFrame::RequestRefused { own: 2, peer: 1, why: RailRefusal::Unusable };
    assert_eq!(leader.actions(), [Action::Send(frame)]);
    let mut follower = Fixture::new(RAILS_FOLLOWER, 1);
    let told = Action::RequestRefused { own: 1, peer: 2, why: RailRefusal::Unusable };
    assert_eq!(follower.receive(frame), [told]);
    assert_eq!(leader.receive(frame), []);
    follower.machine.refuse_request(2, 1, RailRefusal::Unusable);
    assert_eq!(follower.actions(), []);
}

#[test]
fn frames_of_trials_are_ignored_where_there_are_no_rails() {
    for policy in [LEADER, FOLLOWER] {
        let mut fixture = Fixture::new(policy, 1);
        for frame in [try_path(1), tried(0, PathAnswer::Ended)] {
            assert_eq!(fixture.receive(frame), []);
        }
        assert_eq!(fixture.try_rail(), [refused(RailRefusal::Unknown)]);
    }
}

/// The actions are not taken.
#[test]
fn floods_of_trials_take_a_fixed_amount_of_memory() {
    for policy in [RAILS_LEADER, RAILS_FOLLOWER] {
        let mut fixture = Fixture::new(policy, 1);
        for number in 0..5000_u32 {
            let (small, rail) = (number as u16, number as u8);
            let answer = PathAnswer::Ready(record(number));
            for frame in [
                ChannelFrame::TryPath { rail, number, own: small, peer: small, record: record(number) },
                ChannelFrame::PathTried { rail, number, answer },
                ChannelFrame::RequestRefused { own: small, peer: small, why: RailRefusal::Unknown },
                ChannelFrame::RequestRail { own: small, peer: small },
            ] {
                fixture.machine.frame(frame, fixture.now);
            }
            fixture.machine.refuse_request(small, small, RailRefusal::Unknown);
        }
        assert!(fixture.machine.backlog() <= 8 + 8 + 8 + 8, "{}", fixture.machine.backlog());
    }
}

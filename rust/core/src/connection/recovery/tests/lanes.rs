//! The rules of one lane: its rebuild, step by step, and what ends it.

use super::*;

#[test]
fn a_leader_rebuilds_a_lane_that_is_drained() {
    let mut fixture = Fixture::new(LEADER, 2);
    fixture.machine.lane_broken(0, "retries exceeded", fixture.now);
    assert_eq!(fixture.actions(), [], "not before it is drained");
    assert_eq!(fixture.drain(0), [Action::Create { lane: 0, attempt: 1 }]);
    assert_eq!(fixture.drain(0), [], "once");
    assert_eq!(fixture.create(1), [rebuild(1)]);
    assert_eq!(fixture.receive(rebuilt(1)), [Action::Connect { lane: 0, attempt: 1, peer: record(101) }]);
    let ready = Action::Send(ready(1));
    assert_eq!(fixture.connect(1, Ok(())), [Action::Install { lane: 0, attempt: 1 }, ready]);
    assert_eq!(fixture.machine.deadline(), None);
}

#[test]
fn a_follower_says_that_its_lane_failed_and_waits_to_be_asked() {
    let mut fixture = Fixture::answered();
    assert_eq!(fixture.receive(ready(1)), [Action::Install { lane: 0, attempt: 1 }]);
    assert_eq!(fixture.machine.deadline(), None);
}

#[test]
fn a_follower_that_is_asked_breaks_and_drains_its_lane_first() {
    let mut fixture = Fixture::new(FOLLOWER, 2);
    let reason = "the peer asks for a rebuild";
    assert_eq!(fixture.receive(ask(1)), [Action::Break { lane: 0, reason }]);
    assert_eq!(fixture.drain(0), [create_connected(1)]);
}

#[test]
fn three_unanswered_rebuilds_take_nine_seconds() {
    let mut fixture = Fixture::asked();
    for attempt in 1..MAX_ATTEMPTS {
        let next = Action::Create { lane: 0, attempt: attempt + 1 };
        assert_eq!(fixture.expire(STEP_LIMIT * attempt), [discard(attempt), next]);
        assert_eq!(fixture.create(attempt + 1), [rebuild(attempt + 1)]);
    }
    let end = not_rebuilt(RebuildFailure::Unanswered);
    assert_eq!(fixture.expire(9 * SECOND), [discard(3), end, refused(3)]);
    assert_eq!(fixture.machine.deadline(), None);
}

#[test]
fn queue_pairs_that_do_not_connect_use_the_attempts_up() {
    let mut fixture = Fixture::connecting();
    let failed = || Err("no route".to_owned());
    for attempt in 1..MAX_ATTEMPTS {
        let next = Action::Create { lane: 0, attempt: attempt + 1 };
        assert_eq!(fixture.connect(attempt, failed()), [discard(attempt), next]);
        fixture.create(attempt + 1);
        fixture.receive(rebuilt(attempt + 1));
    }
    let end = not_rebuilt(RebuildFailure::NotConnected("no route".to_owned()));
    assert_eq!(fixture.connect(3, failed()), [discard(3), end, refused(3)]);
}

#[test]
fn a_lane_that_came_back_has_all_its_attempts_again() {
    let mut fixture = Fixture::connecting();
    fixture.connect(1, Err("no route".to_owned()));
    fixture.create(2);
    fixture.receive(rebuilt(2));
    fixture.connect(2, Ok(()));
    assert_eq!(fixture.drain(0), [Action::Create { lane: 0, attempt: 3 }]);
    fixture.create(3);
    for attempt in 3..5 {
        let next = Action::Create { lane: 0, attempt: attempt + 1 };
        assert_eq!(fixture.expire(STEP_LIMIT * (attempt - 2)), [discard(attempt), next]);
        fixture.create(attempt + 1);
    }
    assert_eq!(fixture.expire(9 * SECOND), [discard(5), not_rebuilt(RebuildFailure::Unanswered), refused(5)]);
}

#[test]
fn answers_to_older_attempts_are_ignored() {
    let mut fixture = Fixture::asked();
    fixture.expire(STEP_LIMIT);
    fixture.create(2);
    assert_eq!(fixture.receive(rebuilt(1)), []);
    assert_eq!(fixture.receive(rebuilt(3)), []);
    assert_eq!(fixture.receive(rebuilt(2)), [Action::Connect { lane: 0, attempt: 2, peer: record(102) }]);
    assert_eq!(fixture.receive(rebuilt(2)), []);
    let mut fixture = Fixture::answered();
    assert_eq!(fixture.receive(ask(1)), []);
    assert_eq!(fixture.receive(ready(2)), []);
    assert_eq!(fixture.receive(ready(0)), []);
}

#[test]
fn a_leader_breaks_a_lane_that_its_peer_calls_broken() {
    let mut fixture = Fixture::new(LEADER, 2);
    let reason = "the peer's end of the lane has failed";
    let frame = ChannelFrame::Broken { lane: 0 };
    assert_eq!(fixture.receive(frame), [Action::Break { lane: 0, reason }]);
    assert_eq!(fixture.receive(frame), []);
    let mut fixture = Fixture::asked();
    assert_eq!(fixture.receive(frame), [], "it is being rebuilt");
    let mut fixture = Fixture::connecting();
    let next = Action::Create { lane: 0, attempt: 2 };
    assert_eq!(fixture.receive(frame), [discard(1), next], "the peer has discarded its queue pair");
}

#[test]
fn a_lane_without_a_queue_pair_is_closed_at_both_ends() {
    let error = || "ENOMEM".to_owned();
    let end = || close(LostReason::NoQueuePair { error: error(), cause: cause() });
    let mut fixture = Fixture::new(LEADER, 2);
    fixture.drain(0);
    fixture.machine.created(0, 1, Err(error()), fixture.now);
    assert_eq!(fixture.actions(), [end(), discard(1), refused(1)]);
    let mut fixture = Fixture::new(FOLLOWER, 2);
    fixture.drain(0);
    fixture.receive(ask(1));
    fixture.machine.created(0, 1, Err(error()), fixture.now);
    assert_eq!(fixture.actions(), [end(), discard(1), refused(1)]);
    let mut fixture = Fixture::asked();
    let refusal = ChannelFrame::Refused { lane: 0, attempt: 1 };
    assert_eq!(fixture.receive(refusal), [close(LostReason::Refused), discard(1)]);
    assert_eq!(fixture.receive(refusal), []);
}

#[test]
fn a_driver_that_does_not_answer_is_not_waited_for() {
    let mut fixture = Fixture::new(LEADER, 2);
    fixture.drain(0);
    let [Action::Close { reason: LostReason::NoQueuePair { error, .. }, .. }, ..] =
        &fixture.expire(DRIVER_LIMIT)[..]
    else {
        panic!("it is not closed");
    };
    assert_eq!(error, "it was not created within 4 s");
    assert_eq!(fixture.create(1), [discard(1)], "too late");
    let mut fixture = Fixture::connecting();
    let next = Action::Create { lane: 0, attempt: 2 };
    assert_eq!(fixture.expire(DRIVER_LIMIT), [discard(1), next]);
    assert_eq!(fixture.connect(1, Ok(())), [discard(1)], "too late");
    assert_eq!(fixture.create(1), [discard(1)]);
    assert_eq!(fixture.create(2), [rebuild(2)]);
}

/// Threads that were stopped together with it may not have run yet.
#[test]
fn a_timer_that_comes_late_closes_nothing_at_once() {
    let mut fixture = Fixture::new(LEADER, 2);
    fixture.machine.lane_broken(0, "retries exceeded", fixture.now);
    for late in [4 * SECOND, 60 * SECOND] {
        fixture.now += late;
        fixture.machine.timeout(fixture.now);
        assert_eq!(fixture.actions(), []);
        assert!(fixture.machine.deadline().is_some_and(|at| at > fixture.now));
        fixture.drain(0);
    }
    fixture.now += SECOND;
    fixture.machine.timeout(fixture.now);
    assert_eq!(fixture.actions().len(), 3, "now it is closed");
}

#[test]
fn a_lane_that_is_never_drained_is_closed() {
    for policy in [LEADER, FOLLOWER] {
        let mut fixture = Fixture::new(policy, 2);
        fixture.machine.lane_broken(0, "retries exceeded", fixture.now);
        let end = close(LostReason::NotDrained { cause: cause() });
        assert_eq!(fixture.expire(STEP_LIMIT), [end, refused(0)]);
    }
}

#[test]
fn a_rebuild_of_a_lane_that_is_not_drained_is_refused_after_three_seconds() {
    let mut fixture = Fixture::new(FOLLOWER, 2);
    fixture.machine.lane_broken(0, "retries exceeded", fixture.now);
    fixture.now += SECOND;
    assert_eq!(fixture.receive(ask(7)), []);
    fixture.now += SECOND;
    assert_eq!(fixture.receive(ask(8)), [], "which postpones nothing");
    let end = close(LostReason::NotDrained { cause: cause() });
    assert_eq!(fixture.expire(SECOND + STEP_LIMIT), [end, refused(8)]);
    assert_eq!(fixture.receive(ask(9)), [refused(9)]);
}

#[test]
fn a_destroyed_lane_takes_its_new_queue_pair_with_it() {
    let mut fixture = Fixture::asked();
    fixture.machine.lane_closed(0, fixture.now);
    assert_eq!(fixture.actions(), [discard(1), refused(1)]);
    fixture.machine.lane_closed(0, fixture.now);
    assert_eq!(fixture.actions(), []);
    assert_eq!(fixture.receive(rebuilt(1)), []);
}

#[test]
fn a_follower_without_a_request_closes_the_lane_after_twelve_seconds() {
    let mut fixture = Fixture::new(FOLLOWER, 2);
    assert_eq!(fixture.drain(0), [broken()]);
    let end = close(LostReason::NotAsked { failure: None, cause: cause() });
    assert_eq!(fixture.expire(FOLLOW_LIMIT), [end, refused(0)]);
}

#[test]
fn requests_that_lead_to_nothing_do_not_put_the_end_off() {
    let mut fixture = Fixture::answered();
    for attempt in 2..=4 {
        assert_eq!(fixture.expire(STEP_LIMIT * (attempt - 1)), [discard(attempt - 1), broken()]);
        assert_eq!(fixture.receive(ask(attempt)), [create_connected(attempt)]);
        assert_eq!(fixture.create(attempt), [Action::Send(rebuilt(attempt))]);
    }
    let end = close(LostReason::NotAsked { failure: None, cause: cause() });
    assert_eq!(fixture.expire(FOLLOW_LIMIT), [discard(4), end, refused(4)]);
}

#[test]
fn a_leader_that_is_ready_too_late_gets_broken() {
    let mut fixture = Fixture::answered();
    assert_eq!(fixture.expire(STEP_LIMIT), [discard(1), broken()]);
    assert_eq!(fixture.receive(ready(1)), [broken()]);
    assert_eq!(fixture.receive(ready(1)), [], "once");
    assert_eq!(fixture.receive(ask(2)), [create_connected(2)]);
}

#[test]
fn one_half_is_made_at_a_time() {
    let mut fixture = Fixture::new(FOLLOWER, 2);
    fixture.drain(0);
    assert_eq!(fixture.receive(ask(1)), [create_connected(1)]);
    for attempt in 2..1000 {
        assert_eq!(fixture.receive(ask(attempt)), []);
    }
    assert_eq!(fixture.create(1), [discard(1), create_connected(999)]);
    assert_eq!(fixture.create(999), [Action::Send(rebuilt(999))]);
    // Requested again after its answer: the leader has abandoned the earlier attempt.
    assert_eq!(fixture.receive(ask(1000)), [discard(999), create_connected(1000)]);
}

/// The leader may have abandoned that attempt.
#[test]
fn a_half_that_does_not_connect_is_not_the_end() {
    let mut fixture = Fixture::new(FOLLOWER, 2);
    fixture.drain(0);
    fixture.receive(ask(1));
    assert_eq!(fixture.connect(1, Err("it is gone".to_owned())), [discard(1)]);
    assert_eq!(fixture.receive(ask(2)), [create_connected(2)]);
    assert_eq!(fixture.receive(ask(3)), []);
    assert_eq!(fixture.connect(2, Err("it is gone".to_owned())), [discard(2), create_connected(3)]);
    fixture.connect(3, Err("no route".to_owned()));
    let failure = Some(RebuildFailure::NotConnected("no route".to_owned()));
    let end = close(LostReason::NotAsked { failure, cause: cause() });
    assert_eq!(fixture.expire(FOLLOW_LIMIT), [end, refused(3)]);
}

#[test]
fn attempts_may_be_numbered_over_the_end() {
    let mut fixture = Fixture::new(FOLLOWER, 1);
    fixture.drain(0);
    for (attempt, is_new) in [(u32::MAX / 2, true), (u32::MAX - 1, true), (3, true), (u32::MAX, false)] {
        let peer = record(1);
        let last = fixture.receive(ChannelFrame::Rebuild { lane: 0, attempt, record: peer }).pop();
        assert_eq!(last, is_new.then_some(Action::CreateConnected { lane: 0, attempt, peer }));
        fixture.machine.created(0, attempt, Ok(record(2)), fixture.now);
        fixture.actions();
    }
}

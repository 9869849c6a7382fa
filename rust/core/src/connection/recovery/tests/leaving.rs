//! Lanes of a rail that is left, while another one works.

use super::rails::{FIRST, RAILS_FOLLOWER, RAILS_LEADER};
use super::*;

const RAIL: u32 = FIRST as u32;

fn quiesce(number: u32) -> ChannelFrame {
    ChannelFrame::Quiesce { lane: RAIL, number }
}

fn quiesced(number: u32) -> ChannelFrame {
    ChannelFrame::Quiesced { lane: RAIL, number }
}

fn moved(both_ends: bool) -> Action {
    Action::MoveParts { lane: FIRST, both_ends }
}

fn create(attempt: u32) -> Action {
    Action::Create { lane: FIRST, attempt }
}

fn broken() -> Action {
    Action::Send(ChannelFrame::Broken { lane: RAIL })
}

fn request(attempt: u32) -> ChannelFrame {
    ChannelFrame::Rebuild { lane: RAIL, attempt, record: record(7) }
}

fn answer(attempt: u32) -> Action {
    Action::Send(ChannelFrame::Rebuilt { lane: RAIL, attempt, record: record(9) })
}

impl Fixture {
    fn leave(&mut self, rail: usize) -> Vec<Action> {
        self.machine.leave_rail(rail, "it is silent", self.now);
        self.actions()
    }

    fn resume(&mut self, rail: usize) -> Vec<Action> {
        self.machine.resume_rail(rail, self.now);
        self.actions()
    }

    /// Time passes.
    pub(super) fn pass(&mut self, time: Duration) -> Vec<Action> {
        self.now += time;
        self.machine.timeout(self.now);
        self.actions()
    }

    /// The queue pair of a follower's answer is connected.
    fn answers(&mut self, attempt: u32) -> Vec<Action> {
        self.machine.created(FIRST, attempt, Ok(record(9)), self.now);
        self.actions()
    }
}

#[test]
fn reads_move_after_the_drain_here_and_writes_after_that_of_the_peer() {
    let mut fixture = Fixture::two_rails(RAILS_LEADER);
    fixture.machine.lane_broken(FIRST, "retries exceeded", fixture.now);
    assert_eq!(fixture.actions(), [Action::Send(quiesce(1))]);
    assert_eq!(fixture.receive(quiesced(0)), [], "another question");
    assert_eq!(fixture.drain(FIRST), [moved(false), create(2)]);
    assert_eq!(fixture.receive(quiesced(1)), [moved(true)]);
    assert_eq!(fixture.receive(quiesced(1)), [], "once");
    fixture.build(FIRST, 2);
    assert_eq!(fixture.receive(quiesced(1)), [], "it is rebuilt");
    // The next failure has another number.
    assert_eq!(fixture.drain(FIRST), [moved(false), create(3), Action::Send(quiesce(2))]);
    assert_eq!(fixture.receive(quiesced(1)), [], "of the failure before");
    assert_eq!(fixture.receive(quiesced(2)), [moved(true)]);
}

#[test]
fn an_answer_before_the_drain_moves_both_with_it() {
    let mut fixture = Fixture::two_rails(RAILS_FOLLOWER);
    fixture.machine.lane_broken(FIRST, "retries exceeded", fixture.now);
    assert_eq!(fixture.actions(), [Action::Send(quiesce(1))]);
    assert_eq!(fixture.receive(quiesced(1)), [], "this end may still read the memory");
    assert_eq!(fixture.drain(FIRST), [moved(true), broken()]);
}

#[test]
fn nothing_moves_without_another_rail_that_works() {
    let mut fixture = Fixture::new(RAILS_LEADER, 2);
    assert_eq!(
        fixture.drain(0),
        [Action::Create { lane: 0, attempt: 1 }],
        "another lane is not another rail"
    );
    let mut fixture = Fixture::two_rails(RAILS_LEADER);
    fixture.drain(0);
    assert_eq!(fixture.drain(FIRST), [create(2)]);
    // Rail 0 is back: now they can.
    fixture.build_quietly(0, 1);
    let actions = fixture.actions();
    assert!(actions.contains(&moved(false)) && actions.contains(&Action::Send(quiesce(1))), "{actions:?}");
    assert_eq!(fixture.receive(quiesced(1)), [moved(true)]);
}

#[test]
fn a_question_is_not_sent_between_a_request_and_its_end() {
    let mut fixture = Fixture::two_rails(RAILS_LEADER);
    fixture.drain(0);
    fixture.drain(FIRST);
    fixture.machine.created(FIRST, 2, Ok(record(7)), fixture.now);
    assert_eq!(fixture.actions(), [Action::Send(request(2))]);
    fixture.build_quietly(0, 1);
    let asked = Action::Send(quiesce(1));
    let actions = fixture.actions();
    assert!(actions.contains(&moved(false)) && !actions.contains(&asked), "{actions:?}");
    // The request is not answered: the question comes before the next one.
    let actions = fixture.expire(ALONE_LIMIT);
    assert!(actions.contains(&create(3)) && actions.contains(&asked), "{actions:?}");
}

/// The peer's port is down, say. The lanes of another rail, which work by now, have room for the parts.
#[test]
fn a_request_from_before_another_rail_worked_is_not_waited_for_as_long() {
    let asked = Action::Send(quiesce(1));
    let mut fixture = Fixture::two_rails(RAILS_LEADER);
    fixture.drain(0);
    fixture.drain(FIRST);
    fixture.machine.created(FIRST, 2, Ok(record(7)), fixture.now);
    fixture.build_quietly(0, 1);
    fixture.actions();
    let actions = fixture.pass(ALONE_LIMIT);
    assert!(actions.contains(&create(3)) && actions.contains(&asked), "{actions:?}");
    assert_eq!(fixture.receive(quiesced(1)), [moved(true)]);
    // The question has been sent: now the peer has its time again, also if the other rail fails and comes back.
    fixture.machine.created(FIRST, 3, Ok(record(7)), fixture.now);
    fixture.actions();
    assert_eq!(fixture.pass(ALONE_LIMIT), []);
    fixture.drain(0);
    fixture.build_quietly(0, 2);
    fixture.actions();
    assert_eq!(fixture.pass(ALONE_LIMIT), []);
}

#[test]
fn once_no_other_rail_works_any_more_a_request_has_its_whole_time() {
    let mut fixture = Fixture::two_rails(RAILS_LEADER);
    fixture.drain(0);
    fixture.drain(FIRST);
    fixture.machine.created(FIRST, 2, Ok(record(7)), fixture.now);
    fixture.build_quietly(0, 1);
    fixture.drain(0);
    assert_eq!(fixture.pass(ALONE_LIMIT), []);
    assert!(fixture.pass(STEP_LIMIT).contains(&create(3)));
}

#[test]
fn the_other_end_breaks_and_drains_its_lane_before_it_answers() {
    let mut fixture = Fixture::two_rails(RAILS_FOLLOWER);
    let reason = "the peer has left the lane";
    let actions = [Action::Break { lane: FIRST, reason }, Action::Send(quiesce(1))];
    assert_eq!(fixture.receive(quiesce(5)), actions);
    assert_eq!(fixture.receive(quiesce(5)), [], "on its way");
    let answer = Action::Send(quiesced(5));
    // Before a frame of the rebuild.
    assert_eq!(fixture.drain(FIRST), [moved(false), answer.clone(), broken()]);
    assert_eq!(fixture.receive(quiesce(5)), std::slice::from_ref(&answer), "again");
    fixture.receive(request(2));
    assert_eq!(fixture.receive(quiesce(5)), [answer], "being rebuilt");
}

#[test]
fn lanes_that_are_gone_are_quiet() {
    let mut fixture = Fixture::two_rails(RAILS_LEADER);
    fixture.machine.lane_closed(FIRST, fixture.now);
    fixture.actions();
    assert_eq!(fixture.receive(quiesce(3)), [Action::Send(quiesced(3))]);
    let unknown = |lane| ChannelFrame::Quiesce { lane, number: 3 };
    let answer = Action::Send(ChannelFrame::Quiesced { lane: 63, number: 3 });
    assert_eq!(fixture.receive(unknown(63)), [answer]);
    for lane in [64, u32::MAX] {
        assert_eq!(fixture.receive(unknown(lane)), [], "there is no such place");
    }
    assert_eq!(fixture.receive(ChannelFrame::Quiesced { lane: 40, number: 1 }), []);
}

#[test]
fn a_lane_that_is_closed_before_it_is_drained_answers_too() {
    let mut fixture = Fixture::two_rails(RAILS_LEADER);
    fixture.receive(quiesce(3));
    assert_eq!(fixture.expire(DRAIN_LIMIT), [Action::Destroy { lane: FIRST }], "which takes too long");
    let actions = fixture.pass_slowly(DESTROY_LIMIT + STEP_LIMIT);
    assert!(matches!(actions[0], Action::Close { lane: FIRST, reason: LostReason::NotDrained { .. } }));
    assert!(actions.contains(&Action::Send(quiesced(3))), "{actions:?}");
}

/// The leader may have posted requests to it: its Ready was overtaken, or never sent.
#[test]
fn a_new_queue_pair_that_may_be_in_use_is_destroyed_before_the_answer() {
    let mut fixture = Fixture::two_rails(RAILS_FOLLOWER);
    fixture.drain(FIRST);
    fixture.receive(request(2));
    assert_eq!(fixture.answers(2), [answer(2)]);
    let discard = Action::DiscardNow { lane: FIRST, attempt: 2 };
    assert_eq!(fixture.receive(quiesce(5)), [discard, Action::Send(quiesced(5))]);
    assert_eq!(fixture.receive(ChannelFrame::Ready { lane: RAIL, attempt: 2 }), [broken()]);
}

/// The question was put off for the answer, which led to nothing.
#[test]
fn a_follower_asks_once_its_answer_is_given_up() {
    let mut fixture = Fixture::two_rails(RAILS_FOLLOWER);
    fixture.drain(0);
    fixture.drain(FIRST);
    fixture.receive(request(2));
    fixture.answers(2);
    let (lane, attempt) = (0, 1);
    fixture.receive(ask(attempt));
    fixture.machine.created(0, attempt, Ok(record(9)), fixture.now);
    fixture.actions();
    // Rail 0 is back.
    let actions = [Action::Install { lane: 0, attempt }, moved(false)];
    assert_eq!(fixture.receive(ChannelFrame::Ready { lane, attempt }), actions);
    let actions = fixture.expire(ALONE_LIMIT);
    assert!(actions.contains(&Action::Send(quiesce(1))) && actions.contains(&broken()), "{actions:?}");
    assert_eq!(fixture.receive(quiesced(1)), [moved(true)]);
}

/// Whatever ends an answer: the leader may ask right behind it.
#[test]
fn an_answer_that_is_given_up_is_destroyed_at_once() {
    let answered = || {
        let mut fixture = Fixture::two_rails(RAILS_FOLLOWER);
        fixture.drain(FIRST);
        fixture.receive(request(2));
        fixture.answers(2);
        fixture
    };
    let discard = Action::DiscardNow { lane: FIRST, attempt: 2 };
    assert_eq!(answered().expire(STEP_LIMIT)[0], discard);
    assert_eq!(answered().receive(request(3))[0], discard);
    let mut fixture = answered();
    fixture.machine.device(1, DeviceHealth::PortDown(fixture.now), fixture.now);
    assert_eq!(fixture.actions(), [discard]);
}

#[test]
fn frames_of_a_rebuild_come_behind_the_questions_that_wait() {
    let mut fixture = Fixture::two_rails(RAILS_FOLLOWER);
    // The socket takes nothing: all frames wait.
    fixture.machine.lane_drained(FIRST, "retries exceeded", fixture.now);
    fixture.machine.frame(quiesce(5), fixture.now);
    fixture.machine.frame(request(2), fixture.now);
    fixture.machine.created(FIRST, 2, Ok(record(9)), fixture.now);
    let frames: Vec<_> =
        fixture.actions().into_iter().filter(|action| matches!(action, Action::Send(_))).collect();
    assert_eq!(frames, [Action::Send(quiesce(1)), Action::Send(quiesced(5)), answer(2)]);
}

#[test]
fn a_peer_that_has_closed_its_end_is_quiet() {
    let refused = ChannelFrame::Refused { lane: RAIL, attempt: 0 };
    let end = Action::Close { lane: FIRST, reason: LostReason::Refused };
    let mut fixture = Fixture::two_rails(RAILS_FOLLOWER);
    fixture.drain(FIRST);
    assert_eq!(fixture.receive(refused), [moved(true)]);
    fixture.machine.lane_empty(FIRST, fixture.now);
    assert_eq!(fixture.actions(), std::slice::from_ref(&end));
    let mut fixture = Fixture::two_rails(RAILS_FOLLOWER);
    let reason = "the peer has closed its end of the lane";
    assert_eq!(fixture.receive(refused)[0], Action::Break { lane: FIRST, reason });
    assert_eq!(fixture.drain(FIRST), [moved(true)]);
    assert_eq!(fixture.expire(STEP_LIMIT), [end], "what fits nowhere else is not kept for ever");
}

#[test]
fn a_leader_that_leaves_a_rail_creates_nothing_until_it_is_used_again() {
    let mut fixture = Fixture::two_rails(RAILS_LEADER);
    let actions = [Action::Break { lane: FIRST, reason: "it is silent" }, Action::Send(quiesce(1))];
    assert_eq!(fixture.leave(1), actions);
    assert_eq!(fixture.drain(FIRST), [moved(false)]);
    assert_eq!(fixture.receive(ChannelFrame::Broken { lane: RAIL }), []);
    fixture.machine.device(1, DeviceHealth::Up, fixture.now + 60 * SECOND);
    assert_eq!((fixture.actions(), fixture.machine.deadline()), (vec![], None));
    assert_eq!(fixture.resume(1), [create(2)]);
    fixture.build(FIRST, 2);
    assert_eq!(fixture.resume(1), []);
}

#[test]
fn a_rebuild_that_is_under_way_is_given_up_when_the_rail_is_left() {
    let mut fixture = Fixture::two_rails(RAILS_LEADER);
    fixture.drain(FIRST);
    assert_eq!(fixture.leave(1), [Action::Discard { lane: FIRST, attempt: 2 }]);
    assert_eq!(fixture.resume(1), [create(3)]);
}

#[test]
fn a_follower_that_leaves_a_rail_answers_and_does_not_ask() {
    let mut fixture = Fixture::two_rails(RAILS_FOLLOWER);
    fixture.leave(1);
    assert_eq!(fixture.drain(FIRST), [moved(false)], "no Broken");
    fixture.expire(FOLLOW_LIMIT);
    assert_eq!(fixture.resume(1), [broken()]);
    assert_eq!(fixture.resume(1), [], "once");
    let mut fixture = Fixture::two_rails(RAILS_FOLLOWER);
    fixture.leave(1);
    fixture.drain(FIRST);
    fixture.build(FIRST, 2);
    assert_eq!(fixture.resume(1), []);
}

#[test]
fn a_rail_that_was_left_is_rebuilt_when_no_other_one_works() {
    let mut fixture = Fixture::two_rails(RAILS_LEADER);
    fixture.leave(1);
    fixture.drain(FIRST);
    let actions = fixture.drain(0);
    assert!(actions.contains(&create(2)), "{actions:?}");
    let mut fixture = Fixture::two_rails(RAILS_FOLLOWER);
    fixture.leave(1);
    fixture.drain(FIRST);
    let actions = fixture.drain(0);
    assert!(actions.contains(&broken()), "{actions:?}");
}

#[test]
fn attempts_that_fail_are_followed_by_rests() {
    let mut fixture = Fixture::two_rails(RAILS_LEADER);
    fixture.drain(FIRST);
    let error = || Err("ENOMEM".to_owned());
    let mut at = Duration::ZERO;
    for (attempt, pause) in (2..).zip([100, 200, 400, 800, 1600, 2000, 2000, 2000]) {
        fixture.machine.created(FIRST, attempt, error(), fixture.now);
        assert_eq!(fixture.actions(), [Action::Discard { lane: FIRST, attempt }]);
        at += Duration::from_millis(pause);
        assert_eq!(fixture.expire(at), [create(attempt + 1)]);
    }
    fixture.build(FIRST, 10);
    // From the beginning: three attempts in a row, then the first rest.
    fixture.drain(FIRST);
    for attempt in 11..11 + MAX_ATTEMPTS {
        fixture.machine.created(FIRST, attempt, Ok(record(7)), fixture.now);
        fixture.actions();
        at += STEP_LIMIT;
        fixture.expire(at);
    }
    assert_eq!(fixture.expire(at + FIRST_PAUSE), [create(14)]);
}

#[test]
fn a_lane_that_rests_is_closed_in_time_when_no_other_rail_works() {
    let mut fixture = Fixture::two_rails(RAILS_LEADER);
    fixture.drain(FIRST);
    fixture.machine.created(FIRST, 2, Err("ENOMEM".to_owned()), fixture.now);
    fixture.actions();
    fixture.machine.lane_closed(0, fixture.now);
    fixture.actions();
    assert_eq!(fixture.expire(FIRST_PAUSE), [create(3)]);
    fixture.machine.created(FIRST, 3, Err("ENOMEM".to_owned()), fixture.now);
    let last = fixture.actions().pop();
    assert!(matches!(last, Some(Action::Lose(LostReason::NoLane(_)))), "{last:?}");
}

#[test]
fn a_port_that_is_down_closes_nothing_while_another_rail_works() {
    let mut fixture = Fixture::two_rails(RAILS_LEADER);
    let down = DeviceHealth::PortDown(fixture.now);
    fixture.machine.device(1, down, fixture.now);
    fixture.actions();
    fixture.drain(FIRST);
    fixture.now += 60 * SECOND;
    fixture.machine.timeout(fixture.now);
    assert_eq!((fixture.actions(), fixture.machine.deadline()), (vec![], None));
    // The other one fails: it is not closed for the hour before, but for the time from now on.
    fixture.drain(0);
    let deadline = fixture.now + PORT_LIMIT;
    fixture.build_quietly(0, 1);
    fixture.actions();
    fixture.machine.lane_closed(0, fixture.now);
    fixture.actions();
    assert_eq!(fixture.machine.deadline(), Some(deadline));
    fixture.machine.device(1, DeviceHealth::Up, fixture.now);
    assert_eq!(fixture.actions(), [create(2)]);
}

#[test]
fn a_follower_waits_on_for_a_rail_while_another_one_works() {
    let mut fixture = Fixture::two_rails(RAILS_FOLLOWER);
    fixture.drain(FIRST);
    for round in 1..4 {
        assert_eq!(fixture.expire(FOLLOW_LIMIT * round), []);
    }
    // A late request is answered.
    fixture.build(FIRST, 2);
    fixture.drain(FIRST);
    // No other rail works any more: from now on it has as long as any.
    fixture.now += SECOND;
    fixture.machine.lane_closed(0, fixture.now);
    fixture.actions();
    let end = fixture.expire(FOLLOW_LIMIT * 4 + SECOND);
    assert!(matches!(end[0], Action::Close { lane: FIRST, reason: LostReason::NotAsked { .. } }), "{end:?}");
}

/// Also if it goes down while the queue pair is made. The leader discards its own and rests, so it requests again.
#[test]
fn a_follower_says_at_once_that_its_port_is_down_and_when_it_is_up() {
    let mut fixture = Fixture::two_rails(RAILS_FOLLOWER);
    let made = |attempt| Action::CreateConnected { lane: FIRST, attempt, peer: record(7) };
    let not_now = |attempt| Action::Send(ChannelFrame::NotNow { lane: RAIL, attempt });
    let set_port = |fixture: &mut Fixture, up: bool| {
        let health = if up { DeviceHealth::Up } else { DeviceHealth::PortDown(fixture.now) };
        fixture.machine.device(1, health, fixture.now);
        fixture.actions()
    };
    set_port(&mut fixture, false);
    fixture.drain(FIRST);
    assert_eq!(fixture.receive(request(2)), [not_now(2)]);
    fixture.now += STEP_LIMIT / 2;
    assert_eq!(set_port(&mut fixture, true), [broken()]);
    assert_eq!(set_port(&mut fixture, true), [], "once");
    assert_eq!(fixture.receive(request(3)), [made(3)]);
    let discarded = Action::Discard { lane: FIRST, attempt: 3 };
    assert_eq!(set_port(&mut fixture, false), [discarded, not_now(3)]);
    assert_eq!(set_port(&mut fixture, true), [broken()]);
    assert_eq!(fixture.receive(request(4)), [made(4)]);
    fixture.answers(4);
    fixture.receive(ChannelFrame::Ready { lane: RAIL, attempt: 4 });
    set_port(&mut fixture, false);
    fixture.drain(FIRST);
    assert_eq!(set_port(&mut fixture, true), [], "nothing was put off");
}

#[test]
fn a_leader_leaves_a_lane_at_once_if_the_port_of_the_peer_is_down() {
    let mut fixture = Fixture::two_rails(RAILS_LEADER);
    fixture.drain(FIRST);
    fixture.machine.created(FIRST, 2, Ok(record(7)), fixture.now);
    let asked = fixture.actions();
    assert!(matches!(asked[..], [Action::Send(ChannelFrame::Rebuild { attempt: 2, .. })]), "{asked:?}");
    let not_now = |attempt| ChannelFrame::NotNow { lane: RAIL, attempt };
    assert_eq!(fixture.receive(not_now(1)), [], "it was not asked that");
    // Its parts may leave: the question is not sent while the answer is waited for.
    let discarded = Action::Discard { lane: FIRST, attempt: 2 };
    assert_eq!(fixture.receive(not_now(2))[..1], [discarded]);
    assert_eq!(fixture.receive(not_now(2)), [], "once");
    assert_eq!(fixture.receive(ChannelFrame::Broken { lane: RAIL }), [create(3)]);
}

/// Without another rail, too. It is not waited for without end.
#[test]
fn a_peer_that_puts_off_each_attempt_has_as_long_as_a_follower_waits() {
    let mut fixture = Fixture::new(RAILS_LEADER, 1);
    fixture.drain(0);
    let begin = fixture.now;
    for attempt in 1.. {
        assert!(attempt < 20, "it never ends");
        fixture.create(attempt);
        let end = fixture.receive(ChannelFrame::NotNow { lane: 0, attempt });
        if fixture.machine.is_over() {
            assert!(fixture.now - begin >= FOLLOW_LIMIT && fixture.now - begin <= FOLLOW_LIMIT + STEP_LIMIT);
            assert!(matches!(end.last(), Some(Action::Lose(LostReason::NoLane(_)))), "{end:?}");
            return;
        }
        assert_eq!(end, [discard(attempt)]);
        // Told each second time that the port is up.
        let next = match attempt % 2 {
            0 => fixture.receive(ChannelFrame::Broken { lane: 0 }),
            _ => fixture.expire(fixture.now - fixture.start + STEP_LIMIT),
        };
        assert_eq!(next, [Action::Create { lane: 0, attempt: attempt + 1 }]);
    }
}

#[test]
fn a_leader_that_rests_goes_on_when_the_peer_says_so() {
    let mut fixture = Fixture::two_rails(RAILS_LEADER);
    fixture.drain(FIRST);
    fixture.machine.created(FIRST, 2, Err("ENOMEM".to_owned()), fixture.now);
    fixture.actions();
    assert_eq!(fixture.receive(ChannelFrame::Broken { lane: RAIL }), [create(3)]);
}

use proptest::prelude::*;

use super::*;

const LIMIT: u64 = 3_000_000_000;

fn number(actions: [Option<QuiesceAction>; 2]) -> u32 {
    let [Some(QuiesceAction::SetError), Some(QuiesceAction::Send(number))] = actions else {
        panic!("{actions:?}")
    };
    number
}

#[test]
fn a_read_moves_after_the_drain_here_and_a_write_after_that_of_the_peer() {
    let mut lane = Quiesce::default();
    assert!(!lane.may_move(Opcode::Read) && lane.state() == QuiesceState::InUse);
    let number = number(lane.begin(0, LIMIT));
    assert!(!lane.may_move(Opcode::Read) && !lane.may_move(Opcode::Write));
    lane.drained();
    assert!(lane.may_move(Opcode::Read) && !lane.may_move(Opcode::Write));
    lane.quiesced(number);
    assert!(lane.may_move(Opcode::Write) && lane.state() == QuiesceState::Quiet);
}

#[test]
fn the_peers_answer_is_not_enough() {
    let mut lane = Quiesce::default();
    let number = number(lane.begin(0, LIMIT));
    lane.quiesced(number);
    assert!(
        !lane.may_move(Opcode::Write) && !lane.may_move(Opcode::Read),
        "the NIC here may still read the memory"
    );
    lane.drained();
    assert!(lane.may_move(Opcode::Write));
}

#[test]
fn an_answer_of_the_lane_before_counts_for_nothing() {
    let mut lane = Quiesce::default();
    let first = number(lane.begin(0, LIMIT));
    assert_eq!(lane.begin(1, LIMIT), [None; 2], "once is enough");
    lane.drained();
    lane.quiesced(first);
    lane.rebuilt();
    lane.quiesced(first);
    assert_eq!(lane.state(), QuiesceState::InUse);
    let second = number(lane.begin(2, LIMIT));
    lane.drained();
    lane.quiesced(first);
    assert!(!lane.may_move(Opcode::Write));
    lane.quiesced(second);
    assert!(lane.may_move(Opcode::Write));
}

#[test]
fn a_peer_that_does_not_answer_keeps_writes_where_they_are() {
    let mut lane = Quiesce::default();
    let number = number(lane.begin(0, LIMIT));
    lane.drained();
    lane.timeout(LIMIT - 1);
    assert_eq!((lane.state(), lane.deadline()), (QuiesceState::Leaving, Some(LIMIT)));
    lane.timeout(LIMIT);
    assert_eq!((lane.state(), lane.deadline()), (QuiesceState::Unanswered, None));
    assert!(lane.may_move(Opcode::Read) && !lane.may_move(Opcode::Write));
    lane.rebuilt();
    assert_eq!(lane.state(), QuiesceState::Unanswered, "an old queue pair may still be open at the peer");
    lane.quiesced(number);
    assert!(lane.may_move(Opcode::Write), "late, and true");
}

#[test]
fn a_rebuild_that_waits_for_both_ends_needs_no_answer() {
    let mut lane = Quiesce::default();
    let first = number(lane.begin(0, LIMIT));
    lane.drained();
    lane.replaced();
    assert!(!lane.may_move(Opcode::Read) && lane.state() == QuiesceState::InUse);
    lane.quiesced(first);
    assert_eq!(lane.state(), QuiesceState::InUse, "late");
    assert_ne!(number(lane.begin(1, LIMIT)), first);
    lane.drained();
    lane.quiesced(first);
    assert!(!lane.may_move(Opcode::Write), "of the failure before");
}

#[test]
fn the_peer_answers_after_its_drain_and_for_lanes_that_are_gone_at_once() {
    let mut peer = QuiesceAnswer::default();
    assert_eq!(peer.asked(1), Some(AnswerAction::SetError));
    assert_eq!(peer.asked(1), None, "on its way");
    assert_eq!(peer.drained(), Some(AnswerAction::Send(1)));
    assert_eq!(peer.drained(), None);
    assert_eq!(peer.asked(1), Some(AnswerAction::Send(1)), "the answer may be repeated");
    assert_eq!(QuiesceAnswer::gone().asked(7), Some(AnswerAction::Send(7)));
    let mut broken = QuiesceAnswer::default();
    assert_eq!(broken.drained(), None, "for a reason of its own");
    assert_eq!(broken.asked(3), Some(AnswerAction::Send(3)));
}

/// What happens to a lane, in an order that is drawn.
#[derive(Clone, Copy, Debug)]
enum Event {
    Begin,
    DrainedHere,
    DrainedThere,
    /// The oldest frame to the peer arrives, or the newest again.
    ToPeer(bool),
    /// The same of the frames back.
    Back(bool),
    Timeout,
    Rebuilt,
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Begin),
        Just(Event::DrainedHere),
        Just(Event::DrainedThere),
        any::<bool>().prop_map(Event::ToPeer),
        any::<bool>().prop_map(Event::Back),
        Just(Event::Timeout),
        Just(Event::Rebuilt),
    ]
}

proptest! {
    /// Both machines and a channel between them, with frames that come twice: no WRITE may ever move while a queue pair of
    /// either end is not in ERROR and drained, no READ while that of this end is not.
    #[test]
    fn nothing_moves_too_early(events in prop::collection::vec(any_event(), 1..60)) {
        let (mut here, mut there) = (Quiesce::default(), QuiesceAnswer::default());
        // Whether the queue pairs are in ERROR, and drained.
        let (mut error, mut quiet) = ((false, false), (false, false));
        let (mut to_peer, mut back, mut sent, mut answered) = (Vec::new(), Vec::new(), None, None);
        let mut now = 0;
        for event in events {
            now += 1_000_000_000;
            let mut answer = |action: Option<AnswerAction>, error: &mut (bool, bool), back: &mut Vec<u32>| match action {
                Some(AnswerAction::SetError) => error.1 = true,
                Some(AnswerAction::Send(number)) => {
                    back.push(number);
                    answered = Some(number);
                }
                None => {}
            };
            match event {
                Event::Begin => for action in here.begin(now, LIMIT).into_iter().flatten() {
                    match action {
                        QuiesceAction::SetError => error.0 = true,
                        QuiesceAction::Send(number) => { to_peer.push(number); sent = Some(number); }
                    }
                },
                Event::DrainedHere if error.0 => { quiet.0 = true; here.drained(); }
                Event::DrainedThere if error.1 => {
                    quiet.1 = true;
                    let action = there.drained();
                    answer(action, &mut error, &mut back);
                }
                Event::ToPeer(again) => {
                    let number = if again { sent } else if to_peer.is_empty() { None } else { Some(to_peer.remove(0)) };
                    // A repeated question is never one about the lane before: the channel keeps the order.
                    if let Some(number) = number.filter(|number| !again || to_peer.is_empty() && Some(*number) == sent && error.0) {
                        let action = there.asked(number);
                        answer(action, &mut error, &mut back);
                    }
                }
                Event::Back(again) => {
                    let number = if again { answered } else if back.is_empty() { None } else { Some(back.remove(0)) };
                    number.into_iter().for_each(|number| here.quiesced(number));
                }
                Event::Timeout => here.timeout(now),
                Event::Rebuilt if here.state() == QuiesceState::Quiet && to_peer.is_empty() => {
                    here.rebuilt();
                    there.rebuilt();
                    (error, quiet) = ((false, false), (false, false));
                }
                _ => {}
            }
            prop_assert!(!here.may_move(Opcode::Read) || quiet.0);
            prop_assert!(!here.may_move(Opcode::Write) || quiet.0 && quiet.1);
        }
    }
}

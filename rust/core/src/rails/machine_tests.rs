use proptest::prelude::*;

use super::super::MILLISECOND;
use super::*;

const LIMITS: RailLimits = RailLimits {
    silence: 2 * MILLISECOND,
    gaps: 8,
    answer: 3 * MILLISECOND,
    errors: 2,
    window: 100 * MILLISECOND,
    first_pause: 4 * MILLISECOND,
    longest_silent_pause: 8 * MILLISECOND,
    longest_pause: 64 * MILLISECOND,
};

fn up() -> RailMachine {
    RailMachine::new(LIMITS, 0)
}

fn counts(completions: u64, in_flight: u64) -> RailCounts {
    RailCounts { completions, in_flight, ..RailCounts::default() }
}

fn actions(machine: &mut RailMachine) -> Vec<RailAction> {
    std::iter::from_fn(|| machine.next_action()).collect()
}

/// Looks every half millisecond at a rail that ends nothing while others do, until it does something.
fn stay_silent(machine: &mut RailMachine, from: u64, until: u64) -> (u64, Vec<RailAction>) {
    let mut now = from;
    while now < until {
        machine.look(now, counts(1, 5), now);
        let actions = actions(machine);
        if !actions.is_empty() {
            return (now, actions);
        }
        now += MILLISECOND / 2;
    }
    (now, Vec::new())
}

#[test]
fn a_silent_rail_is_asked_and_then_paused() {
    let mut machine = up();
    machine.look(0, counts(1, 5), 0);
    let (asked, done) = stay_silent(&mut machine, MILLISECOND / 2, 100 * MILLISECOND);
    assert_eq!((asked, done), (2 * MILLISECOND, vec![RailAction::Probe(1)]));
    assert!(machine.is_up(), "it may have a reason");
    let (paused, done) = stay_silent(&mut machine, asked, 100 * MILLISECOND);
    assert_eq!((paused, done), (5 * MILLISECOND, vec![RailAction::Move(PauseReason::Silent)]));
    assert_eq!(machine.state(), RailState::Paused(9 * MILLISECOND));
}

#[test]
fn a_rail_that_answers_is_not_paused_and_asked_ever_more_rarely() {
    let mut machine = up();
    machine.look(0, counts(1, 5), 0);
    let (mut now, mut asked) = (0, Vec::new());
    while now < 380 * MILLISECOND {
        let (at, done) = stay_silent(&mut machine, now, 380 * MILLISECOND);
        if let [RailAction::Probe(number)] = done[..] {
            machine.answered(number, at);
            asked.push(at / MILLISECOND);
        }
        now = at + MILLISECOND / 2;
    }
    assert_eq!(asked, [2, 6, 14, 30, 62, 126, 254]);
    assert!(machine.is_up());
}

#[test]
fn a_peer_that_is_silent_pauses_no_rail() {
    let mut machine = up();
    (0..1_000).for_each(|look| machine.look(look * MILLISECOND, counts(0, 5), 0));
    assert_eq!((machine.is_up(), actions(&mut machine)), (true, vec![]));
}

#[test]
fn a_rail_with_long_gaps_is_silent_later() {
    let mut machine = up();
    for number in 1..50 {
        machine.look(number * 5 * MILLISECOND, counts(number, 5), number * 5 * MILLISECOND);
    }
    let (asked, done) = stay_silent_at(&mut machine, 245 * MILLISECOND, 49);
    assert_eq!((asked, done), (285 * MILLISECOND, vec![RailAction::Probe(1)]), "8 gaps of 5 ms");
}

fn stay_silent_at(machine: &mut RailMachine, from: u64, completions: u64) -> (u64, Vec<RailAction>) {
    let mut now = from;
    loop {
        now += MILLISECOND / 2;
        machine.look(now, counts(completions, 5), now);
        let actions = actions(machine);
        if !actions.is_empty() {
            return (now, actions);
        }
    }
}

#[test]
fn an_idle_rail_is_never_silent() {
    let mut machine = up();
    machine.look(0, counts(7, 0), 0);
    (1..100).for_each(|look| machine.look(look * MILLISECOND, counts(7, 0), look * MILLISECOND));
    assert_eq!((actions(&mut machine), machine.deadline()), (vec![], None));
}

#[test]
fn errors_pause_a_rail_if_they_come_together() {
    let mut machine = up();
    machine.failed(0);
    machine.failed(LIMITS.window + 1);
    assert!(machine.is_up());
    machine.failed(LIMITS.window + 2);
    assert_eq!(actions(&mut machine), [RailAction::Move(PauseReason::Errors)]);
    assert_eq!((machine.is_up(), machine.reason()), (false, Some(PauseReason::Errors)));
}

#[test]
fn the_limits_of_silence_and_failures_are_those_that_are_set() {
    let mut machine = RailMachine::new(RailLimits { gaps: 4, ..LIMITS }, 0);
    for number in 1..50 {
        machine.look(number * 5 * MILLISECOND, counts(number, 5), number * 5 * MILLISECOND);
    }
    assert_eq!(stay_silent_at(&mut machine, 245 * MILLISECOND, 49).0, 265 * MILLISECOND, "4 gaps of 5 ms");
    for (errors, window) in [(3, LIMITS.window), (2, 2 * LIMITS.window), (1, LIMITS.window)] {
        let mut machine = RailMachine::new(RailLimits { errors, window, ..LIMITS }, 0);
        for failure in 0..errors {
            assert!(machine.is_up(), "{failure} of {errors}");
            machine.failed(u64::from(failure) * window / u64::from(errors));
        }
        assert!(!machine.is_up(), "{errors} within {window} ns");
    }
}

/// Pauses it, and brings it back; answers for how long it was paused.
fn pause_and_return(machine: &mut RailMachine, now: u64) -> u64 {
    machine.failed(now);
    machine.failed(now);
    let RailState::Paused(until) = machine.state() else { panic!("{machine:?}") };
    machine.timeout(until - 1);
    assert_eq!(actions(machine), [RailAction::Move(PauseReason::Errors)]);
    machine.timeout(until);
    let [RailAction::Probe(number)] = actions(machine)[..] else { panic!("{machine:?}") };
    machine.answered(number, until + 1);
    let [RailAction::Rebuild(number)] = actions(machine)[..] else { panic!("{machine:?}") };
    machine.rebuilt(number, true, until + 2);
    assert!(machine.is_up());
    until - now
}

#[test]
fn pauses_double_to_a_bound_and_success_resets_them() {
    let mut machine = up();
    let mut now = 0;
    for expected in [4, 8, 16, 32, 64, 64] {
        assert_eq!(pause_and_return(&mut machine, now), expected * MILLISECOND);
        now += 200 * MILLISECOND;
    }
    // It works, but not for as long as the window.
    let mut back = now - 200 * MILLISECOND + 64 * MILLISECOND + 2;
    machine.look(back + LIMITS.window - 1, counts(1, 1), 0);
    back += LIMITS.window;
    assert_eq!(pause_and_return(&mut machine, back), 64 * MILLISECOND);
    back += 64 * MILLISECOND + 2;
    machine.look(back + LIMITS.window, counts(2, 1), 0);
    assert_eq!(pause_and_return(&mut machine, back + LIMITS.window + 1), 4 * MILLISECOND);
}

#[test]
fn a_rail_that_stays_silent_is_asked_at_the_bound() {
    let mut machine = up();
    machine.look(0, counts(1, 5), 0);
    let (asked, _) = stay_silent(&mut machine, 0, 100 * MILLISECOND);
    let (mut now, _) = stay_silent(&mut machine, asked, 100 * MILLISECOND);
    let mut asked = Vec::new();
    while now < 60 * MILLISECOND {
        now = machine.deadline().unwrap();
        machine.timeout(now);
        asked.extend(actions(&mut machine).iter().map(|_| now / MILLISECOND));
    }
    assert_eq!(asked, [9, 20, 31, 42, 53, 64], "8 ms of pause and 3 ms for the answer");
}

#[test]
fn a_port_takes_a_rail_down_and_brings_it_back() {
    let mut machine = up();
    machine.port_up(0);
    assert!(machine.is_up());
    machine.port_down();
    machine.port_down();
    assert_eq!(
        (machine.state(), actions(&mut machine)),
        (RailState::Down, vec![RailAction::Move(PauseReason::PortDown)])
    );
    machine.port_up(10 * MILLISECOND);
    assert_eq!(machine.state(), RailState::Paused(14 * MILLISECOND));
    machine.port_down();
    assert_eq!((machine.state(), actions(&mut machine)), (RailState::Down, vec![]), "nothing is on it");
    machine.device_lost();
    machine.port_up(20 * MILLISECOND);
    assert_eq!(machine.state(), RailState::Down, "a lost device is lost");
}

#[test]
fn late_answers_are_ignored() {
    let mut machine = up();
    machine.look(0, counts(1, 5), 0);
    let (asked, _) = stay_silent(&mut machine, 0, 100 * MILLISECOND);
    let (_, _) = stay_silent(&mut machine, asked, 100 * MILLISECOND);
    machine.answered(1, 6 * MILLISECOND);
    assert_eq!(machine.state(), RailState::Paused(9 * MILLISECOND));
    machine.timeout(9 * MILLISECOND);
    assert_eq!(actions(&mut machine), [RailAction::Probe(2)]);
    machine.answered(1, 10 * MILLISECOND);
    assert_eq!(actions(&mut machine), []);
    machine.rebuilt(0, true, 10 * MILLISECOND);
    assert!(!machine.is_up());
}

/// Paused for errors since `now`; asked at the end of the pause.
fn ask_after_errors(machine: &mut RailMachine, now: u64) -> (u64, u32) {
    machine.failed(now);
    machine.failed(now);
    let RailState::Paused(until) = machine.state() else { panic!("{machine:?}") };
    actions(machine);
    machine.timeout(until);
    let [RailAction::Probe(number)] = actions(machine)[..] else { panic!("{machine:?}") };
    (until, number)
}

#[test]
fn a_rail_that_was_left_is_asked_once_it_has_a_lane() {
    let mut machine = up();
    let (asked, number) = ask_after_errors(&mut machine, 0);
    machine.has_no_lane(asked);
    assert_eq!((machine.state(), machine.deadline()), (RailState::Paused(asked), None));
    machine.timeout(asked + 1_000 * MILLISECOND);
    let made = asked + 2_000 * MILLISECOND;
    machine.has_lane(made);
    assert_eq!(actions(&mut machine), [RailAction::Probe(number + 1)]);
    machine.has_lane(made);
    assert_eq!((actions(&mut machine), machine.deadline()), (vec![], Some(made + LIMITS.answer)));
    machine.answered(number + 1, made);
    assert_eq!(actions(&mut machine), [RailAction::Rebuild(1)]);
}

#[test]
fn an_answer_that_comes_in_the_next_pause_is_one() {
    let mut machine = up();
    let (asked, first) = ask_after_errors(&mut machine, 0);
    machine.timeout(asked + LIMITS.answer);
    assert_eq!(machine.state(), RailState::Paused(asked + 11 * MILLISECOND));
    machine.timeout(asked + 11 * MILLISECOND);
    assert_eq!(actions(&mut machine), [RailAction::Probe(first + 1)]);
    machine.answered(first - 1, asked + 12 * MILLISECOND);
    assert_eq!(actions(&mut machine), [], "of the time before it was left");
    machine.answered(first, asked + 12 * MILLISECOND);
    assert_eq!(actions(&mut machine), [RailAction::Rebuild(1)]);
}

#[test]
fn a_rail_that_fails_when_it_is_asked_pauses_for_twice_as_long() {
    let mut machine = up();
    let (mut now, _) = ask_after_errors(&mut machine, 0);
    for pause in [8, 16, 32, 64, 64] {
        machine.failed(now);
        machine.failed(now);
        assert_eq!(machine.state(), RailState::Paused(now + pause * MILLISECOND), "{pause}");
        now += pause * MILLISECOND;
        machine.timeout(now);
        assert!(matches!(actions(&mut machine)[..], [RailAction::Probe(_)]));
    }
}

#[test]
fn questions_without_answers_make_later_pauses_no_longer() {
    let mut machine = up();
    let (mut now, _) = ask_after_errors(&mut machine, 0);
    for _ in 0..20 {
        now = machine.deadline().unwrap();
        machine.timeout(now);
    }
    let Some(RailAction::Probe(number)) = actions(&mut machine).pop() else { panic!("{machine:?}") };
    machine.answered(number, now);
    machine.rebuilt(1, true, now);
    actions(&mut machine);
    assert_eq!(pause_and_return(&mut machine, now), 8 * MILLISECOND, "the second one");
}

#[test]
fn a_rebuild_that_fails_pauses_again() {
    let mut machine = up();
    machine.port_down();
    machine.port_up(0);
    machine.timeout(4 * MILLISECOND);
    machine.answered(1, 4 * MILLISECOND);
    machine.rebuilt(1, false, 5 * MILLISECOND);
    assert_eq!(machine.state(), RailState::Paused(13 * MILLISECOND));
}

#[test]
fn the_end_of_an_earlier_rebuild_is_ignored() {
    let mut machine = up();
    let begin = |machine: &mut RailMachine, probe: u32, now: u64| {
        machine.port_down();
        machine.port_up(now);
        let RailState::Paused(until) = machine.state() else { panic!("{machine:?}") };
        machine.timeout(until);
        machine.answered(probe, until);
        let taken = actions(machine);
        let Some(RailAction::Rebuild(number)) = taken.last() else { panic!("{taken:?}") };
        *number
    };
    let first = begin(&mut machine, 1, 0);
    let second = begin(&mut machine, 2, 10 * MILLISECOND);
    machine.rebuilt(first, true, 30 * MILLISECOND);
    assert!(!machine.is_up(), "its lanes are those before the port went down again");
    machine.rebuilt(first, false, 30 * MILLISECOND);
    machine.rebuilt(second, true, 31 * MILLISECOND);
    assert!(machine.is_up());
}

#[test]
fn a_peer_that_goes_silent_while_a_rail_is_asked_pauses_it_only_if_it_stays_silent_alone() {
    for (others_return, answers) in [(false, false), (true, true), (true, false)] {
        let mut machine = up();
        machine.look(0, counts(1, 5), 0);
        let (asked, done) = stay_silent(&mut machine, 0, 100 * MILLISECOND);
        assert_eq!(done, [RailAction::Probe(1)]);
        let mut now = asked;
        while now < 50 * MILLISECOND {
            now += MILLISECOND / 2;
            machine.look(now, counts(1, 5), asked);
        }
        assert_eq!((machine.is_up(), actions(&mut machine)), (true, vec![]), "all are silent");
        let mut taken = Vec::new();
        while now < 60 * MILLISECOND && others_return {
            machine.look(now, counts(1, 5), now);
            taken.extend(actions(&mut machine));
            if answers && let Some(RailAction::Probe(number)) = taken.last() {
                machine.answered(*number, now);
            }
            now += MILLISECOND / 2;
        }
        let is_left = taken.contains(&RailAction::Move(PauseReason::Silent));
        assert_eq!(is_left, others_return && !answers, "{taken:?}");
        assert_eq!(taken.first(), others_return.then_some(&RailAction::Probe(2)));
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Look(u64, u64, bool),
    Answered(bool),
    Failed,
    NotFailed,
    PortDown,
    PortUp,
    Rebuilt(bool, bool),
    NoLane,
    Lane,
    Timeout,
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0u64..3, 0u64..2, any::<bool>()).prop_map(|(ended, left, others)| Event::Look(ended, left, others)),
        any::<bool>().prop_map(Event::Answered),
        Just(Event::Failed),
        Just(Event::NotFailed),
        Just(Event::PortDown),
        Just(Event::PortUp),
        any::<(bool, bool)>().prop_map(|(right, done)| Event::Rebuilt(right, done)),
        Just(Event::NoLane),
        Just(Event::Lane),
        Just(Event::Timeout),
    ]
}

proptest! {
    /// Whatever happens in whatever order: a rail that leaves `Up` requests a move at once and only then, one that is not up comes back
    /// only by an answered probe and a rebuild, pauses end, and at most three actions wait.
    #[test]
    fn a_rail_moves_its_parts_whenever_it_leaves(
        events in prop::collection::vec((any_event(), 0u64..20 * MILLISECOND), 1..80)
    ) {
        let mut machine = up();
        let (mut now, mut completions, mut last, mut answered) = (0, 0, 0, false);
        let (mut probe, mut rebuild) = (0_u32, 0_u32);
        // An answer that is late counts as long as its probe was sent since the rail was left.
        let mut asked_since_left = std::collections::BTreeSet::new();
        for (event, step) in events {
            now += step;
            let was_up = machine.is_up();
            match event {
                Event::Look(ended, left, others) => {
                    completions += ended;
                    machine.look(now, counts(completions, left), if others { now } else { last });
                    last = now;
                }
                Event::Answered(right) => {
                    let number = if right { probe } else { probe.wrapping_sub(1) };
                    answered |= asked_since_left.contains(&number) && machine.state() != RailState::Down;
                    machine.answered(number, now);
                }
                Event::Failed => machine.failed(now),
                Event::NotFailed => machine.not_failed(),
                Event::PortDown => machine.port_down(),
                Event::PortUp => machine.port_up(now),
                Event::Rebuilt(right, done) => machine.rebuilt(if right { rebuild } else { rebuild.wrapping_sub(1) }, done, now),
                Event::NoLane => machine.has_no_lane(now),
                Event::Lane => machine.has_lane(now),
                Event::Timeout => machine.timeout(now),
            }
            let is_up = machine.is_up();
            if was_up {
                asked_since_left.clear();
            }
            let taken = actions(&mut machine);
            prop_assert!(taken.len() <= 3);
            let moves = taken.iter().filter(|action| matches!(action, RailAction::Move(_))).count();
            prop_assert_eq!(moves, usize::from(was_up && !is_up));
            if !was_up && is_up {
                prop_assert!(answered && matches!(event, Event::Rebuilt(true, true)));
                answered = false;
            }
            for action in taken {
                match action {
                    RailAction::Probe(number) => {
                        probe = number;
                        asked_since_left.insert(number);
                    }
                    RailAction::Rebuild(number) => rebuild = number,
                    RailAction::Move(_) => {}
                }
            }
            if let RailState::Paused(until) = machine.state() {
                prop_assert!(until <= now + LIMITS.longest_pause);
                prop_assert!(machine.deadline().is_some() || until <= now, "a pause ends");
            }
        }
    }
}

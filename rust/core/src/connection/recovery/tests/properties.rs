//! What holds for any sequence of events.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Inputs of a machine.
#[derive(Clone, Debug)]
enum Input {
    Frame(ChannelFrame),
    Broken(usize),
    Drained(usize),
    Closed(usize),
    Port(bool),
    Created(usize, u32, bool),
    Connected(usize, u32, bool),
    Time(u64),
}

const LANES: usize = 3;

fn frames() -> impl Strategy<Value = ChannelFrame> {
    let lane = 0..LANES as u32 + 1;
    let attempt = prop_oneof![9 => 0..5u32, 1 => any::<u32>()];
    (0..7, lane, attempt, any::<u32>()).prop_map(|(kind, lane, attempt, number)| match kind {
        0 => ChannelFrame::Ping(number.into()),
        1 => ChannelFrame::Pong(number.into()),
        2 => ChannelFrame::Rebuild { lane, attempt, record: record(number) },
        3 => ChannelFrame::Rebuilt { lane, attempt, record: record(number) },
        4 => ChannelFrame::Ready { lane, attempt },
        5 => ChannelFrame::Broken { lane },
        _ => ChannelFrame::Refused { lane, attempt },
    })
}

fn inputs() -> impl Strategy<Value = Input> {
    let (lane, attempt) = (0..LANES, 0..5u32);
    prop_oneof![
        12 => frames().prop_map(Input::Frame),
        2 => lane.clone().prop_map(Input::Broken),
        4 => lane.clone().prop_map(Input::Drained),
        1 => (0..20 * LANES).prop_map(Input::Closed),
        2 => any::<bool>().prop_map(Input::Port),
        4 => (lane.clone(), attempt.clone(), any::<bool>()).prop_map(|(l, a, ok)| Input::Created(l, a, ok)),
        4 => (lane, attempt, any::<bool>()).prop_map(|(l, a, ok)| Input::Connected(l, a, ok)),
        4 => (0..5000u64).prop_map(Input::Time),
    ]
}

fn policies() -> impl Strategy<Value = RebuildPolicy> {
    (any::<bool>(), prop::bool::weighted(0.9)).prop_map(|(leads, heals)| RebuildPolicy {
        leads,
        heals,
        ..LEADER
    })
}

proptest! {
    /// A peer alone cannot make a machine grow, also when its actions are not taken.
    #[test]
    fn frames_take_a_fixed_amount_of_memory(policy in policies(), drained: [bool; LANES], frames in vec(frames(), 0..400)) {
        let now = Instant::now();
        let mut machine = Machine::new(policy, LANES);
        for lane in (0..LANES).filter(|&lane| drained[lane]) {
            machine.lane_drained(lane, "it failed", now);
        }
        for frame in frames {
            machine.frame(frame, now);
            // For each lane: what the drain, the first request and its end ask for, and a frame.
            prop_assert!(machine.backlog() <= 5 * LANES + 2, "{}", machine.backlog());
        }
    }

    /// For any reports of the driver and the peer, in any order.
    #[test]
    fn nothing_makes_it_panic_or_act_without_end(policy in policies(), inputs in vec(inputs(), 0..300)) {
        let mut now = Instant::now();
        let mut machine = Machine::new(policy, LANES);
        for input in inputs {
            let result = |ok: bool| ok.then_some(()).ok_or_else(|| "it failed".to_owned());
            match input {
                Input::Frame(frame) => machine.frame(frame, now),
                Input::Broken(lane) => machine.lane_broken(lane, "it failed", now),
                Input::Drained(lane) => machine.lane_drained(lane, "it failed", now),
                Input::Closed(lane) => machine.lane_closed(lane, now),
                Input::Port(true) => machine.device(0, DeviceHealth::Up, now),
                Input::Port(false) => machine.device(0, DeviceHealth::PortDown(now), now),
                Input::Created(lane, attempt, ok) => {
                    machine.created(lane, attempt, result(ok).map(|()| record(1)), now);
                }
                Input::Connected(lane, attempt, ok) => machine.connected(lane, attempt, result(ok), now),
                Input::Time(milliseconds) => {
                    now += Duration::from_millis(milliseconds);
                    machine.timeout(now);
                    prop_assert!(machine.deadline().is_none_or(|deadline| deadline > now));
                }
            }
            let actions: Vec<_> = std::iter::from_fn(|| machine.next_action()).collect();
            prop_assert!(actions.len() <= 4 * LANES + 1, "{actions:?}");
            let last = actions.iter().position(|action| matches!(action, Action::Lose(_)));
            prop_assert!(last.is_none_or(|last| last + 1 == actions.len() && machine.is_over()));
        }
    }
}

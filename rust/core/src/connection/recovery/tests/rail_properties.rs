//! What holds for any sequence of events of two rails.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::lane::LaneMachine;
use super::super::rail::Rail;
use super::rails::{FIRST, RAILS_FOLLOWER, RAILS_LEADER};
use super::*;
use crate::control::{PathAnswer, RailRefusal};

/// Inputs of a machine.
#[derive(Clone, Debug)]
enum Input {
    Frame(ChannelFrame),
    Broken(usize),
    Drained(usize),
    Closed(usize),
    Device(usize, u8),
    Created(usize, u32, bool),
    Connected(usize, u32, bool),
    Add(usize, u16, usize),
    Opened(usize, bool),
    Try(usize, u16),
    TrialCreated(usize, u32, u8),
    TrialWritten(usize, u32, bool),
    Request(u16),
    Used(usize),
    Leave(usize),
    Resume(usize),
    Time(u64),
}

/// Of trials: for each number an answer, and of what was begun before the end of one and the beginning of the next; requests that
/// are refused.
const TRIALS: usize = 400;

/// Two of each rail.
const LANES: [usize; 4] = [0, 1, FIRST, FIRST + 1];

fn frames() -> impl Strategy<Value = ChannelFrame> {
    let lane = prop_oneof![8 => prop::sample::select(&LANES[..]), 1 => 0..80_usize];
    let number = prop_oneof![9 => 0..5u32, 1 => any::<u32>()];
    let rail = prop_oneof![3 => Just(1_u8), 1 => any::<u8>()];
    (0..15, lane, number, rail, 0..2u16, 0..10u8).prop_map(|(kind, lane, number, rail, nic, lanes)| {
        let lane = lane as u32;
        match kind {
            0 => ChannelFrame::Rebuild { lane, attempt: number, record: record(number) },
            1 => ChannelFrame::Rebuilt { lane, attempt: number, record: record(number) },
            2 => ChannelFrame::Ready { lane, attempt: number },
            3 => ChannelFrame::Broken { lane },
            4 => ChannelFrame::Refused { lane, attempt: number },
            5 => ChannelFrame::AddRail { rail, own: nic, peer: nic, lanes },
            6 => ChannelFrame::RailReady { rail },
            7 => ChannelFrame::RailRefused { rail, why: RailRefusal::Unlike },
            8 => ChannelFrame::RequestRail { own: nic, peer: nic },
            9 => ChannelFrame::Quiesce { lane, number },
            10 => ChannelFrame::Quiesced { lane, number },
            11 => ChannelFrame::TryPath { rail, number, own: nic, peer: nic, record: record(number) },
            12 => ChannelFrame::PathTried {
                rail,
                number,
                answer: match lanes % 4 {
                    0 => PathAnswer::Ended,
                    1 => PathAnswer::Ready(record(number)),
                    2 => PathAnswer::Refused(RailRefusal::Unusable),
                    _ => PathAnswer::Unreached,
                },
            },
            13 => ChannelFrame::RequestRefused { own: nic, peer: nic, why: RailRefusal::Limited },
            _ => ChannelFrame::NotNow { lane, attempt: number },
        }
    })
}

fn inputs() -> impl Strategy<Value = Input> {
    let (lane, attempt, rail) = (prop::sample::select(&LANES[..]), 0..5u32, 0..2_usize);
    prop_oneof![
        12 => frames().prop_map(Input::Frame),
        2 => lane.clone().prop_map(Input::Broken),
        5 => lane.clone().prop_map(Input::Drained),
        1 => (0..80_usize).prop_map(Input::Closed),
        3 => (rail.clone(), 0..12u8).prop_map(|(rail, health)| Input::Device(rail, health)),
        4 => (lane.clone(), attempt.clone(), any::<bool>()).prop_map(|(l, a, ok)| Input::Created(l, a, ok)),
        4 => (lane, attempt, any::<bool>()).prop_map(|(l, a, ok)| Input::Connected(l, a, ok)),
        2 => (0..9_usize, 0..2u16, 1..3_usize).prop_map(|(rail, nic, lanes)| Input::Add(rail, nic, lanes)),
        2 => (rail.clone(), any::<bool>()).prop_map(|(rail, ok)| Input::Opened(rail, ok)),
        2 => (0..4_usize, 0..2u16).prop_map(|(rail, nic)| Input::Try(rail, nic)),
        2 => (0..4_usize, 0..4u32, 0..4u8).prop_map(|(rail, number, how)| Input::TrialCreated(rail, number, how)),
        2 => (0..4_usize, 0..4u32, any::<bool>()).prop_map(|(rail, number, ok)| Input::TrialWritten(rail, number, ok)),
        1 => (0..2u16).prop_map(Input::Request),
        1 => rail.clone().prop_map(Input::Used),
        1 => rail.clone().prop_map(Input::Leave),
        1 => rail.prop_map(Input::Resume),
        4 => (0..5000u64).prop_map(Input::Time),
    ]
}

fn policies() -> impl Strategy<Value = RebuildPolicy> {
    any::<(bool, bool)>().prop_map(|(leads, lanes_on_use)| {
        let policy = if leads { RAILS_LEADER } else { RAILS_FOLLOWER };
        RebuildPolicy { lanes_on_use, ..policy }
    })
}

/// Two rails; the second one has two lanes where one of them may wait for its use.
fn two_rails(policy: RebuildPolicy) -> Fixture {
    Fixture::two_rails_of(policy, 1 + usize::from(policy.lanes_on_use))
}

proptest! {
    /// A peer alone cannot make a machine grow, also when its actions are not taken.
    #[test]
    fn frames_of_rails_take_a_fixed_amount_of_memory(policy in policies(), drained: [bool; 4], frames in vec(frames(), 0..400)) {
        let mut fixture = two_rails(policy);
        for lane in LANES.into_iter().zip(drained).filter_map(|(lane, is_drained)| is_drained.then_some(lane)) {
            fixture.machine.lane_drained(lane, "it failed", fixture.now);
        }
        for frame in frames {
            fixture.machine.frame(frame, fixture.now);
        }
        // As for one rail, a question, an answer for each lane that there could be, each number of a rail, requests.
        let limit = 8 * LANES.len() + 64 + 256 + 8 + 8 + TRIALS;
        prop_assert!(fixture.machine.backlog() <= limit, "{}", fixture.machine.backlog());
    }

    /// For any reports of the driver and the peer, in any order.
    #[test]
    fn nothing_makes_rails_panic_or_act_without_end(policy in policies(), inputs in vec(inputs(), 0..300)) {
        let mut fixture = two_rails(policy);
        let machine = &mut fixture.machine;
        let mut now = fixture.now;
        for input in inputs {
            let result = |ok: bool| ok.then_some(()).ok_or_else(|| "it failed".to_owned());
            match input {
                Input::Frame(frame) => machine.frame(frame, now),
                Input::Broken(lane) => machine.lane_broken(lane, "it failed", now),
                Input::Drained(lane) => machine.lane_drained(lane, "it failed", now),
                Input::Closed(lane) => machine.lane_closed(lane, now),
                Input::Device(rail, 0) => machine.device(rail, DeviceHealth::Lost("it was removed"), now),
                Input::Device(rail, 1..=5) => machine.device(rail, DeviceHealth::PortDown(now), now),
                Input::Device(rail, _) => machine.device(rail, DeviceHealth::Up, now),
                Input::Created(lane, attempt, ok) => {
                    machine.created(lane, attempt, result(ok).map(|()| record(1)), now);
                }
                Input::Connected(lane, attempt, ok) => machine.connected(lane, attempt, result(ok), now),
                Input::Add(rail, nic, lanes) => machine.add_rail(rail, nic, nic, lanes, now),
                Input::Opened(rail, ok) => {
                    machine.rail_opened(rail, ok.then_some(()).ok_or(RailRefusal::Unusable), now);
                }
                Input::Try(rail, nic) => machine.try_rail(rail, (nic, nic), 2, now),
                Input::TrialCreated(rail, number, how) => {
                    let result = match how {
                        0 => Err(None),
                        1 => Err(Some(RailRefusal::Unlike)),
                        _ => Ok(record(number)),
                    };
                    machine.trial_created(rail, number, result, now);
                }
                Input::TrialWritten(rail, number, ok) => {
                    machine.trial_written(rail, number, result(ok));
                }
                Input::Request(nic) => machine.request_rail(nic, nic),
                Input::Used(rail) => machine.rail_is_used(rail, now),
                Input::Leave(rail) => machine.leave_rail(rail, "it is silent", now),
                Input::Resume(rail) => machine.resume_rail(rail, now),
                Input::Time(milliseconds) => {
                    now += Duration::from_millis(milliseconds);
                    machine.timeout(now);
                    prop_assert!(machine.deadline().is_none_or(|deadline| deadline > now));
                }
            }
            let actions: Vec<_> = std::iter::from_fn(|| machine.next_action()).collect();
            prop_assert!(actions.len() <= 7 * 4 + 16, "{actions:?}");
            let last = actions.iter().position(|action| matches!(action, Action::Lose(_)));
            prop_assert!(last.is_none_or(|last| last + 1 == actions.len() && machine.is_over()));
            // Lanes that wait for use keep no connection, and no rail, without one that works or may.
            let waits = machine.rails.iter().filter(|rail| rail.lanes.iter().any(LaneMachine::is_unneeded));
            let may_wait = |rail: &Rail| rail.view.others_healthy && rail.lanes.iter().any(|lane| !lane.is_unneeded() && !lane.is_closed());
            prop_assert!(machine.is_over() || waits.into_iter().all(may_wait), "{:?}", machine.rails);
            // No part moves when there is nowhere to go.
            let moves = actions.iter().any(|action| matches!(action, Action::MoveParts { .. }));
            prop_assert!(!moves || machine.rails.iter().any(|rail| rail.view.others_healthy), "{actions:?}");
        }
    }
}

//! Each rule by itself, and properties that hold for any sequence of events.

use std::io;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::connection::DeviceHealth;
use crate::control::ChannelFrame;
use crate::control::wire::LaneRecord;
use crate::fabric::QpAddress;

const LEADER: RebuildPolicy = RebuildPolicy { leads: true, heals: true };
const FOLLOWER: RebuildPolicy = RebuildPolicy { leads: false, heals: true };
const SECOND: Duration = Duration::from_secs(1);

/// A machine and its time.
struct Fixture {
    machine: Machine,
    start: Instant,
    now: Instant,
}

impl Fixture {
    fn new(policy: RebuildPolicy, lanes: usize) -> Self {
        let now = Instant::now();
        Self { machine: Machine::new(policy, lanes), start: now, now }
    }

    /// A leader that has requested the rebuild of lane 0, in attempt 1.
    fn asked() -> Self {
        let mut fixture = Self::new(LEADER, 2);
        assert_eq!(fixture.drain(0), [Action::Create { lane: 0, attempt: 1 }]);
        assert_eq!(fixture.create(1), [rebuild(1)]);
        fixture
    }

    /// A leader that is connecting its new queue pair.
    fn connecting() -> Self {
        let mut fixture = Self::asked();
        assert_eq!(fixture.receive(rebuilt(1)), [Action::Connect { lane: 0, attempt: 1, peer: record(101) }]);
        fixture
    }

    /// A follower that has answered attempt 1.
    fn answered() -> Self {
        let mut fixture = Self::new(FOLLOWER, 2);
        assert_eq!(fixture.drain(0), [broken()]);
        assert_eq!(fixture.receive(ask(1)), [create_connected(1)]);
        assert_eq!(fixture.create(1), [Action::Send(rebuilt(1))]);
        fixture
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.machine.next_action()).collect()
    }

    fn receive(&mut self, frame: ChannelFrame) -> Vec<Action> {
        self.machine.frame(frame, self.now);
        self.actions()
    }

    fn drain(&mut self, lane: usize) -> Vec<Action> {
        self.machine.lane_drained(lane, "retries exceeded", self.now);
        self.actions()
    }

    fn create(&mut self, attempt: u32) -> Vec<Action> {
        self.machine.created(0, attempt, Ok(record(100 + attempt)), self.now);
        self.actions()
    }

    fn connect(&mut self, attempt: u32, result: Result<(), String>) -> Vec<Action> {
        self.machine.connected(0, attempt, result, self.now);
        self.actions()
    }

    fn device(&mut self, health: DeviceHealth) -> Vec<Action> {
        self.machine.device(health, self.now);
        self.actions()
    }

    fn port_down(&mut self) -> Vec<Action> {
        self.device(DeviceHealth::PortDown(self.now))
    }

    /// Advances to the machine's next deadline, which must be `after` the start.
    fn expire(&mut self, after: Duration) -> Vec<Action> {
        while let Some(first_look) = self.machine.deadline().filter(|&at| at < self.start + after) {
            self.machine.timeout(first_look);
            assert_eq!(self.actions(), [], "it is not time yet");
        }
        self.now = self.start + after;
        assert_eq!(self.machine.deadline(), Some(self.now));
        self.machine.timeout(self.now - Duration::from_micros(1));
        assert_eq!(self.actions(), [], "it is not time yet");
        self.machine.timeout(self.now);
        self.actions()
    }
}

fn record(qpn: u32) -> LaneRecord {
    let address = QpAddress { qpn, gid: [0; 16], port: 1, link_layer: 2, lid: 0, mtu: 5 };
    LaneRecord { address, capabilities: None }
}

fn rebuild(attempt: u32) -> Action {
    Action::Send(ask(attempt))
}

fn ask(attempt: u32) -> ChannelFrame {
    ChannelFrame::Rebuild { lane: 0, attempt, record: record(100 + attempt) }
}

fn rebuilt(attempt: u32) -> ChannelFrame {
    ChannelFrame::Rebuilt { lane: 0, attempt, record: record(100 + attempt) }
}

fn ready(attempt: u32) -> ChannelFrame {
    ChannelFrame::Ready { lane: 0, attempt }
}

fn refused(attempt: u32) -> Action {
    Action::Send(ChannelFrame::Refused { lane: 0, attempt })
}

fn broken() -> Action {
    Action::Send(ChannelFrame::Broken { lane: 0 })
}

fn create_connected(attempt: u32) -> Action {
    Action::CreateConnected { lane: 0, attempt, peer: record(100 + attempt) }
}

fn discard(attempt: u32) -> Action {
    Action::Discard { lane: 0, attempt }
}

fn close(reason: LostReason) -> Action {
    Action::Close { lane: 0, reason }
}

fn cause() -> String {
    "retries exceeded".to_owned()
}

fn not_rebuilt(failure: Failure) -> Action {
    close(LostReason::NotRebuilt { attempts: MAX_ATTEMPTS, failure, cause: cause() })
}

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
    let end = not_rebuilt(Failure::Unanswered);
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
    let end = not_rebuilt(Failure::NotConnected("no route".to_owned()));
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
    assert_eq!(fixture.expire(9 * SECOND), [discard(5), not_rebuilt(Failure::Unanswered), refused(5)]);
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
    let failure = Some(Failure::NotConnected("no route".to_owned()));
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
        let mut fixture = Fixture::new(RebuildPolicy { leads, heals: false }, 2);
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
    let device = lost(&|fixture| fixture.machine.device(DeviceHealth::Lost("it was removed"), fixture.now));
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
    (any::<bool>(), prop::bool::weighted(0.9)).prop_map(|(leads, heals)| RebuildPolicy { leads, heals })
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
                Input::Port(true) => machine.device(DeviceHealth::Up, now),
                Input::Port(false) => machine.device(DeviceHealth::PortDown(now), now),
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

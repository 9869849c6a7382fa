//! A machine with its time, and the tests of its rules.

mod connection;
mod lanes;
mod lanes_on_use;
mod leaving;
mod lost;
mod properties;
mod rail_properties;
mod rails;
mod trials;
mod undrained;

use std::time::{Duration, Instant};

use super::*;
use crate::connection::DeviceHealth;
use crate::control::ChannelFrame;
use crate::control::wire::LaneRecord;
use crate::fabric::QpAddress;

pub(super) const LEADER: RebuildPolicy =
    RebuildPolicy { leads: true, heals: true, rails: false, lanes_on_use: false };
const FOLLOWER: RebuildPolicy = RebuildPolicy { leads: false, ..LEADER };
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
        self.machine.device(0, health, self.now);
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

fn not_rebuilt(failure: RebuildFailure) -> Action {
    close(LostReason::NotRebuilt { attempts: MAX_ATTEMPTS, failure, cause: cause() })
}

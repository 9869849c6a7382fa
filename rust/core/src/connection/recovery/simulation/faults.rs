//! The faults of the simulation, and the conditions of a run.

use super::agenda::Event;
use super::driver::record;
use super::random::Random;
use super::world::{SETTLED_AFTER, World, instant};
use super::{Violation, millis};
use crate::connection::DeviceHealth;
use crate::control::ChannelFrame;

/// A kind of fault.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// Draws the conditions.
    pub(super) conditions: fn(&mut Random) -> Conditions,
    /// Draws the faults, with their times.
    pub(super) faults: fn(&mut Random) -> Vec<(u64, Fault)>,
}

/// What a run is like. Times are the longest ones, in microseconds; chances are percentages.
#[derive(Clone, Debug)]
pub(super) struct Conditions {
    pub(super) heals: bool,
    /// A second rail is added, with so many lanes.
    pub(super) rails: bool,
    pub(super) rail_lanes: usize,
    /// All but the first of them are made when it is used.
    pub(super) lanes_on_use: bool,
    /// All faults end soon enough for every lane to be rebuilt.
    pub(super) curable: bool,
    /// Frames arrive that the other machine has not sent.
    pub(super) hostile: bool,
    /// One way of a request.
    pub(super) wire: u64,
    /// Until a request that arrives nowhere fails.
    pub(super) retries: u64,
    /// One way of a frame.
    pub(super) channel: u64,
    pub(super) create: u64,
    pub(super) create_fails: u64,
    pub(super) connect: u64,
    pub(super) connect_fails: u64,
    /// Connecting to a queue pair that is gone fails.
    pub(super) dials: bool,
    pub(super) drain: u64,
    pub(super) never_drains: u64,
    /// Its device does not move a queue pair to ERROR.
    pub(super) resists: u64,
    /// A command that destroys a queue pair that is not drained; 0: at once.
    pub(super) destroy: u64,
    pub(super) destroy_fails: u64,
    /// The second rail is made where a device is lost, if not before.
    pub(super) spare: bool,
    /// It is added at some time without need.
    pub(super) adds_rails: bool,
    /// The connection outlives the faults.
    pub(super) outlives: bool,
    /// When the last fault happens, or its consequences end.
    pub(super) last_fault: u64,
}

impl Conditions {
    pub(super) fn draw(random: &mut Random) -> Self {
        Self {
            heals: true,
            rails: false,
            rail_lanes: 0,
            lanes_on_use: false,
            curable: false,
            hostile: false,
            wire: random.between(20, millis(50)),
            retries: random.between(1000, millis(2000)),
            channel: random.between(200, millis(200)),
            create: random.between(200, millis(20)),
            create_fails: 0,
            connect: random.between(200, millis(20)),
            connect_fails: 0,
            dials: random.percent(50),
            drain: random.between(100, millis(300)),
            never_drains: 0,
            resists: 0,
            destroy: 0,
            destroy_fails: 0,
            spare: false,
            adds_rails: true,
            outlives: false,
            last_fault: 0,
        }
    }

    /// Whether both ends must agree in the end.
    pub(super) fn agrees(&self) -> bool {
        self.heals && !self.hostile
    }
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// A queue pair fails, idle or not.
    QueuePair {
        end: usize,
        lane: u64,
    },
    /// The port goes down, for so long.
    Port {
        end: usize,
        lasts: u64,
    },
    /// The port goes down and stays so.
    PortForGood {
        end: usize,
    },
    DeviceLost {
        end: usize,
    },
    /// That of the first rail.
    FirstDeviceLost {
        end: usize,
    },
    HostDies {
        end: usize,
    },
    /// The process does nothing for so long.
    Stops {
        end: usize,
        lasts: u64,
    },
    /// The process does nothing any more.
    Hangs {
        end: usize,
    },
    /// The socket takes nothing for so long.
    Blocks {
        end: usize,
        lasts: u64,
    },
    /// Frames take so much longer.
    Silence {
        lasts: u64,
    },
    /// The control connection fails at both ends.
    ChannelCut,
    /// An end leaves a rail, for so long.
    Leaves {
        end: usize,
        rail: usize,
        lasts: u64,
    },
    /// The peer sends a frame that it should not.
    Frame {
        end: usize,
    },
}

pub(super) const SCENARIOS: [Scenario; 16] = [
    Scenario {
        name: "dead host",
        conditions: Conditions::draw,
        faults: |random| {
            let mut faults = queue_pairs(random, 3, millis(4000));
            let end = random.below(2) as usize;
            faults.push((random.between(1, millis(4000)), Fault::HostDies { end }));
            faults
        },
    },
    Scenario {
        name: "unanswered rebuilds",
        conditions: Conditions::draw,
        faults: |random| {
            let mut faults = queue_pairs(random, 4, millis(8000));
            for _ in 0..=random.below(3) {
                let end = random.below(2) as usize;
                let fault = match random.below(4) {
                    0 => Fault::Blocks { end, lasts: random.between(millis(100), millis(2900)) },
                    1 => Fault::Silence { lasts: random.between(millis(500), millis(9000)) },
                    _ => Fault::Stops { end, lasts: random.between(millis(500), millis(25_000)) },
                };
                faults.push((random.between(1, millis(8000)), fault));
            }
            if random.percent(25) {
                let end = random.below(2) as usize;
                faults.push((random.between(1, millis(8000)), Fault::Hangs { end }));
            }
            faults
        },
    },
    Scenario {
        name: "flapping ports",
        conditions: Conditions::draw,
        faults: |random| {
            let mut faults = queue_pairs(random, 2, millis(8000));
            let mut at = 0;
            for _ in 0..4 + random.below(12) {
                at += random.between(millis(1), millis(2000));
                let end = random.below(2) as usize;
                let longest = if random.percent(10) { millis(14_000) } else { millis(1500) };
                faults.push((at, Fault::Port { end, lasts: random.between(millis(1), longest) }));
            }
            if random.percent(10) {
                faults.push((at, Fault::PortForGood { end: random.below(2) as usize }));
            }
            faults
        },
    },
    Scenario {
        name: "both ends fail at once",
        conditions: |random| Conditions { curable: true, ..Conditions::draw(random) },
        faults: |random| {
            let mut faults = Vec::new();
            for _ in 0..3 + random.below(4) {
                let (at, lane) = (random.between(1, millis(6000)), random.next());
                let gap = random.between(1, millis(30));
                let first = random.below(2) as usize;
                faults.push((at, Fault::QueuePair { end: first, lane }));
                faults.push((at + gap - 1, Fault::QueuePair { end: 1 - first, lane }));
            }
            faults
        },
    },
    Scenario {
        name: "short flaps",
        // The fabric that dials has no ports: flaps would use up the attempts of the side that dials.
        conditions: |random| Conditions { curable: true, dials: false, ..Conditions::draw(random) },
        faults: |random| {
            let mut faults = queue_pairs(random, 4, millis(6000));
            for _ in 0..2 {
                let (end, lasts) = (random.below(2) as usize, random.between(1, millis(1200)));
                faults.push((random.between(1, millis(6000)), Fault::Port { end, lasts }));
            }
            let (end, mut at) = (random.below(2) as usize, random.between(1, millis(6000)));
            for _ in 0..random.below(20) {
                at += random.between(10, millis(20));
                let lasts = random.between(10, millis(20));
                faults.push((at, Fault::Port { end, lasts }));
            }
            faults
        },
    },
    Scenario {
        name: "pauses",
        conditions: |random| Conditions { curable: true, ..Conditions::draw(random) },
        faults: |random| {
            let mut faults = queue_pairs(random, 4, millis(6000));
            for _ in 0..2 {
                let (end, lasts) = (random.below(2) as usize, random.between(1, millis(3500)));
                let fault = match random.below(4) {
                    0 => Fault::Silence { lasts },
                    1 => Fault::Blocks { end, lasts: lasts.min(millis(2900)) },
                    _ => Fault::Stops { end, lasts },
                };
                faults.push((random.between(1, millis(6000)), fault));
            }
            faults
        },
    },
    Scenario {
        name: "slow and failing creation",
        conditions: |random| Conditions {
            create: random.between(millis(10), millis(6000)),
            create_fails: random.below(20),
            connect: random.between(millis(10), millis(6000)),
            connect_fails: random.below(50),
            ..Conditions::draw(random)
        },
        faults: |random| queue_pairs(random, 6, millis(8000)),
    },
    Scenario {
        name: "drains that are slow or never come",
        conditions: |random| Conditions {
            drain: random.between(millis(50), millis(2500)),
            never_drains: random.below(30),
            ..Conditions::draw(random)
        },
        faults: |random| queue_pairs(random, 6, millis(6000)),
    },
    Scenario {
        name: "hostile peer",
        conditions: |random| Conditions { hostile: true, ..Conditions::draw(random) },
        faults: |random| {
            let mut faults = queue_pairs(random, 3, millis(6000));
            let end = random.below(2) as usize;
            for _ in 0..=random.below(4) {
                let at = random.between(1, millis(6000));
                let spread = random.between(1, millis(500));
                for _ in 0..1 + random.below(40) {
                    faults.push((at + random.below(spread), Fault::Frame { end }));
                }
            }
            if random.percent(30) {
                let lasts = random.between(1, millis(2900));
                faults.push((random.between(1, millis(6000)), Fault::Blocks { end, lasts }));
            }
            faults
        },
    },
    Scenario {
        name: "peer that rebuilds nothing",
        conditions: |random| Conditions { heals: false, ..Conditions::draw(random) },
        faults: |random| queue_pairs(random, 3, millis(4000)),
    },
    Scenario {
        name: "all of it",
        conditions: |random| Conditions {
            create: random.between(200, millis(4000)),
            create_fails: random.below(5),
            connect: random.between(200, millis(4000)),
            connect_fails: random.below(20),
            drain: random.between(100, millis(2500)),
            never_drains: random.below(8),
            ..Conditions::draw(random)
        },
        faults: |random| {
            let mut faults = queue_pairs(random, 6, millis(10_000));
            for _ in 0..2 + random.below(8) {
                let end = random.below(2) as usize;
                let fault = match random.below(24) {
                    0 => Fault::HostDies { end },
                    1 => Fault::DeviceLost { end },
                    2 => Fault::ChannelCut,
                    3 => Fault::PortForGood { end },
                    4..=6 => Fault::Blocks { end, lasts: random.between(1, millis(2900)) },
                    7..=9 => Fault::Silence { lasts: random.between(1, millis(5000)) },
                    10..=13 => Fault::Stops { end, lasts: random.between(1, millis(8000)) },
                    _ => Fault::Port { end, lasts: random.between(1, millis(3000)) },
                };
                faults.push((random.between(1, millis(10_000)), fault));
            }
            faults
        },
    },
    super::rail_faults::RAILS_THAT_COME_AND_GO,
    super::rail_faults::RAILS_AND_ALL_OF_IT,
    super::rail_faults::RAILS_AND_A_HOSTILE_PEER,
    super::rail_faults::RAILS_AND_SLOW_COMMANDS,
    super::rail_faults::RAILS_AND_A_SPARE,
];

pub(super) fn queue_pairs(random: &mut Random, most: u64, until: u64) -> Vec<(u64, Fault)> {
    let count = 1 + random.below(most);
    let fault = |random: &mut Random| Fault::QueuePair { end: random.below(2) as usize, lane: random.next() };
    (0..count).map(|_| (random.between(1, until), fault(random))).collect()
}

impl Fault {
    fn lasts(self) -> u64 {
        match self {
            Self::Port { lasts, .. }
            | Self::Stops { lasts, .. }
            | Self::Blocks { lasts, .. }
            | Self::Leaves { lasts, .. }
            | Self::Silence { lasts } => lasts,
            _ => 0,
        }
    }
}

impl World {
    /// Puts the faults on the agenda, and transfers around them.
    pub(super) fn prepare(&mut self, faults: Vec<(u64, Fault)>) {
        for (at, fault) in faults {
            self.conditions.last_fault = self.conditions.last_fault.max(at + fault.lasts());
            self.after(at, Event::Fault(fault));
            for _ in 0..self.random.below(8) {
                let end = self.random.below(2) as usize;
                let before = self.random.between(1, millis(100));
                self.after(at.saturating_sub(before), Event::Submit { end });
            }
        }
        self.prepare_rails();
        self.after(self.conditions.last_fault + SETTLED_AFTER, Event::Settled);
    }

    pub(super) fn inject(&mut self, fault: Fault) {
        self.tally.faults += 1;
        match fault {
            Fault::QueuePair { end, lane } => {
                let lane = self.ends[end].lanes.nth(lane);
                let queue_pair = self.ends[end].lanes[lane].queue_pair;
                self.fail(queue_pair, "the device moved it to ERROR");
            }
            Fault::Port { end, lasts } => {
                let rail = self.draw_rail();
                if !self.ends[end].port_is_down(rail) {
                    self.set_device(end, rail, DeviceHealth::PortDown(instant(self.now)));
                    self.after(lasts, Event::PortUp { end, rail, since: self.now });
                }
            }
            Fault::PortForGood { end } => {
                let rail = self.draw_rail();
                self.set_device(end, rail, DeviceHealth::PortDown(instant(self.now)));
            }
            Fault::DeviceLost { end } => {
                let rail = self.draw_rail();
                self.set_device(end, rail, DeviceHealth::Lost("it was removed"));
            }
            Fault::FirstDeviceLost { end } => self.set_device(end, 0, DeviceHealth::Lost("it was removed")),
            Fault::Leaves { end, rail, lasts } => {
                self.report(end, |machine, now| machine.leave_rail(rail, "it is silent", now));
                self.after(lasts, Event::Resume { end, rail });
            }
            Fault::HostDies { end } => self.kill(end),
            Fault::Hangs { end } => self.ends[end].hung = true,
            Fault::Stops { end, lasts } => {
                self.ends[end].stopped_until = self.ends[end].stopped_until.max(self.now + lasts);
            }
            Fault::Blocks { end, lasts } => {
                self.ends[end].blocked_until = self.now + lasts;
                self.after(lasts, Event::Unblocked { end });
            }
            Fault::Silence { lasts } => self.hold_lines(self.now + lasts),
            Fault::ChannelCut => {
                for end in 0..2 {
                    self.hang_up(end);
                    self.after(0, Event::KeepaliveLost { end });
                }
            }
            Fault::Frame { end } => {
                let frame = self.wrong_frame(end);
                self.report(end, |machine, now| machine.frame(frame, now));
                let lanes = self.ends[end].lanes.len();
                // With rails, a question and an answer for each lane, and an answer for each number of a rail.
                let limit = if self.conditions.rails { 7 * lanes + 64 + 16 } else { 2 * lanes + 1 };
                if self.ends[end].machine.backlog() > limit {
                    self.violation(Violation::Unbounded, "a peer makes the machine's memory grow");
                }
            }
        }
    }

    fn wrong_frame(&mut self, end: usize) -> ChannelFrame {
        if self.conditions.rails && self.random.percent(50) {
            return self.wrong_rail_frame();
        }
        let lane = self.random.below(self.ends[end].lanes.len() as u64 + 1) as u32;
        let near = self.random.percent(90);
        let attempt = if near { self.random.below(6) } else { self.random.next() } as u32;
        let record = record(self.random.below(self.queue_pairs.len() as u64) as u32);
        match self.random.below(12) {
            0..=2 => ChannelFrame::Rebuild { lane, attempt, record },
            3..=5 => ChannelFrame::Rebuilt { lane, attempt, record },
            6 | 7 => ChannelFrame::Ready { lane, attempt },
            8 | 9 => ChannelFrame::Broken { lane },
            10 => ChannelFrame::Ping(self.random.next()),
            // One in a hundred: the lane is gone then.
            _ if self.random.percent(10) => ChannelFrame::Refused { lane, attempt },
            _ => ChannelFrame::Pong(0),
        }
    }
}

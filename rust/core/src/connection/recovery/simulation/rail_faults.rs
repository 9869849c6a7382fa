//! The faults of runs with two rails.

use super::agenda::Event;
use super::driver::record;
use super::faults::{Conditions, Fault, Scenario, queue_pairs};
use super::millis;
use super::random::Random;
use super::world::World;
use crate::control::{ChannelFrame, PathAnswer, RailRefusal};

fn conditions(random: &mut Random) -> Conditions {
    Conditions {
        rails: true,
        rail_lanes: 1 + random.below(3) as usize,
        lanes_on_use: random.percent(70),
        destroy: millis(500),
        spare: random.percent(50),
        ..Conditions::draw(random)
    }
}

/// All trouble passes soon enough for every lane to come back.
pub(super) const RAILS_THAT_COME_AND_GO: Scenario = Scenario {
    name: "rails that come and go",
    conditions: |random| Conditions { curable: true, dials: false, ..conditions(random) },
    faults: |random| {
        let mut faults = queue_pairs(random, 6, millis(6000));
        for _ in 0..4 {
            let (end, lasts) = (random.below(2) as usize, random.between(1, millis(1200)));
            faults.push((random.between(1, millis(6000)), Fault::Port { end, lasts }));
        }
        let (end, lasts) = (random.below(2) as usize, random.between(1, millis(2900)));
        faults.push((random.between(1, millis(6000)), Fault::Blocks { end, lasts }));
        leaves(random, &mut faults, 8);
        faults
    },
};

/// Also what does not pass: devices that are lost, hosts that die, drains that never come.
pub(super) const RAILS_AND_ALL_OF_IT: Scenario = Scenario {
    name: "rails and all of it",
    conditions: |random| Conditions {
        create: random.between(200, millis(4000)),
        create_fails: random.below(10),
        connect: random.between(200, millis(4000)),
        connect_fails: random.below(30),
        drain: random.between(100, millis(2500)),
        never_drains: random.below(8),
        ..conditions(random)
    },
    faults: |random| {
        let mut faults = queue_pairs(random, 8, millis(10_000));
        for _ in 0..2 + random.below(8) {
            let end = random.below(2) as usize;
            let fault = match random.below(24) {
                0 => Fault::HostDies { end },
                1..=3 => Fault::DeviceLost { end },
                4 => Fault::ChannelCut,
                5 | 6 => Fault::PortForGood { end },
                7..=9 => Fault::Blocks { end, lasts: random.between(1, millis(2900)) },
                10..=12 => Fault::Silence { lasts: random.between(1, millis(5000)) },
                13..=15 => Fault::Stops { end, lasts: random.between(1, millis(8000)) },
                _ => Fault::Port { end, lasts: random.between(1, millis(14_000)) },
            };
            faults.push((random.between(1, millis(10_000)), fault));
        }
        leaves(random, &mut faults, 6);
        faults
    },
};

pub(super) const RAILS_AND_A_HOSTILE_PEER: Scenario = Scenario {
    name: "rails and a hostile peer",
    conditions: |random| Conditions { hostile: true, ..conditions(random) },
    faults: |random| {
        let mut faults = queue_pairs(random, 3, millis(6000));
        let end = random.below(2) as usize;
        for _ in 0..=random.below(4) {
            let (at, spread) = (random.between(1, millis(6000)), random.between(1, millis(500)));
            for _ in 0..1 + random.below(60) {
                faults.push((at + random.below(spread), Fault::Frame { end }));
            }
        }
        if random.percent(30) {
            let lasts = random.between(1, millis(2900));
            faults.push((random.between(1, millis(6000)), Fault::Blocks { end, lasts }));
        }
        leaves(random, &mut faults, 3);
        faults
    },
};

/// Drains that never come, and commands that destroy what has not drained: they take seconds, and may fail.
pub(super) const RAILS_AND_SLOW_COMMANDS: Scenario = Scenario {
    name: "rails and slow commands",
    conditions: |random| Conditions {
        never_drains: random.below(50),
        resists: random.below(20),
        destroy: random.between(millis(1), millis(9000)),
        destroy_fails: random.below(30),
        ..conditions(random)
    },
    faults: |random| {
        let mut faults = queue_pairs(random, 10, millis(8000));
        for _ in 0..random.below(4) {
            let (end, lasts) = (random.below(2) as usize, random.between(1, millis(5000)));
            let fault = match random.below(6) {
                0 => Fault::DeviceLost { end },
                1 => Fault::Stops { end, lasts },
                2 => Fault::Blocks { end, lasts: lasts.min(millis(2900)) },
                _ => Fault::Port { end, lasts },
            };
            faults.push((random.between(1, millis(8000)), fault));
        }
        leaves(random, &mut faults, 6);
        faults
    },
};

/// The device of the only rail is lost at one end, and both have another NIC. Nothing else fails for good.
pub(super) const RAILS_AND_A_SPARE: Scenario = Scenario {
    name: "rails and a spare",
    conditions: |random| Conditions {
        spare: true,
        adds_rails: random.percent(30),
        outlives: true,
        destroy: random.between(millis(1), millis(9000)),
        ..conditions(random)
    },
    faults: |random| {
        let mut faults = queue_pairs(random, 3, millis(4000));
        let end = random.below(2) as usize;
        faults.push((random.between(1, millis(4000)), Fault::FirstDeviceLost { end }));
        faults
    },
};

/// One end leaves a rail, or both at once.
fn leaves(random: &mut Random, faults: &mut Vec<(u64, Fault)>, most: u64) {
    for _ in 0..random.below(most) {
        let (at, end) = (random.between(1, millis(6000)), random.below(2) as usize);
        let rail = random.below(2) as usize;
        let leaves = |end, lasts| Fault::Leaves { end, rail, lasts };
        faults.push((at, leaves(end, random.between(1, millis(3000)))));
        if random.percent(50) {
            let later = random.between(1, millis(30));
            faults.push((at + later - 1, leaves(1 - end, random.between(1, millis(3000)))));
        }
    }
}

impl World {
    /// The second rail is added at some time, more than once, and by both ends.
    pub(super) fn prepare_rails(&mut self) {
        if !self.conditions.rails || !self.conditions.adds_rails {
            return;
        }
        for end in [0, 0, 1] {
            let at = self.random.between(1, millis(3000));
            self.after(at, Event::AddRail { end });
        }
    }

    pub(super) fn wrong_rail_frame(&mut self) -> ChannelFrame {
        let lane = self.random.below(70) as u32;
        let number = self.random.below(6) as u32;
        let (rail, lanes) = (self.random.below(9) as u8, self.random.below(10) as u8);
        let [own, peer] = [5, 2].map(|nic| nic + self.random.below(2) as u16);
        match self.random.below(13) {
            10 => ChannelFrame::TryPath { rail: rail % 3, number, own, peer, record: record(lane) },
            11 => ChannelFrame::PathTried { rail: rail % 3, number, answer: self.wrong_answer(lane) },
            12 => ChannelFrame::RequestRefused { own, peer, why: RailRefusal::Unknown },
            0 | 1 => ChannelFrame::Quiesce { lane: lane % 12, number },
            2 | 3 => ChannelFrame::Quiesced { lane: lane % 12, number },
            4 => ChannelFrame::Quiesce { lane, number },
            8 | 9 => ChannelFrame::NotNow { lane: lane % 12, attempt: number },
            5 => ChannelFrame::AddRail { rail, own, peer, lanes },
            6 => ChannelFrame::RequestRail { own, peer },
            _ if self.random.percent(50) => ChannelFrame::RailReady { rail },
            _ => ChannelFrame::RailRefused { rail, why: RailRefusal::Unknown },
        }
    }

    fn wrong_answer(&mut self, queue_pair: u32) -> PathAnswer {
        match self.random.below(4) {
            0 => PathAnswer::Ended,
            1 => PathAnswer::Unreached,
            2 => PathAnswer::Refused(RailRefusal::Limited),
            _ => PathAnswer::Ready(record(queue_pair)),
        }
    }
}

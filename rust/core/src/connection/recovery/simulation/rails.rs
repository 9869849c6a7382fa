//! A second rail: it is added, left, and parts move between both.

use super::agenda::Event;
use super::fabric::{Lane, State};
use super::world::World;
use super::{Violation, millis};
use crate::connection::DeviceHealth;
use crate::connection::rail::LANES_PER_RAIL;
use crate::connection::recovery::lane::LaneMachine;
use crate::control::RailRefusal;
use crate::pool::LaneHealth;

/// Which NICs form rail 1, as each end numbers them.
const NICS: [u16; 2] = [2, 5];

/// Time after which a leader tries again to add a rail.
const ADD_AGAIN: u64 = millis(300);

/// How long a transfer may take.
const TIME_LIMIT: u64 = millis(20_000);

impl World {
    /// The rail that a fault of a device concerns.
    pub(super) fn draw_rail(&mut self) -> usize {
        if self.conditions.rails { self.random.below(2) as usize } else { 0 }
    }

    /// The leader adds the second rail, or the follower asks for it.
    pub(super) fn add_rail(&mut self, end: usize) {
        let [own, peer] = if end == 0 { NICS } else { [NICS[1], NICS[0]] };
        let lanes = self.conditions.rail_lanes;
        self.report(end, |machine, now| match end {
            0 => machine.try_rail(1, (own, peer), lanes, now),
            _ => machine.request_rail(own, peer),
        });
    }

    /// The machine opens a rail.
    pub(super) fn open_rail(&mut self, end: usize, rail: usize, lanes: usize) {
        let delay = self.random.between(50, self.conditions.create);
        self.after(delay, Event::RailOpened { end, rail, lanes });
    }

    pub(super) fn rail_opened(&mut self, end: usize, rail: usize, lanes: usize) {
        let result = if rail != 1 {
            Err(RailRefusal::Limited)
        } else if self.random.percent(self.conditions.create_fails) {
            Err(RailRefusal::Unusable)
        } else {
            // Of an earlier attempt they may be there.
            for lane in self.ends[end].lanes.of_rail(1).len()..lanes {
                let queue_pair = self.add_queue_pair(end, LANES_PER_RAIL + lane);
                self.queue_pairs[queue_pair as usize].state = State::Drained;
                let lane = Lane::new(queue_pair, LaneHealth::Drained);
                self.ends[end].lanes.push(1, lane);
            }
            Ok(())
        };
        self.report(end, |machine, now| machine.rail_opened(rail, result, now));
    }

    /// The leader's rail is not made: it tries again, for as long as something happens.
    pub(super) fn rail_refused(&mut self, end: usize) {
        if self.now < self.adds_until() {
            self.after(ADD_AGAIN, Event::AddRail { end });
        } else {
            // Nothing is tried any more: the connection may be lost by that.
            self.after(0, Event::DeviceSays { end });
        }
    }

    fn adds_until(&self) -> u64 {
        self.conditions.last_fault + millis(20_000)
    }

    /// The state of the devices now: an end that was stopped does not see the states between. One that is lost may leave a connection without
    /// a rail, while there is a NIC of which none was made.
    pub(super) fn devices_say(&mut self, end: usize) {
        let rails = if self.conditions.rails { 2 } else { 1 };
        let devices = self.ends[end].devices;
        let is_lost = |health: &DeviceHealth| matches!(health, DeviceHealth::Lost(_));
        if devices.iter().any(is_lost) {
            self.look_for_spare(end);
        }
        for (rail, health) in devices.into_iter().enumerate().take(rails) {
            self.report(end, |machine, now| machine.device(rail, health, now));
        }
        self.add_if_lacking(end);
    }

    pub(super) fn look_for_spare(&mut self, end: usize) {
        let has_spare = self.has_spare(end);
        self.report(end, |machine, now| machine.set_spare(has_spare, now));
    }

    pub(super) fn add_if_lacking(&mut self, end: usize) {
        if self.has_spare(end) && self.ends[end].machine.lacks_rail() {
            self.after(0, Event::AddRail { end });
        }
    }

    fn has_spare(&self, end: usize) -> bool {
        let [_, second] = self.ends[end].devices;
        let is_there = self.conditions.spare && !matches!(second, DeviceHealth::Lost(_));
        is_there && self.ends[end].machine.rails[1].lanes.is_empty() && self.now < self.adds_until()
    }

    /// Parts end by their time limit where nothing else may end them.
    pub(super) fn limit(&mut self, part: Option<u32>) {
        if let Some(part) = part.filter(|_| self.conditions.destroy_fails > 0) {
            self.after(TIME_LIMIT, Event::Cancel { part });
        }
    }

    /// Takes parts from a lane to the other rail.
    pub(super) fn move_parts(&mut self, end: usize, lane: usize, both_ends: bool) {
        let here = self.ends[end].lanes[lane].queue_pair;
        if self.queue_pairs[here as usize].state != State::Drained {
            self.violation(Violation::MovedTooEarly, "parts move before their lane is drained");
        }
        let peer_is_open = self.queue_pairs.iter().any(|pair| {
            pair.end != end && pair.peer == Some(here) && matches!(pair.state, State::Live | State::Error)
        });
        if both_ends && peer_is_open && !self.conditions.hostile {
            self.violation(
                Violation::MovedTooEarly,
                "WRITEs move while the peer's queue pair could let one through",
            );
        }
        let other = 1 - lane / LANES_PER_RAIL;
        let healthy = |(place, lane): (usize, &Lane)| {
            (lane.health == LaneHealth::Healthy).then_some(other * LANES_PER_RAIL + place)
        };
        let targets: Vec<_> =
            self.ends[end].lanes.of_rail(other).iter().enumerate().filter_map(healthy).collect();
        if targets.is_empty() {
            // They wait.
            return;
        }
        let waiting = std::mem::take(&mut self.ends[end].lanes[lane].waiting);
        let (moving, staying) =
            waiting.into_iter().partition(|&part| both_ends || !self.parts[part as usize].writes);
        self.ends[end].lanes[lane].waiting = staying;
        let moving: Vec<u32> = moving;
        for part in moving {
            let target = targets[self.random.below(targets.len() as u64) as usize];
            self.note_use(end, target);
            self.parts[part as usize].lane = target;
            self.tally.moves += 1;
            self.post(part);
        }
    }

    /// A transfer of an end takes this lane.
    pub(super) fn note_use(&mut self, end: usize, lane: usize) {
        let is_new = self.conditions.lanes_on_use && lane >= LANES_PER_RAIL && !self.ends[end].used;
        if is_new {
            self.ends[end].used = true;
            let delay = self.random.between(1, millis(20));
            self.after(delay, Event::Used { end });
        }
    }

    /// Whether a lane waits for its rail to be used.
    pub(super) fn is_unneeded(&self, end: usize, lane: usize) -> bool {
        let rail = &self.ends[end].machine.rails[lane / LANES_PER_RAIL];
        rail.lanes.get(lane % LANES_PER_RAIL).is_some_and(LaneMachine::is_unneeded)
    }

    /// The same, and it may.
    pub(super) fn may_be_unneeded(&self, end: usize, lane: usize) -> bool {
        let [others, of_rail] = [0, 1].map(|rail| self.ends[end].lanes.of_rail(rail));
        let others_work = others.iter().any(|lane| lane.health == LaneHealth::Healthy);
        let has_first = of_rail.first().is_some_and(|lane| lane.health != LaneHealth::Closed);
        self.is_unneeded(end, lane) && !self.ends[end].used && others_work && has_first
    }

    /// Whether both ends of a lane that neither works nor is closed know of each other what they must.
    pub(super) fn agree_about_need(&self, lane: usize) -> bool {
        let [leader, follower] = [0, 1].map(|end| self.is_unneeded(end, lane));
        let may_stay = |end| self.may_rest(end, lane) || self.may_be_unneeded(end, lane);
        (0..2).all(may_stay) && (follower || !leader)
    }

    /// Whether a lane may stay as it is: another rail works, and something keeps this one away for good.
    pub(super) fn may_rest(&self, end: usize, lane: usize) -> bool {
        let other = self.ends[end].lanes.of_rail(1 - lane / LANES_PER_RAIL);
        !self.conditions.curable && other.iter().any(|lane| lane.health == LaneHealth::Healthy)
    }

    /// Whether both ends have this lane.
    pub(super) fn both_have(&self, lane: usize) -> bool {
        let added = |end: &super::world::End| lane < LANES_PER_RAIL || !end.machine.rails[1].lanes.is_empty();
        self.ends.iter().all(added)
    }
}

//! Commands that destroy queue pairs: they take long, and may fail. Until one has ended its device may be at work on the queue pair, and the
//! parts on it are held.

use super::agenda::Event;
use super::fabric::{QueuePair, State};
use super::world::{World, instant};
use super::{Mutation, Violation};
use crate::control::ChannelFrame;
use crate::pool::LaneHealth;

impl World {
    /// The machine wants a queue pair destroyed that does not drain.
    pub(super) fn destroy_undrained(&mut self, end: usize, lane: usize) {
        let place = &self.ends[end].lanes[lane];
        if !place.is_destroying && place.health == LaneHealth::Broken {
            self.begin_destroy(end, lane);
        }
    }

    fn begin_destroy(&mut self, end: usize, lane: usize) {
        self.ends[end].lanes[lane].is_destroying = true;
        let queue_pair = self.ends[end].lanes[lane].queue_pair;
        self.tally.destroys += 1;
        // It may end never, as a drain may, where all of them else end at once.
        let is_endless = self.conditions.destroy == 0 && self.random.percent(self.conditions.never_drains);
        if !is_endless {
            let delay = self.random.between(20, self.conditions.destroy);
            self.after(delay, Event::Destroyed { queue_pair });
        }
        if self.mutation == Mutation::ReleasesEarly {
            self.after(0, Event::SaysDrained { queue_pair });
        }
    }

    /// The command has ended: what was interrupted can go on, if it has done what it was to do.
    pub(super) fn destroyed(&mut self, queue_pair: u32) {
        let QueuePair { end, lane, .. } = self.queue_pairs[queue_pair as usize];
        let fails = self.random.percent(self.conditions.destroy_fails);
        let place = &mut self.ends[end].lanes[lane];
        place.is_destroying = false;
        if !fails && !place.is_doomed {
            self.queue_pairs[queue_pair as usize].state = State::Error;
            return self.drains(queue_pair);
        }
        if fails {
            (self.tally.leaks, self.tally.faults) = (self.tally.leaks + 1, self.tally.faults + 1);
        } else {
            self.destroy(queue_pair);
        }
        self.end_lane(end, lane);
        let is_told = !fails || self.mutation == Mutation::HidesLeaks;
        self.report(end, |machine, now| match is_told {
            true => machine.lane_closed(lane, now),
            false => machine.lane_lingers(lane, now),
        });
    }

    /// A worker has waited for a drain for long enough: the lane ends with its queue pair.
    pub(super) fn give_up_drain(&mut self, end: usize, lane: usize) {
        if self.conditions.destroy == 0 {
            self.close_lane(end, lane);
            return self.report(end, |machine, now| machine.lane_closed(lane, now));
        }
        self.ends[end].lanes[lane].is_doomed = true;
        self.begin_destroy(end, lane);
    }

    /// The machine closes a lane for good.
    pub(super) fn close_for_good(&mut self, end: usize, lane: usize) {
        let place = &self.ends[end].lanes[lane];
        let is_busy = place.health != LaneHealth::Closed && self.may_be_at_work(place.queue_pair);
        if self.conditions.destroy == 0 || !is_busy {
            return self.close_lane(end, lane);
        }
        let place = &mut self.ends[end].lanes[lane];
        (place.health, place.is_doomed) = (LaneHealth::Closed, true);
        let is_destroying = place.is_destroying;
        self.end_waiting(end, lane);
        if !is_destroying {
            self.begin_destroy(end, lane);
        }
        if self.mutation != Mutation::HidesLeaks {
            self.ends[end].machine.lane_lingers(lane, instant(self.now));
        }
    }

    /// A frame that says that nothing arrives on a lane any more is true.
    pub(super) fn check_told(&mut self, end: usize, frame: &ChannelFrame) {
        let (ChannelFrame::Quiesced { lane, .. } | ChannelFrame::Refused { lane, .. }) = *frame else {
            return;
        };
        let lane = lane as usize;
        if self.ends[end].lanes.contains(lane) && self.may_be_at_work(self.ends[end].lanes[lane].queue_pair) {
            self.violation(
                Violation::ToldTooEarly,
                "the peer is told that nothing arrives, and something may",
            );
        }
    }

    /// Whether a lane is closed for good although its device may be at work on it.
    pub(super) fn leaks(&self, end: usize, lane: usize) -> bool {
        let place = &self.ends[end].lanes[lane];
        place.health == LaneHealth::Closed && self.may_be_at_work(place.queue_pair)
    }

    /// Whether a lane may stay as it is where the other end's leaks: its end hears nothing of that, and finds out when it uses the lane.
    pub(super) fn may_stay(&self, end: usize, lane: usize, health: LaneHealth) -> bool {
        match health {
            LaneHealth::Healthy => true,
            LaneHealth::Drained => self.may_rest(end, lane),
            LaneHealth::Broken | LaneHealth::Closed => false,
        }
    }

    fn may_be_at_work(&self, queue_pair: u32) -> bool {
        matches!(self.queue_pairs[queue_pair as usize].state, State::Live | State::Error)
    }
}

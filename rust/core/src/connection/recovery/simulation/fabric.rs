//! Queue pairs, and the parts of transfers that travel on them.

use super::agenda::Event;
use super::world::World;
use super::{Mutation, Violation, millis};
use crate::connection::DeviceHealth;
use crate::connection::rail::LANES_PER_RAIL;
use crate::pool::LaneHealth;

/// A queue pair; its number is its place in the list of all.
#[derive(Debug)]
pub(super) struct QueuePair {
    pub(super) end: usize,
    pub(super) lane: usize,
    /// What it was connected to.
    pub(super) peer: Option<u32>,
    pub(super) state: State,
    /// When everything of it is flushed; never, if that is not known.
    flushed_at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Sends and receives, once it is connected.
    Live,
    /// In ERROR; its requests are being flushed.
    Error,
    /// In ERROR, and everything is flushed.
    Drained,
    /// Destroyed.
    Gone,
}

/// A lane of an end, as its worker has it.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) queue_pair: u32,
    pub(super) health: LaneHealth,
    /// Parts that wait for it, or for its rebuild.
    pub(super) waiting: Vec<u32>,
    /// A command to destroy its queue pair is under way.
    pub(super) is_destroying: bool,
    /// It ends with that.
    pub(super) is_doomed: bool,
}

impl Lane {
    pub(super) fn new(queue_pair: u32, health: LaneHealth) -> Self {
        Self { queue_pair, health, waiting: Vec::new(), is_destroying: false, is_doomed: false }
    }
}

/// A part of a transfer: one request.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) end: usize,
    pub(super) lane: usize,
    /// A WRITE, which changes memory of the peer; else a READ.
    pub(super) writes: bool,
    /// How often it was posted.
    posts: u32,
    state: PartState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PartState {
    Waiting,
    Posted(u32),
    Ended,
}

/// Interruptions that a part survives.
const MAX_INTERRUPTIONS: u32 = 3;

/// How long a packet may be held up, at most.
const HELD_UP: u64 = millis(500);

/// When a worker destroys a queue pair that does not flush.
const DRAIN_LIMIT: u64 = millis(2000);

impl World {
    pub(super) fn add_queue_pair(&mut self, end: usize, lane: usize) -> u32 {
        self.queue_pairs.push(QueuePair { end, lane, peer: None, state: State::Live, flushed_at: u64::MAX });
        self.queue_pairs.len() as u32 - 1
    }

    pub(super) fn destroy(&mut self, queue_pair: u32) {
        self.queue_pairs[queue_pair as usize].state = State::Gone;
    }

    /// Begins a part, and answers its number.
    pub(super) fn submit(&mut self, end: usize, lane: usize) -> Option<u32> {
        if self.ends[end].lanes[lane].health == LaneHealth::Closed {
            return None;
        }
        let part = self.parts.len() as u32;
        let writes = !self.conditions.rails || self.random.percent(50);
        self.parts.push(Part { end, lane, writes, posts: 0, state: PartState::Waiting });
        match self.ends[end].lanes[lane].health {
            LaneHealth::Healthy => self.post(part),
            _ => self.ends[end].lanes[lane].waiting.push(part),
        }
        Some(part)
    }

    pub(super) fn post(&mut self, index: u32) {
        let part = &mut self.parts[index as usize];
        let queue_pair = self.ends[part.end].lanes[part.lane].queue_pair;
        let (ended, posted) = (part.state == PartState::Ended, matches!(part.state, PartState::Posted(_)));
        part.state = PartState::Posted(queue_pair);
        part.posts += 1;
        let post = part.posts;
        if ended {
            self.violation(Violation::AfterItsEnd, "a part is posted after its end");
        }
        if posted {
            self.violation(Violation::AfterItsEnd, "a part is posted twice");
        }
        if post > 1 {
            self.tally.replays += 1;
        }
        let wire = self.wire();
        self.after(wire, Event::Arrives { part: index, post, queue_pair });
    }

    /// A request reaches the other end: carried out there if its queue pair is the one that is meant and works.
    pub(super) fn arrives(&mut self, index: u32, post: u32, queue_pair: u32) {
        let sender = &self.queue_pairs[queue_pair as usize];
        let (from, to, lane) = (sender.end, 1 - sender.end, sender.lane);
        let receiver = sender.peer.map(|peer| &self.queue_pairs[peer as usize]);
        let taken = receiver.is_some_and(|receiver| {
            receiver.end == to && receiver.state == State::Live && receiver.peer == Some(queue_pair)
        });
        let linked = self.ends.iter().all(|end| !end.port_is_down(lane / LANES_PER_RAIL) && !end.dead);
        if !taken || !linked {
            let retries = self.conditions.retries;
            return self.after(retries, Event::Unanswered { queue_pair });
        }
        let part = &self.parts[index as usize];
        let lane = &self.ends[from].lanes[lane];
        // What a part leaves on its way may arrive until its lane is healthy again, and not then.
        let replaced = lane.health == LaneHealth::Healthy && lane.queue_pair != queue_pair;
        // A READ on its way to the peer changes nothing there.
        if (part.posts != post || replaced) && part.writes && !self.conditions.hostile {
            self.violation(Violation::AfterItsEnd, "an old request is carried out after its repetition");
        }
        let wire = self.wire();
        self.after(wire, Event::Completes { part: index, queue_pair });
    }

    /// The time of a packet on the wire. Some packets are delayed.
    fn wire(&mut self) -> u64 {
        if self.random.percent(10) {
            return self.random.below(HELD_UP);
        }
        self.random.between(5, self.conditions.wire)
    }

    /// A request is done, unless its queue pair was flushed before.
    pub(super) fn completes(&mut self, index: u32, queue_pair: u32) {
        let part = &mut self.parts[index as usize];
        if self.queue_pairs[queue_pair as usize].state == State::Live
            && part.state == PartState::Posted(queue_pair)
        {
            part.state = PartState::Ended;
        }
    }

    /// A transfer passes its deadline or is cancelled: what is posted costs the queue pair.
    pub(super) fn cancel(&mut self, index: u32) {
        let Part { end, lane, state, .. } = self.parts[index as usize];
        match state {
            PartState::Ended => {}
            PartState::Waiting => {
                self.parts[index as usize].state = PartState::Ended;
                self.ends[end].lanes[lane].waiting.retain(|&waiting| waiting != index);
            }
            PartState::Posted(queue_pair) => {
                // It ends when that is drained.
                self.cancelled.push(index);
                self.fail(queue_pair, "a transfer was cancelled");
            }
        }
    }

    /// Moves a queue pair to ERROR, and reports it to its machine if it is a lane's.
    pub(super) fn fail(&mut self, queue_pair: u32, reason: &str) {
        let QueuePair { end, lane, state, .. } = self.queue_pairs[queue_pair as usize];
        if state != State::Live || self.ends[end].is_over() {
            return;
        }
        self.break_queue_pair(queue_pair);
        let mine = &self.ends[end].lanes[lane];
        let early = mine.queue_pair == queue_pair && mine.health == LaneHealth::Broken;
        // A driver may also check only after the drain.
        if early && self.ends[end].stopped_until <= self.now && self.random.percent(70) {
            self.report(end, |machine, now| machine.lane_broken(lane, reason, now));
        }
    }

    /// The same without a report.
    pub(super) fn break_queue_pair(&mut self, queue_pair: u32) {
        let pair = &mut self.queue_pairs[queue_pair as usize];
        if pair.state != State::Live {
            return;
        }
        let (end, index) = (pair.end, pair.lane);
        if self.mutation == Mutation::AnswersUnbroken && end == 1 {
            // The lane reports itself drained, and its queue pair continues to work.
            self.ends[end].lanes[index].health = LaneHealth::Drained;
            return self.after(0, Event::SaysDrained { queue_pair });
        }
        let resists = self.random.percent(self.conditions.resists);
        if !resists {
            pair.state = State::Error;
        }
        let lane = &mut self.ends[end].lanes[index];
        if lane.queue_pair != queue_pair || lane.health != LaneHealth::Healthy {
            return;
        }
        lane.health = LaneHealth::Broken;
        if resists {
            // Its device refuses the command: what the peer posts still arrives.
            self.tally.faults += 1;
            return self.after(DRAIN_LIMIT, Event::DrainLimit { queue_pair });
        }
        // A device that is lost may have flushed nothing.
        let is_lost = matches!(self.ends[end].devices[index / LANES_PER_RAIL], DeviceHealth::Lost(_))
            && self.conditions.destroy > 0;
        if self.random.percent(self.conditions.never_drains) || is_lost && self.random.percent(50) {
            self.tally.faults += 1;
        } else {
            let drain = self.random.between(20, self.conditions.drain);
            self.queue_pairs[queue_pair as usize].flushed_at = self.now + drain;
            self.after(drain, Event::Drains { queue_pair });
        }
        self.after(DRAIN_LIMIT, Event::DrainLimit { queue_pair });
        if self.mutation == Mutation::DrainsTooEarly {
            self.after(0, Event::SaysDrained { queue_pair });
        }
    }

    /// Everything of a queue pair is flushed: what was interrupted waits for the rebuild.
    pub(super) fn drains(&mut self, queue_pair: u32) {
        let pair = &mut self.queue_pairs[queue_pair as usize];
        let lane = &self.ends[pair.end].lanes[pair.lane];
        // Completions of one that is being destroyed are not looked at.
        if pair.state != State::Error || lane.queue_pair == queue_pair && lane.is_destroying {
            return;
        }
        pair.state = State::Drained;
        let (end, lane) = (pair.end, pair.lane);
        for index in 0..self.parts.len() {
            if self.parts[index].state != PartState::Posted(queue_pair) {
                continue;
            }
            let number = index as u32;
            let cancelled = self.cancelled.contains(&number);
            let part = &mut self.parts[index];
            if cancelled || part.posts > MAX_INTERRUPTIONS {
                part.state = PartState::Ended;
            } else {
                part.state = PartState::Waiting;
                self.ends[end].lanes[lane].waiting.push(number);
            }
        }
        if self.ends[end].lanes[lane].queue_pair == queue_pair {
            self.ends[end].lanes[lane].health = LaneHealth::Drained;
            self.report(end, |machine, now| machine.lane_drained(lane, "it failed", now));
        }
    }

    /// The worker destroys a queue pair that is not drained in time, and the lane with it.
    pub(super) fn drain_limit(&mut self, queue_pair: u32) {
        let QueuePair { end, lane, state, flushed_at, .. } = self.queue_pairs[queue_pair as usize];
        if flushed_at <= self.now {
            // It looks for completions first, also after it was stopped.
            return self.drains(queue_pair);
        }
        let place = &self.ends[end].lanes[lane];
        let is_late = place.queue_pair == queue_pair && place.health == LaneHealth::Broken;
        if matches!(state, State::Live | State::Error) && is_late && !place.is_destroying {
            self.give_up_drain(end, lane);
        }
    }

    /// Ends everything on a lane.
    pub(super) fn close_lane(&mut self, end: usize, lane: usize) {
        if self.ends[end].lanes[lane].health == LaneHealth::Closed {
            return;
        }
        let queue_pair = self.ends[end].lanes[lane].queue_pair;
        self.destroy(queue_pair);
        self.end_lane(end, lane);
    }

    /// Ends the parts that were never posted.
    pub(super) fn end_waiting(&mut self, end: usize, lane: usize) {
        for part in std::mem::take(&mut self.ends[end].lanes[lane].waiting) {
            self.parts[part as usize].state = PartState::Ended;
        }
    }

    /// Nothing goes on on a lane any more.
    pub(super) fn end_lane(&mut self, end: usize, lane: usize) {
        self.ends[end].lanes[lane].health = LaneHealth::Closed;
        for part in &mut self.parts {
            if part.end == end && part.lane == lane {
                part.state = PartState::Ended;
            }
        }
        self.tally.lanes_closed += 1;
    }

    /// Puts a queue pair in the place of a lane's old one, and posts again what was interrupted.
    pub(super) fn install(&mut self, end: usize, lane: usize, queue_pair: u32) {
        let old = self.ends[end].lanes[lane].queue_pair;
        if !matches!(self.queue_pairs[old as usize].state, State::Drained) {
            self.violation(Violation::NotDrained, "a queue pair is replaced that is not drained");
        }
        let peer = self.queue_pairs[queue_pair as usize].peer;
        if peer.is_none() {
            self.violation(Violation::NotConnected, "a queue pair is used that is not connected");
        }
        let other = &self.ends[1 - end];
        if !other.is_over() && !self.conditions.hostile {
            let theirs = other.lanes[lane].queue_pair;
            let let_go = matches!(self.queue_pairs[theirs as usize].state, State::Drained | State::Gone);
            if peer != Some(theirs) && !let_go {
                self.violation(
                    Violation::NotDrained,
                    "a queue pair is used before the peer's old one is drained",
                );
            }
            let peer = peer.map(|peer| &self.queue_pairs[peer as usize]);
            if peer.is_some_and(|peer| peer.state != State::Gone && peer.peer != Some(queue_pair)) {
                self.violation(
                    Violation::NotConnected,
                    "a queue pair is used that the peer's does not lead to",
                );
            }
        }
        self.destroy(old);
        let place = &mut self.ends[end].lanes[lane];
        place.queue_pair = queue_pair;
        place.health = LaneHealth::Healthy;
        let waiting = std::mem::take(&mut place.waiting);
        self.tally.rebuilds += u64::from(end == 0);
        for part in waiting {
            self.post(part);
        }
    }

    /// Begins a part on each lane, to see that those work which say so.
    pub(super) fn probe(&mut self) {
        for end in 0..2 {
            for lane in self.ends[end].lanes.indices() {
                let is_out =
                    self.conditions.rails && self.ends[end].lanes[lane].health != LaneHealth::Healthy;
                if !self.ends[end].is_over() && !is_out {
                    let part = self.submit(end, lane);
                    self.limit(part);
                }
            }
        }
    }

    /// Parts that have not ended.
    pub(super) fn open_parts(&self) -> usize {
        self.parts
            .iter()
            .filter(|part| part.state != PartState::Ended && !self.ends[part.end].is_over())
            // A hostile peer can keep a WRITE of its own on a lane that rests, until its deadline: by a wrong number.
            .filter(|part| {
                !(self.conditions.hostile && self.conditions.rails && self.may_rest(part.end, part.lane))
            })
            .count()
    }
}

//! Two ends and what is between them, in virtual time.

use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::agenda::{Entry, Event};
use super::driver::Pending;
use super::fabric::{Lane, Part, QueuePair};
use super::faults::{Conditions, Fault};
use super::lanes::Lanes;
use super::random::Random;
use super::trials::TrialPair;
use super::{Mutation, Tally, Violation, millis};
use crate::connection::DeviceHealth;
use crate::connection::recovery::{Machine, RebuildPolicy};
use crate::control::ChannelFrame;
use crate::pool::LaneHealth;

/// Everything. Times are microseconds since the start.
#[derive(Debug)]
pub(super) struct World {
    pub(super) now: u64,
    pub(super) conditions: Conditions,
    pub(super) mutation: Mutation,
    pub(super) random: Random,
    pub(super) tally: Tally,
    /// Number 0 leads.
    pub(super) ends: [End; 2],
    pub(super) queue_pairs: Vec<QueuePair>,
    pub(super) parts: Vec<Part>,
    pub(super) trial_pairs: Vec<TrialPair>,
    /// A request has gone over the path of the second rail.
    pub(super) is_proven: bool,
    /// Parts without a waiting caller.
    pub(super) cancelled: Vec<u32>,
    /// What is on its way to each end.
    lines: [Line; 2],
    agenda: BinaryHeap<Entry>,
    entries: u64,
    /// When a machine last had an action.
    pub(super) last_action: u64,
    /// The log of events, if it is recorded.
    pub(super) log: Option<Vec<String>>,
}

/// One end of the connection.
#[derive(Debug)]
pub(super) struct End {
    pub(super) machine: Machine,
    pub(super) lanes: Lanes,
    pub(super) pending: Vec<Pending>,
    /// One for each rail.
    pub(super) devices: [DeviceHealth; 2],
    /// Its host is down.
    pub(super) dead: bool,
    /// Its process is stopped for good; its device and its kernel continue to work.
    pub(super) hung: bool,
    /// It has lost the connection.
    pub(super) ended: bool,
    /// It has used the second rail.
    pub(super) used: bool,
    /// Its process does not run until then.
    pub(super) stopped_until: u64,
    /// Its socket accepts nothing until then.
    pub(super) blocked_until: u64,
    /// How late its timers are.
    lateness: u64,
}

impl End {
    pub(super) fn port_is_down(&self, rail: usize) -> bool {
        matches!(self.devices[rail], DeviceHealth::PortDown(_))
    }

    pub(super) fn is_over(&self) -> bool {
        self.dead || self.hung || self.ended
    }
}

/// One direction of the control connection: in order, and without loss.
#[derive(Debug, Default)]
struct Line {
    frames: VecDeque<Option<ChannelFrame>>,
    /// When the last of them arrives.
    last: u64,
    /// Nothing arrives before.
    held_until: u64,
    closed: bool,
}

/// More events than a run takes: a run with more does not end.
const MAX_EVENTS: usize = 200_000;

/// Limit of the time from the last fault to the last event.
pub(super) const SETTLED_AFTER: u64 = millis(60_000);

/// How long a host is silent before its peer's kernel closes the socket.
const KEEPALIVE: u64 = millis(10_000);

impl World {
    pub(super) fn new(seed: u64, conditions: Conditions, mutation: Mutation) -> Self {
        let mut random = Random::new(seed);
        let lanes = 1 + random.below(3) as usize;
        let ends = [true, false].map(|leads| End {
            machine: Machine::new(
                RebuildPolicy {
                    leads,
                    heals: conditions.heals,
                    rails: conditions.rails,
                    lanes_on_use: conditions.lanes_on_use,
                },
                lanes,
            ),
            lanes: Lanes::default(),
            pending: Vec::new(),
            devices: [DeviceHealth::Up; 2],
            dead: false,
            hung: false,
            ended: false,
            used: false,
            stopped_until: 0,
            blocked_until: 0,
            lateness: random.below(3) * 500,
        });
        let mut world = Self {
            now: 0,
            conditions,
            mutation,
            random,
            tally: Tally { runs: 1, ..Tally::default() },
            ends,
            queue_pairs: Vec::new(),
            parts: Vec::new(),
            trial_pairs: Vec::new(),
            is_proven: false,
            cancelled: Vec::new(),
            lines: Default::default(),
            agenda: BinaryHeap::new(),
            entries: 0,
            last_action: 0,
            log: None,
        };
        for lane in 0..lanes {
            let pairs = [0, 1].map(|end| world.add_queue_pair(end, lane));
            for end in 0..2 {
                world.queue_pairs[pairs[end] as usize].peer = Some(pairs[1 - end]);
                let lane = Lane::new(pairs[end], LaneHealth::Healthy);
                world.ends[end].lanes.push(0, lane);
            }
        }
        world
    }

    /// Runs until no event is left, and checks the final state.
    pub(super) fn run(&mut self) {
        for _ in 0..MAX_EVENTS {
            let next = self.agenda.peek().map(|entry| entry.at);
            match self.next_deadline() {
                // Lanes that cannot come back may rest and try again for ever.
                Some((at, _))
                    if self.conditions.rails
                        && next.is_none()
                        && at > self.conditions.last_fault + 3 * SETTLED_AFTER =>
                {
                    return self.look_around();
                }
                // What has happened is reported first.
                Some((at, end)) if next.is_none_or(|next| at < next) => {
                    self.now = self.now.max(at);
                    self.expire(end);
                }
                _ => match self.agenda.pop() {
                    Some(entry) => {
                        self.now = self.now.max(entry.at);
                        self.happen(entry.event);
                    }
                    None => return self.look_around(),
                },
            }
        }
        self.violation(Violation::Unsettled, "it does not end");
    }

    /// Puts an event on the agenda.
    pub(super) fn after(&mut self, delay: u64, event: Event) {
        self.entries += 1;
        self.agenda.push(Entry { at: self.now + delay, number: self.entries, event });
    }

    /// Reports an event to the machine of an end, and carries out its actions.
    pub(super) fn report(&mut self, end: usize, report: impl FnOnce(&mut Machine, Instant)) {
        if self.ends[end].is_over() {
            return;
        }
        report(&mut self.ends[end].machine, instant(self.now));
        self.carry_out(end);
    }

    pub(super) fn violation(&mut self, violation: Violation, what: &'static str) {
        self.note(|| format!("VIOLATION: {what}"));
        self.tally.violations.push((violation, what));
    }

    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(format!("{:>12} us  {}", self.now, what()));
        }
    }

    /// Sends a frame to the other end.
    pub(super) fn transmit(&mut self, from: usize, frame: ChannelFrame) {
        self.put_on_line(from, Some(frame));
    }

    /// Closes the socket: the other end sees it after the last frame.
    pub(super) fn hang_up(&mut self, from: usize) {
        self.put_on_line(from, None);
        self.lines[1 - from].closed = true;
        // Frames on their way to this end are not read any more.
        self.lines[from].closed = true;
    }

    fn put_on_line(&mut self, from: usize, item: Option<ChannelFrame>) {
        let to = 1 - from;
        if self.lines[to].closed || self.ends[from].dead {
            return;
        }
        let delay = self.random.between(50, self.conditions.channel);
        let line = &mut self.lines[to];
        line.last = (self.now + delay).max(line.last).max(line.held_until);
        line.frames.push_back(item);
        let delay = line.last - self.now;
        self.after(delay, Event::Delivery { end: to });
    }

    /// Nothing reaches either end until then.
    pub(super) fn hold_lines(&mut self, until: u64) {
        for line in &mut self.lines {
            line.held_until = line.held_until.max(until);
        }
    }

    fn next_deadline(&self) -> Option<(u64, usize)> {
        if self.mutation == Mutation::NeverTimesOut {
            return None;
        }
        let deadline = |index: usize| {
            let end = &self.ends[index];
            if end.is_over() {
                return None;
            }
            let at = end.machine.deadline()?.saturating_duration_since(start()).as_micros() as u64;
            Some(((at + end.lateness).max(end.stopped_until), index))
        };
        match (deadline(0), deadline(1)) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    fn expire(&mut self, end: usize) {
        self.note(|| format!("end {end}: its time has come"));
        self.report(end, Machine::timeout);
        let now = instant(self.now);
        if self.ends[end].machine.deadline().is_some_and(|deadline| deadline <= now) {
            self.violation(Violation::Unsettled, "a deadline lies in the past");
        }
    }

    fn happen(&mut self, event: Event) {
        if let Some(end) = self.process_of(event) {
            if self.ends[end].is_over() {
                return;
            }
            if self.ends[end].stopped_until > self.now {
                let delay = self.ends[end].stopped_until - self.now + self.hesitation(event);
                return self.after(delay, event);
            }
        }
        self.note(|| format!("{event:?}"));
        match event {
            Event::Fault(fault) => self.inject(fault),
            Event::Submit { end } => {
                let lane = self.pick_lane(end);
                self.note_use(end, lane);
                let part = self.submit(end, lane);
                self.limit(part);
                if let Some(part) = part.filter(|_| self.random.percent(20)) {
                    let delay = self.random.between(50, millis(20_000));
                    self.after(delay, Event::Cancel { part });
                    self.conditions.last_fault = self.conditions.last_fault.max(self.now + delay);
                }
            }
            Event::Cancel { part } => self.cancel(part),
            Event::Delivery { end } => self.deliver(end),
            Event::KeepaliveLost { end } => {
                self.report(end, |machine, _| machine.channel_lost(&io::ErrorKind::TimedOut.into()));
            }
            Event::Unblocked { end } => self.carry_out(end),
            Event::PortUp { end, rail, since } => {
                if self.ends[end].devices[rail] == DeviceHealth::PortDown(instant(since)) {
                    self.set_device(end, rail, DeviceHealth::Up);
                }
            }
            Event::AddRail { end } => self.add_rail(end),
            Event::Used { end } => self.report(end, |machine, now| machine.rail_is_used(1, now)),
            Event::RailOpened { end, rail, lanes } => self.rail_opened(end, rail, lanes),
            Event::TrialCreated { end, pair } => self.trial_created(end, pair),
            Event::TrialWritten { end, pair } => self.trial_written(end, pair),
            Event::Resume { end, rail } => self.report(end, |machine, now| machine.resume_rail(rail, now)),
            Event::DeviceSays { end } => self.devices_say(end),
            Event::Settled => self.settled(),
            Event::Arrives { part, post, queue_pair } => self.arrives(part, post, queue_pair),
            Event::Completes { part, queue_pair } => self.completes(part, queue_pair),
            Event::Unanswered { queue_pair } => self.fail(queue_pair, "retries exceeded"),
            Event::Drains { queue_pair } => self.drains(queue_pair),
            Event::SaysDrained { queue_pair } => {
                let QueuePair { end, lane, .. } = self.queue_pairs[queue_pair as usize];
                self.report(end, |machine, now| machine.lane_drained(lane, "it failed", now));
            }
            Event::DrainLimit { queue_pair } => self.drain_limit(queue_pair),
            Event::Destroyed { queue_pair } => self.destroyed(queue_pair),
            Event::Created { end, lane, attempt } => self.created(end, lane, attempt),
            Event::Connected { end, lane, attempt } => self.connected(end, lane, attempt),
            Event::Install { end, lane, attempt } => self.take_up(end, lane, attempt),
            Event::DiscardLate { end, lane, attempt } => self.discard(end, lane, attempt),
        }
    }

    /// The delay until an event is noticed after its process was stopped. The driver reads the socket and the device
    /// first, and a worker polls completions before it checks the clock.
    fn hesitation(&mut self, event: Event) -> u64 {
        match event {
            Event::Completes { .. }
            | Event::Unanswered { .. }
            | Event::Drains { .. }
            | Event::Destroyed { .. }
            | Event::Created { .. }
            | Event::Connected { .. } => self.random.between(1, millis(20)),
            Event::DrainLimit { .. } => millis(20),
            _ => 0,
        }
    }

    /// The end that has to run for an event to matter.
    fn process_of(&self, event: Event) -> Option<usize> {
        match event {
            Event::Submit { end }
            | Event::Delivery { end }
            | Event::KeepaliveLost { end }
            | Event::Unblocked { end }
            | Event::DeviceSays { end }
            | Event::Fault(Fault::Frame { end } | Fault::Leaves { end, .. })
            | Event::AddRail { end }
            | Event::Used { end }
            | Event::RailOpened { end, .. }
            | Event::TrialCreated { end, .. }
            | Event::TrialWritten { end, .. }
            | Event::Resume { end, .. }
            | Event::Created { end, .. }
            | Event::Connected { end, .. } => Some(end),
            Event::Completes { queue_pair, .. }
            | Event::Unanswered { queue_pair }
            | Event::Drains { queue_pair }
            | Event::Destroyed { queue_pair }
            | Event::SaysDrained { queue_pair }
            | Event::DrainLimit { queue_pair } => Some(self.queue_pairs[queue_pair as usize].end),
            Event::Cancel { part } => Some(self.parts[part as usize].end),
            Event::Fault(_)
            | Event::Settled
            | Event::PortUp { .. }
            | Event::Arrives { .. }
            | Event::DiscardLate { .. }
            | Event::Install { .. } => None,
        }
    }

    /// The lane of a transfer: of all, or with two rails one that works, if there is one.
    fn pick_lane(&mut self, end: usize) -> usize {
        let lanes = &self.ends[end].lanes;
        let healthy: Vec<_> =
            lanes.indices().filter(|&lane| lanes[lane].health == LaneHealth::Healthy).collect();
        if !self.conditions.rails || healthy.is_empty() {
            let first = lanes.of_rail(0).len() as u64;
            return self.random.below(first) as usize;
        }
        healthy[self.random.below(healthy.len() as u64) as usize]
    }

    fn deliver(&mut self, end: usize) {
        match self.lines[end].frames.pop_front() {
            Some(Some(frame)) => self.receive(end, frame),
            Some(None) => {
                self.report(end, |machine, _| machine.channel_lost(&io::ErrorKind::UnexpectedEof.into()));
            }
            None => {}
        }
    }

    pub(super) fn set_device(&mut self, end: usize, rail: usize, health: DeviceHealth) {
        if !matches!(self.ends[end].devices[rail], DeviceHealth::Lost(_)) {
            self.ends[end].devices[rail] = health;
            self.after(0, Event::DeviceSays { end });
        }
    }

    /// Takes the host of an end down. The other end notices nothing until its own kernel closes the socket.
    pub(super) fn kill(&mut self, end: usize) {
        self.ends[end].dead = true;
        self.lines[end].closed = true;
        self.after(KEEPALIVE, Event::KeepaliveLost { end: 1 - end });
    }

    /// Checks that nothing is under way, and that healthy lanes work.
    fn settled(&mut self) {
        let due = self.conditions.last_fault + SETTLED_AFTER;
        if self.now < due {
            // A transfer was cancelled meanwhile.
            return self.after(due - self.now, Event::Settled);
        }
        self.tally.settled_after = self.last_action.saturating_sub(self.conditions.last_fault);
        self.look_around();
        self.last_action = 0;
        self.probe();
    }

    fn look_around(&mut self) {
        for end in 0..2 {
            if self.ends[end].is_over() {
                continue;
            }
            let unsettled = |lane: usize| {
                let health = self.ends[end].lanes[lane].health;
                let is_unsettled = matches!(health, LaneHealth::Broken | LaneHealth::Drained)
                    && !self.may_be_unneeded(end, lane);
                is_unsettled && self.both_have(lane) && !(self.conditions.rails && self.may_rest(end, lane))
            };
            if self.ends[end].lanes.indices().any(unsettled) {
                self.violation(Violation::Unsettled, "a lane is neither healthy nor closed");
            }
            if self.ends[end].machine.backlog() > 0 {
                self.violation(Violation::Unsettled, "actions are left");
            }
            let left = |pending: &Pending| {
                self.ends[end].lanes[pending.lane].health != LaneHealth::Drained
                    || !self.may_rest(end, pending.lane)
            };
            if self.ends[end].pending.iter().any(left) {
                self.violation(Violation::Leak, "a queue pair is left that is no lane's");
            }
        }
        if self.trial_pairs.iter().any(|pair| pair.is_there() && !self.ends[pair.end].is_over()) {
            self.violation(Violation::Leak, "the queue pair of a trial is left");
        }
        if self.open_parts() > 0 {
            self.violation(Violation::Unsettled, "a part has no end");
        }
        if !self.conditions.agrees() || self.ends.iter().any(|end| end.hung) {
            return;
        }
        let may_go_on = self.conditions.rails && !self.conditions.curable;
        if !may_go_on && self.last_action > self.conditions.last_fault + SETTLED_AFTER {
            self.violation(Violation::Disagree, "a lane that was healthy does not work");
        }
        if self.conditions.curable && self.tally.lanes_closed > 0 {
            self.violation(Violation::GivenUp, "a lane is closed that could have come back");
        }
        if self.conditions.outlives && self.tally.connections_lost > 0 {
            self.violation(Violation::GivenUp, "the connection is lost although another rail can be made");
        }
        if self.ends[0].is_over() != self.ends[1].is_over() {
            return self.violation(Violation::Disagree, "only one end has lost the connection");
        }
        let alive = !self.ends[0].is_over();
        let shared = |lane: &usize| self.ends[1].lanes.contains(*lane) && self.both_have(*lane);
        if alive && !self.ends[0].lanes.indices().filter(shared).all(|lane| self.agree_about(lane)) {
            self.violation(Violation::Disagree, "the ends of a lane are not each other's");
        }
    }
}

/// The machine's time.
pub(super) fn instant(at: u64) -> Instant {
    start() + Duration::from_micros(at)
}

fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

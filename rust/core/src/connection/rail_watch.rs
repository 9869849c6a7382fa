//! The look at the rails of a connection: what its task learns of them, and what is to be done.

use std::sync::Arc;

use super::nic_flow::{NicFlow, known_speed};
pub(super) use super::rail_loads::RailLoads;
use crate::events::LookRound;
use crate::rails::{
    MAX_RAILS, MILLISECOND, PathLatency, PauseReason, RailAction, RailCounts, RailLimits, RailMachine,
    RailSet, RailState, RailTable, RateMeter,
};

/// The rails of one connection, as its task watches them: states, rates, latencies. Without a clock, a socket or a lane: times are
/// arguments, in nanoseconds of the pool's clock; what is to be done is returned by [`RailWatch::next_action`], which is asked after each
/// event. What submitters need goes to [`RailLoads`] at once.
///
/// As long as there is one rail nothing is looked at, nothing is to be done, and what happens to it is only remembered: its recovery
/// does as on a connection that has no rails.
#[derive(Debug)]
pub(super) struct RailWatch {
    limits: RailLimits,
    table: RailTable,
    rails: [Option<WatchedRail>; MAX_RAILS],
    /// Those of them that are made.
    made: RailSet,
    /// Of the first rail before it is watched, which is with the second one: what was heard of its ports and devices.
    heard_before: Heard,
    loads: Arc<RailLoads>,
    /// The time of the last event.
    now: u64,
    /// When short transfers are to be planned again.
    plan_again_at: u64,
    rest: Rest,
    /// Completions of all rails at the last look.
    completions: u64,
    /// Paused rails of a connection with nothing under way are asked this long apart, and not before that time.
    idle_pause: u64,
    idle_until: u64,
}

#[derive(Debug)]
struct WatchedRail {
    meter: RateMeter,
    latency: PathLatency,
    /// Number and time of the last probe.
    asked: Option<(u32, u64)>,
    /// When its latency is measured again if it has nothing to do.
    measure_at: u64,
    /// Of the only rail: what was heard of its ports and devices.
    heard: Heard,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Heard {
    #[default]
    Nothing,
    PortDown,
    DeviceLost,
}

impl Heard {
    /// What holds after `next`: a device that is lost stays so.
    fn then(self, next: Self) -> Self {
        if self == Self::DeviceLost { self } else { next }
    }
}

/// Whether the task looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// Something is under way.
    Looking,
    /// Nothing was, and submitters were told to wake the task. What they began meanwhile is seen by one look at this time.
    LastLook { at: u64 },
    /// Until a submitter wakes it.
    Resting,
}

/// The pauses of rails of an idle connection: none of them is missed, and to ask costs the task a turn.
const FIRST_IDLE_PAUSE: u64 = 8 * MILLISECOND;
const LONGEST_IDLE_PAUSE: u64 = 1_000 * MILLISECOND;

/// Short transfers of a buffer are planned once in so many looks: a plan takes as long as some of them, and loads change less than
/// they are looked at.
const PLAN_AGAIN_LOOKS: u64 = 4;

/// As long as a rate is remembered without another measurement.
const MEASURE_EVERY: u64 = 100 * MILLISECOND;

impl RailWatch {
    /// No rails yet.
    pub(super) fn new(limits: RailLimits, loads: Arc<RailLoads>) -> Self {
        Self {
            limits,
            table: RailTable::new(limits),
            rails: [const { None }; MAX_RAILS],
            made: RailSet::default(),
            heard_before: Heard::Nothing,
            loads,
            now: 0,
            plan_again_at: 0,
            rest: Rest::Resting,
            completions: 0,
            idle_pause: 0,
            idle_until: 0,
        }
    }

    /// A rail was made and is up: its lanes are connected. `speed` is that of the slower of its ports, in bytes per second, 0 if they do not
    /// say; `nic` is the flow of that of this host. False, and nothing is done, if there is such a rail already.
    pub(super) fn rail_added(&mut self, rail: usize, speed: u64, nic: Arc<NicFlow>, now: u64) -> bool {
        self.now = now;
        if !self.table.add(rail, now) {
            return false;
        }
        let was_alone = self.made().0.count_ones() == 1;
        let added = WatchedRail {
            meter: RateMeter::new(known_speed(speed)),
            latency: PathLatency::default(),
            asked: None,
            measure_at: now.saturating_add(MEASURE_EVERY),
            heard: if rail == 0 { self.heard_before } else { Heard::Nothing },
        };
        if let Some(place) = self.rails.get_mut(rail) {
            *place = Some(added);
        }
        self.made = self.made.with(rail);
        self.loads.add(rail, nic);
        if self.is_alone() {
            self.publish_rail(rail);
            self.publish_up();
            return true;
        }
        if was_alone {
            self.begin_looks(now);
        }
        // The path of each rail is asked some times, each behind the answer before.
        for (rail, watched) in self.rails.iter().enumerate() {
            if watched.as_ref().is_some_and(|watched| watched.latency.nanos() == 0)
                && let Some(machine) = self.table.get_mut(rail)
            {
                machine.measure();
            }
        }
        self.publish_rail(rail);
        self.publish_up();
        true
    }

    /// A lane of a rail has failed, by neither this end nor a refused request. Ignored where no other rail is up: then the lane is
    /// recovered, and the rail stays.
    pub(super) fn lane_failed(&mut self, rail: usize, now: u64) {
        self.now = now;
        let others = RailSet(self.table.up().0 & !RailSet::default().with(rail).0);
        if others.0 != 0
            && let Some(machine) = self.table.get_mut(rail)
        {
            machine.failed(now);
        }
        self.publish_up();
    }

    /// A lane of a rail of which a failure was told was broken by a request that an end has refused: its path works. Where the rail is
    /// paused for that already, it stays so.
    pub(super) fn lane_was_refused(&mut self, rail: usize) {
        self.table.get_mut(rail).into_iter().for_each(RailMachine::not_failed);
    }

    /// The port at one end of a rail went down.
    pub(super) fn port_down(&mut self, rail: usize, now: u64) {
        self.hear(rail, Heard::PortDown, now);
    }

    /// The ports at both ends of a rail are up.
    pub(super) fn port_up(&mut self, rail: usize, now: u64) {
        // It is asked soon, also on an idle connection.
        (self.idle_pause, self.idle_until) = (0, 0);
        self.hear(rail, Heard::Nothing, now);
    }

    /// The device at one end of a rail is lost, for good.
    pub(super) fn device_lost(&mut self, rail: usize, now: u64) {
        self.hear(rail, Heard::DeviceLost, now);
    }

    /// The probe of a rail with this number was answered.
    pub(super) fn probe_answered(&mut self, rail: usize, number: u32, now: u64) {
        self.now = now;
        let Some(watched) = self.rails.get_mut(rail).and_then(Option::as_mut) else { return };
        if let Some((asked, at)) = watched.asked
            && asked == number
        {
            watched.asked = None;
            watched.latency.answered(now.saturating_sub(at));
        }
        let is_sure = watched.latency.is_sure();
        if let Some(machine) = self.table.get_mut(rail) {
            machine.answered(number, now);
            if !is_sure {
                machine.measure();
            }
        }
        self.publish_rail(rail);
    }

    /// There is no queue pair of the rail for its last probe.
    pub(super) fn has_no_lane(&mut self, rail: usize, now: u64) {
        self.now = now;
        self.table.get_mut(rail).into_iter().for_each(|machine| machine.has_no_lane(now));
    }

    /// A queue pair of the rail is in working order. Of interest only to one that waits for it.
    pub(super) fn has_lane(&mut self, rail: usize, now: u64) {
        self.now = now;
        self.table.get_mut(rail).into_iter().for_each(|machine| machine.has_lane(now));
    }

    /// [`RailAction::Rebuild`] with this number has ended.
    pub(super) fn rebuilt(&mut self, rail: usize, number: u32, is_rebuilt: bool, now: u64) {
        self.now = now;
        let was_up = self.table.up().has(rail);
        if let Some(machine) = self.table.get_mut(rail) {
            machine.rebuilt(number, is_rebuilt, now);
        }
        if !was_up && self.table.up().has(rail) {
            if let Some(watched) = self.rails.get_mut(rail).and_then(Option::as_mut) {
                // What was measured is from before its failure.
                watched.meter.forget();
                watched.latency.begin_anew();
            }
            self.table.get_mut(rail).into_iter().for_each(RailMachine::measure);
            self.publish_rail(rail);
        }
        self.publish_up();
    }

    /// Looks at the counters of all rails, `counts` has those of rail `n` at `n`, and handles what is due.
    pub(super) fn look(&mut self, now: u64, counts: &[RailCounts; MAX_RAILS]) {
        self.now = now;
        if self.is_alone() {
            return;
        }
        for rail in (0..MAX_RAILS).filter(|rail| self.made.has(*rail)) {
            let (Some(Some(watched)), Some(counts)) = (self.rails.get_mut(rail), counts.get(rail)) else {
                continue;
            };
            watched.meter.look(now, *counts);
            self.loads.set(rail, watched.meter.rate(), watched.latency.nanos());
            self.loads.set_looked(rail, counts.bytes_in_flight);
        }
        self.table.look(now, counts);
        self.measure_idle(now, counts);
        self.publish_up();
        if now >= self.plan_again_at {
            self.plan_again_at = now.saturating_add(PLAN_AGAIN_LOOKS * self.limits.look_interval());
            self.loads.next_epoch();
        }
        // Requests of rails that are not up are probes that may never be answered.
        let under_way = counts.iter().enumerate().any(|(rail, counts)| {
            counts.bytes_in_flight > 0 || counts.in_flight > 0 && self.table.up().has(rail)
        });
        // Short transfers have ended when the task looks: where it went to rest then, the next one would have to wake it.
        let completions = counts.iter().fold(0, |sum: u64, counts| sum.wrapping_add(counts.completions));
        let progressed = std::mem::replace(&mut self.completions, completions) != completions;
        self.rest_after(now, under_way || progressed);
    }

    /// When [`RailWatch::look`] is due, where looks are in this round now; `None` if nothing is under way and no rail is paused.
    pub(super) fn deadline(&self, round: LookRound) -> Option<u64> {
        if self.is_alone() {
            return None;
        }
        let machines = self.table.deadline();
        match self.rest {
            Rest::Looking => {
                let next = round.after(self.limits.look_interval());
                Some(machines.map_or(next, |at| round.not_before(at).min(next)))
            }
            Rest::LastLook { at } => Some(round.not_before(machines.map_or(at, |machines| machines.min(at)))),
            Rest::Resting => machines.map(|at| round.not_before(at.max(self.idle_until))),
        }
    }

    /// Whether a submitter has woken the task for a look.
    pub(super) fn is_woken(&self) -> bool {
        !self.is_alone() && self.rest != Rest::Looking && !self.loads.is_at_rest()
    }

    /// The next thing to do, and for which rail. `Move` also comes where no other rail is up: then parts stay until one is.
    pub(super) fn next_action(&mut self) -> Option<(usize, RailAction)> {
        if self.is_alone() {
            return None;
        }
        let (rail, action) = self.table.next_action()?;
        if let RailAction::Probe(number) = action
            && let Some(watched) = self.rails.get_mut(rail).and_then(Option::as_mut)
        {
            watched.asked = Some((number, self.now));
        }
        Some((rail, action))
    }

    /// Those that are made.
    pub(super) fn made(&self) -> RailSet {
        self.made
    }

    /// Whether all that are made are up, and are several.
    pub(super) fn are_up(&self) -> bool {
        let made = self.made();
        made.0.count_ones() > 1
            && (0..MAX_RAILS).all(|rail| !made.has(rail) || self.state(rail) == Some(RailState::Up))
    }

    /// The state of a rail; `None` if it is not made.
    pub(super) fn state(&self, rail: usize) -> Option<RailState> {
        match self.watched(rail)?.heard {
            Heard::Nothing => self.table.get(rail).map(RailMachine::state),
            Heard::PortDown | Heard::DeviceLost => Some(RailState::Down),
        }
    }

    /// Why a rail was paused or went down last.
    pub(super) fn reason(&self, rail: usize) -> Option<PauseReason> {
        self.table.get(rail)?.reason()
    }

    /// The rate of a rail in bytes per second; 0 if it is not made.
    pub(super) fn rate(&self, rail: usize) -> u64 {
        self.watched(rail).map_or(0, |watched| watched.meter.rate())
    }

    /// The latency of a rail in nanoseconds; 0 before it is known.
    pub(super) fn latency(&self, rail: usize) -> u64 {
        self.watched(rail).map_or(0, |watched| watched.latency.nanos())
    }

    fn watched(&self, rail: usize) -> Option<&WatchedRail> {
        self.rails.get(rail)?.as_ref()
    }

    fn is_alone(&self) -> bool {
        self.made().0.count_ones() < 2
    }

    fn hear(&mut self, rail: usize, heard: Heard, now: u64) {
        self.now = now;
        let is_alone = self.is_alone();
        match self.rails.get_mut(rail) {
            Some(Some(watched)) if is_alone => watched.heard = watched.heard.then(heard),
            Some(None) if rail == 0 => self.heard_before = self.heard_before.then(heard),
            _ => self.tell(rail, heard, now),
        }
        self.publish_up();
    }

    fn tell(&mut self, rail: usize, heard: Heard, now: u64) {
        let Some(machine) = self.table.get_mut(rail) else { return };
        match heard {
            Heard::Nothing => machine.port_up(now),
            Heard::PortDown => machine.port_down(),
            Heard::DeviceLost => machine.device_lost(),
        }
    }

    /// There is a second rail: what was heard of the first one counts from now on, and both are looked at once.
    fn begin_looks(&mut self, now: u64) {
        for rail in 0..MAX_RAILS {
            let heard = self.rails.get_mut(rail).and_then(Option::as_mut);
            let heard = heard.map_or(Heard::Nothing, |watched| std::mem::take(&mut watched.heard));
            if heard != Heard::Nothing {
                self.tell(rail, heard, now);
            }
        }
        self.loads.set_at_rest(true);
        self.rest = Rest::LastLook { at: now };
    }

    /// A rail that gets nothing because its path was long once is asked now and then, while something is under way on others, or was begun:
    /// short transfers have ended when the task looks.
    fn measure_idle(&mut self, now: u64, counts: &[RailCounts; MAX_RAILS]) {
        if self.loads.is_at_rest() && counts.iter().all(|counts| counts.in_flight == 0) {
            return;
        }
        let is_idle = |rail: &usize| counts.get(*rail).is_some_and(|counts| counts.in_flight == 0);
        for rail in (0..MAX_RAILS).filter(|rail| self.made.has(*rail)).filter(is_idle) {
            let Some(Some(watched)) = self.rails.get_mut(rail) else { continue };
            if now >= watched.measure_at
                && let Some(machine) = self.table.get_mut(rail)
            {
                watched.measure_at = now.saturating_add(MEASURE_EVERY);
                machine.measure();
            }
        }
    }

    fn rest_after(&mut self, now: u64, under_way: bool) {
        if under_way {
            self.rest = Rest::Looking;
            self.loads.set_at_rest(false);
            (self.idle_pause, self.idle_until) = (0, 0);
        } else if !self.loads.is_at_rest() {
            self.loads.set_at_rest(true);
            self.rest = Rest::LastLook { at: now.saturating_add(self.limits.look_interval()) };
        } else if matches!(self.rest, Rest::LastLook { at } if now >= at) {
            self.rest = Rest::Resting;
        } else if self.rest == Rest::Resting {
            self.idle_pause = (2 * self.idle_pause).clamp(FIRST_IDLE_PAUSE, LONGEST_IDLE_PAUSE);
            self.idle_until = now.saturating_add(self.idle_pause);
        }
    }

    fn publish_rail(&self, rail: usize) {
        self.loads.set(rail, self.rate(rail), self.latency(rail));
    }

    fn publish_up(&self) {
        let is_up = |rail: usize| match self.made.has(rail) {
            true => self.state(rail) == Some(RailState::Up),
            // The first rail is there before it is watched.
            false => rail == 0 && self.heard_before == Heard::Nothing,
        };
        let up = (0..MAX_RAILS).filter(|rail| is_up(*rail));
        self.loads.set_up(up.fold(RailSet::default(), RailSet::with));
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
#[path = "rail_watch_tests.rs"]
#[allow(clippy::indexing_slicing, reason = "a panic is how a test fails")]
mod tests;

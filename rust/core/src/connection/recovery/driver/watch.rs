//! The look at the connection's rails, and what it leads to, as part of the task of a connection.

use std::time::{Duration, Instant};

use super::lane_failures::LaneFailures;
use super::probes::Probes;
use super::waiting::WaitingLanes;
use super::{Connection, Driver, Need, Observation};
use crate::connection::DeviceHealth;
use crate::connection::rail::LANES_PER_RAIL;
use crate::connection::rail_need::Trouble;
use crate::events::with_upgraded;
use crate::pool::{LaneHealth, ProbeError, clock};
use crate::rails::{MAX_RAILS, MILLISECOND, PauseReason, RailAction, RailCounts, RailSet, RailState};

/// What the task remembers of rails between two turns.
#[derive(Debug, Default)]
pub(super) struct WatchedRails {
    devices: [Option<DeviceHealth>; MAX_RAILS],
    pub(super) failures: LaneFailures,
    probes: Probes,
    /// The number of a rebuild that has not ended, and when it is given up.
    rebuilds: [Option<(u32, u64)>; MAX_RAILS],
    /// As operators were told.
    told: [Option<RailState>; MAX_RAILS],
    /// When the rails are looked at next.
    look_at: Option<u64>,
    /// When rates and latencies are told next.
    tell_at: u64,
    waiting: WaitingLanes,
    /// The rails that have carried something from here.
    used: RailSet,
    /// The rails of which the device is lost, a bit each.
    pub(super) lost: u64,
}

/// How often operators are told rates and latencies.
const TELL_EVERY: u64 = 20 * MILLISECOND;

impl WatchedRails {
    fn set_rebuild(&mut self, rail: usize, rebuild: Option<(u32, u64)>) {
        if let Some(place) = self.rebuilds.get_mut(rail) {
            *place = rebuild;
        }
    }
}

/// How long the lanes of a rail may take to be rebuilt before it is paused again.
const REBUILD_LIMIT: u64 = 3_000 * MILLISECOND;

impl Driver {
    /// When the rails are to be looked at.
    pub(super) fn look_deadline(&mut self) -> Option<Instant> {
        self.rails.look_at = self.watch.deadline(self.handle.look_round());
        self.rails.look_at.map(instant)
    }

    /// When something else is to be done about them.
    pub(super) fn rails_deadline(&self) -> Option<Instant> {
        let rebuilds = self.rails.rebuilds.iter().flatten().map(|(_, until)| *until);
        rebuilds.chain(self.need.deadline()).min().map(instant)
    }

    /// Reports what was seen of a lane or a device to the watch. False if it is no news: a device that is up, as it was.
    pub(super) fn watch_observation(&mut self, seen: &Observation) -> bool {
        let now = clock::now_ns();
        match *seen {
            Observation::Device { rail, health } => {
                let Some(place) = self.rails.devices.get_mut(rail) else { return true };
                let known = place.replace(health);
                let before = known.unwrap_or(DeviceHealth::Up);
                match (before, health) {
                    (DeviceHealth::Up, DeviceHealth::Up) => {}
                    (_, DeviceHealth::Up) => self.watch.port_up(rail, now),
                    (DeviceHealth::Up, DeviceHealth::PortDown(_)) => self.watch.port_down(rail, now),
                    (_, DeviceHealth::PortDown(_)) => {}
                    (_, DeviceHealth::Lost(_)) => self.watch.device_lost(rail, now),
                }
                return known != Some(DeviceHealth::Up) || health != DeviceHealth::Up;
            }
            Observation::Broken { lane, failed, .. } | Observation::Drained { lane, failed, .. } => {
                if self.rails.failures.is_broken(lane, failed) {
                    self.watch.lane_was_refused(lane / LANES_PER_RAIL);
                }
            }
            Observation::Closed { .. } => {}
        }
        true
    }

    /// Whether lanes are among these that were not seen to have failed before.
    pub(super) fn are_new_failures(&self, seen: &[Observation]) -> bool {
        seen.iter().any(|seen| match *seen {
            Observation::Broken { lane, failed, .. } | Observation::Drained { lane, failed, .. } => {
                failed && self.rails.failures.is_new(lane)
            }
            Observation::Device { .. } | Observation::Closed { .. } => false,
        })
    }

    /// Reports the lanes that have failed in this turn, but for those that an end has left or a refused request has broken. The lanes of a
    /// rail that is not up are not made again before it is asked again.
    pub(super) fn watch_failures(&mut self) {
        let new = self.rails.failures.take_new();
        if new != 0 {
            self.data_path_failed();
        }
        for rail in (0..MAX_RAILS).filter(|rail| new >> (rail * LANES_PER_RAIL) & LANES != 0) {
            let lanes = new >> (rail * LANES_PER_RAIL) & LANES;
            let was_up = self.is_up(rail);
            (0..lanes.count_ones()).for_each(|_| self.watch.lane_failed(rail, clock::now_ns()));
            let is_paused = matches!(self.watch.state(rail), Some(RailState::Paused(_)));
            if !was_up && is_paused && (0..MAX_RAILS).any(|other| other != rail && self.is_up(other)) {
                self.machine.leave_rail(rail, in_words(PauseReason::Errors), self.now());
            }
        }
    }

    /// Looks at the rails, if that is due, and does what follows from it.
    pub(super) async fn watch_rails(&mut self) {
        let connection = std::sync::Weak::clone(&self.connection);
        let handle = self.handle.clone();
        let looked = with_upgraded(&handle, &connection, |connection| {
            self.note_made(connection);
            if self.watch.made().0.count_ones() < 2 {
                return;
            }
            self.note_lanes(connection);
            // A turn that follows another one without a wait, as while the peer sends without end, finds no time set.
            let look_at = self.rails.look_at.or_else(|| self.watch.deadline(self.handle.look_round()));
            let is_due = look_at.is_some_and(|at| clock::now_ns() >= at);
            if is_due || self.watch.is_woken() {
                self.look(connection);
            }
            self.follow_all(connection);
            self.tell(connection);
        });
        if looked.is_some() {
            self.act().await;
        }
    }

    /// Looks at the rails when that is all there is to be done, which takes a fraction of a turn. False if a turn is to do it, or what follows from
    /// it: something is not as it is to be.
    pub(super) fn look_alone(&mut self) -> bool {
        let connection = std::sync::Weak::clone(&self.connection);
        let handle = self.handle.clone();
        let looked = with_upgraded(&handle, &connection, |connection| {
            if !self.watch.are_up() || !connection.all_made_lanes_work(self.watch.made()) {
                return false;
            }
            self.look(connection);
            self.follow_all(connection);
            if clock::now_ns() >= self.rails.tell_at {
                self.tell(connection);
            }
            self.watch.are_up() && !self.machine.has_actions()
        });
        looked == Some(true)
    }

    fn look(&mut self, connection: &Connection) {
        let now = clock::now_ns();
        self.handle.begin_look(now);
        self.rails.look_at = None;
        let rails = self.watch.made();
        let nics = (0..MAX_RAILS).filter(|rail| rails.has(*rail)).filter_map(|rail| connection.nic_of(rail));
        for nic in nics {
            nic.flow.look(now, rails.0.count_ones(), || nic.counts());
        }
        let counts = connection.rail_counts(rails);
        self.watch.look(now, &counts);
        self.note_used(&counts);
        // What waits does not ask by itself.
        if connection.rails_up().0 == 0 && counts.iter().any(|counts| counts.bytes_in_flight > 0) {
            connection.need_rail(RailSet::default());
        }
    }

    /// Rails that carry something for the first time get their other lanes.
    fn note_used(&mut self, counts: &[RailCounts; MAX_RAILS]) {
        let carries = |counts: &RailCounts| counts.bytes_in_flight | counts.bytes_done != 0;
        for (rail, _) in counts.iter().enumerate().filter(|(_, counts)| carries(counts)) {
            if !self.rails.used.has(rail) {
                self.rails.used = self.rails.used.with(rail);
                self.machine.rail_is_used(rail, self.now());
            }
        }
    }

    fn follow_all(&mut self, connection: &Connection) {
        while let Some((rail, action)) = self.watch.next_action() {
            self.follow(connection, rail, action);
        }
    }

    /// Looks whether a connection with one rail needs another one, if that is due.
    pub(super) fn watch_need(&mut self) {
        let (handle, need, lacks_rail) = (self.handle.clone(), &mut self.need, self.machine.lacks_rail());
        with_upgraded(&handle, &self.connection, |connection| {
            let may_be_made = connection.may_need_rail() || lacks_rail && connection.could_make_rail();
            if !may_be_made {
                connection.set_unseen(false);
                return need.end();
            }
            let trouble = if lacks_rail { Trouble::Ends } else { connection.trouble() };
            let is_armed = connection.is_unseen();
            match need.turn(clock::now_ns(), is_armed, trouble, || connection.count_first_rail()) {
                Need::Nothing => {}
                Need::Ask => connection.need_rail(connection.rails_that_carry()),
                Need::AskStuck => connection.need_rail(RailSet::default()),
                Need::Arm => connection.set_unseen(true),
            }
        });
    }

    /// Parts that came to a lane behind its failure, and those that found no other rail before, go to one.
    pub(super) async fn move_waiting(&mut self) {
        let lanes =
            with_upgraded(&self.handle, &self.connection, |connection| connection.lanes_with_waiting());
        let lanes = lanes.unwrap_or_default();
        for lane in self.rails.waiting.due(&lanes, clock::now_ns()) {
            let connection = std::sync::Weak::clone(&self.connection);
            // A rail that was to take them may have failed too, before it did.
            let both_ends = self.machine.may_move(lane);
            let call = move || {
                let Some(connection) = connection.upgrade() else { return false };
                let posted = both_ends.is_some_and(|both_ends| connection.move_parts(lane, both_ends));
                connection.move_unposted(lane) || posted
            };
            let have_moved = self.answering(self.handle.blocking(call)).await;
            self.rails.waiting.tried(lane, have_moved, clock::now_ns());
        }
    }

    /// Rails that have come into use since the last turn; the first one with the second.
    fn note_made(&mut self, connection: &Connection) {
        if connection.rails.made().next().is_none() {
            return;
        }
        let now = clock::now_ns();
        let made = self.watch.made();
        for rail in (0..MAX_RAILS).filter(|rail| !made.has(*rail)) {
            let is_up =
                connection.lanes_of(rail).iter().any(|lane| lane.status.health() == LaneHealth::Healthy);
            if rail > 0 && !is_up {
                continue;
            }
            let Some((nic, speed)) = connection.rail_nic(rail) else { continue };
            self.watch.rail_added(rail, speed, nic, now);
            connection.note_added(rail);
        }
    }

    /// Probes that were answered, rebuilds that have ended, lanes that work again.
    fn note_lanes(&mut self, connection: &Connection) {
        let now = clock::now_ns();
        for rail in 0..MAX_RAILS {
            let lanes = connection.lanes_of(rail);
            let answers = lanes.iter().map(|lane| lane.status.probe_answered());
            if let Some(number) = self.rails.probes.answered(rail, answers) {
                self.watch.probe_answered(rail, number, now);
            }
            let works = lanes.iter().any(|lane| lane.status.health() == LaneHealth::Healthy);
            if works && !self.is_up(rail) {
                self.watch.has_lane(rail, now);
            }
            if let Some(Some((number, until))) = self.rails.rebuilds.get(rail).copied()
                && (works || now >= until)
            {
                self.rails.set_rebuild(rail, None);
                self.watch.rebuilt(rail, number, works, now);
            }
        }
    }

    fn follow(&mut self, connection: &Connection, rail: usize, action: RailAction) {
        match action {
            RailAction::Move(reason) => {
                self.rails.probes.clear(rail);
                self.data_path_failed();
                if connection.rails_healthy_but(rail) {
                    self.machine.leave_rail(rail, in_words(reason), self.now());
                }
            }
            RailAction::Probe(number) => self.probe(connection, rail, number),
            RailAction::Rebuild(number) => {
                self.rails.set_rebuild(rail, Some((number, clock::now_ns() + REBUILD_LIMIT)));
                self.machine.resume_rail(rail, self.now());
                self.wakeup.wake();
            }
        }
    }

    /// Posts a probe on a lane that has nothing under way. A rail that was left has none until its lanes are made again, from now on: then
    /// it is asked.
    ///
    /// Parts may have come to a rail that is not up when no other rail took them. If it has not answered since, they leave it again.
    fn probe(&mut self, connection: &Connection, rail: usize, number: u32) {
        let (now, is_up) = (clock::now_ns(), self.is_up(rail));
        if !is_up
            && self.rails.probes.are_waiting(rail)
            && connection.carries_parts(rail)
            && connection.rails_healthy_but(rail)
        {
            self.rails.probes.clear(rail);
            self.make_again(rail);
            return self.watch.has_no_lane(rail, now);
        }
        self.rails.probes.add(rail, number, is_up);
        let posted = connection.post_probe(rail, number);
        let is_stuck = self.rails.probes.is_stuck(rail, posted != Err(ProbeError::Busy), now);
        match posted {
            Ok(()) => {}
            Err(ProbeError::Busy) if !is_up => {
                // What is under way there are earlier probes; their answers count as well.
                if is_stuck {
                    self.make_again(rail);
                }
            }
            Err(ProbeError::Down | ProbeError::Refused(_)) if !is_up => {
                self.watch.has_no_lane(rail, now);
                self.machine.resume_rail(rail, self.now());
            }
            Err(ProbeError::Unsupported) => {
                // It cannot be asked, so its silence says nothing.
                self.rails.probes.clear(rail);
                self.watch.probe_answered(rail, number, clock::now_ns());
            }
            // Without an idle lane any completion is an answer.
            Err(_) => {}
        }
    }

    /// The lanes of a rail that does not answer are made again. What they carry goes to other rails.
    fn make_again(&mut self, rail: usize) {
        self.machine.leave_rail(rail, "probes were not answered", self.now());
        self.machine.resume_rail(rail, self.now());
    }

    fn is_up(&self, rail: usize) -> bool {
        self.watch.state(rail) == Some(RailState::Up)
    }

    /// Tells operators what has changed.
    fn tell(&mut self, connection: &Connection) {
        let now = clock::now_ns();
        // They change with each look, and take locks.
        let is_due = now >= self.rails.tell_at;
        if is_due {
            self.rails.tell_at = now + TELL_EVERY;
        }
        for rail in 0..MAX_RAILS {
            let (Some(state), Some(record)) = (self.watch.state(rail), connection.rail_record(rail)) else {
                continue;
            };
            if is_due {
                record.set_rate(self.watch.rate(rail));
                record.set_latency(Duration::from_nanos(self.watch.latency(rail)));
            }
            let Some(place) = self.rails.told.get_mut(rail) else { continue };
            let before = place.replace(state).unwrap_or(RailState::Up);
            let reason = self.watch.reason(rail).unwrap_or(PauseReason::Errors);
            match (before, state) {
                (before, state) if before == state => {}
                (_, RailState::Up) => record.up(),
                // Also of a port that is back: the rail has been away since that went down.
                (RailState::Paused(_) | RailState::Down, RailState::Paused(until)) => {
                    record.still_paused(Duration::from_nanos(until.saturating_sub(now)));
                }
                (_, RailState::Paused(until)) => {
                    record.paused(reason, Duration::from_nanos(until.saturating_sub(now)));
                }
                (_, RailState::Down) => record.down(reason),
            }
        }
    }
}

/// A time of the pool's clock.
fn instant(at: u64) -> Instant {
    // This clock first: what comes between the two makes the instant later, not too early.
    let left = at.saturating_sub(clock::now_ns());
    Instant::now() + Duration::from_nanos(left)
}

fn in_words(reason: PauseReason) -> &'static str {
    match reason {
        PauseReason::Silent => "the rail was silent, and did not answer a probe",
        PauseReason::Errors => "the rail has failed too often",
        PauseReason::PortDown => "the port of the rail is down",
        PauseReason::DeviceLost => "the device of the rail is lost",
    }
}

/// The lanes of a rail, a bit each.
const LANES: u64 = (1 << LANES_PER_RAIL) - 1;

//! The recovery machine of one connection.

use std::io;
use std::time::{Duration, Instant};

use super::actions::Actions;
use super::adding::{Adding, NewRail};
use super::lane::{EventContext, LaneMachine};
use super::rail::Rail;
use super::{Action, LANES_PER_RAIL, LostReason};
use crate::connection::DeviceHealth;
use crate::control::ChannelFrame;
use crate::control::wire::LaneRecord;
use crate::rails::MAX_RAILS;

/// Decides about the recovery of one connection's lanes.
///
/// The driver reports events in order, each with the current time, and carries out what [`Machine::next_action`]
/// returns before it reports the next one. [`Machine::timeout`] is called once [`Machine::deadline`] has passed and
/// all earlier events are reported, frames in the socket included. Lanes begin healthy, and the device with its port
/// up.
#[derive(Debug)]
pub(in crate::connection) struct Machine {
    pub(super) policy: RebuildPolicy,
    pub(super) rails: [Rail; MAX_RAILS],
    pub(super) actions: Actions,
    /// A rail can be made that there is not.
    has_spare: bool,
    /// The connection is lost; further events are ignored.
    over: bool,
}

/// Which part this end of a connection has in rebuilds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::connection) struct RebuildPolicy {
    /// This end opened the connection, so it begins rebuilds.
    pub(in crate::connection) leads: bool,
    /// Failed lanes are rebuilt. Only with a peer that supports it.
    pub(in crate::connection) heals: bool,
    /// Both ends make further rails. Only with a peer that heals.
    pub(in crate::connection) rails: bool,
    /// Of a further rail both ends make the first lane at once, and the others when it is used.
    pub(in crate::connection) lanes_on_use: bool,
}

impl Machine {
    /// A machine for a connection of one rail with `lanes` healthy lanes.
    pub(in crate::connection) fn new(policy: RebuildPolicy, lanes: usize) -> Self {
        let mut rails = std::array::from_fn(|_| Rail::new(Adding::Free));
        if let Some(first) = rails.first_mut() {
            let handshake = NewRail { own: 0, peer: 0, lanes };
            *first = Rail::new(Adding::Added(handshake));
            first.lanes = (0..lanes).map(|index| LaneMachine::new(index, policy)).collect();
        }
        Self { policy, rails, actions: Actions::default(), has_spare: false, over: false }
    }

    /// The lane's queue pair is in ERROR and not drained. Ignored for a lane that is not healthy.
    pub(in crate::connection) fn lane_broken(&mut self, lane: usize, reason: &str, now: Instant) {
        self.with_lane(lane, now, |lane, context| lane.broken(reason, context));
    }

    /// The lane's queue pair is in ERROR and drained. Ignored when it was reported before.
    pub(in crate::connection) fn lane_drained(&mut self, lane: usize, reason: &str, now: Instant) {
        self.with_lane(lane, now, |lane, context| lane.drained(reason, context));
    }

    /// The lane is closed, and not because of an [`Action::Close`]: its queue pair was destroyed.
    pub(in crate::connection) fn lane_closed(&mut self, lane: usize, now: Instant) {
        self.with_lane(lane, now, LaneMachine::destroyed);
    }

    /// The lane is closed, and its device may still be at work on its queue pair, which is not destroyed yet or could not be. Until
    /// [`Machine::lane_closed`] the peer is not told that nothing arrives there.
    pub(in crate::connection) fn lane_lingers(&mut self, lane: usize, now: Instant) {
        self.with_lane(lane, now, LaneMachine::lingers);
    }

    /// A frame of the peer was received.
    pub(in crate::connection) fn frame(&mut self, frame: ChannelFrame, now: Instant) {
        match frame {
            ChannelFrame::Ping(number) if !self.over => self.actions.push_frame(ChannelFrame::Pong(number)),
            ChannelFrame::Ping(_) | ChannelFrame::Pong(_) => {}
            ChannelFrame::Goodbye => self.lose(LostReason::Goodbye),
            ChannelFrame::Rebuild { lane, attempt, record } => {
                self.with_lane(lane as usize, now, |lane, context| lane.rebuild(attempt, record, context));
            }
            ChannelFrame::Rebuilt { lane, attempt, record } => {
                self.with_lane(lane as usize, now, |lane, context| lane.rebuilt(attempt, record, context));
            }
            ChannelFrame::Ready { lane, attempt } => {
                self.with_lane(lane as usize, now, |lane, context| lane.ready(attempt, context));
            }
            ChannelFrame::Broken { lane } => self.with_lane(lane as usize, now, LaneMachine::broken_at_peer),
            ChannelFrame::Refused { lane, .. } => self.with_lane(lane as usize, now, LaneMachine::refused),
            ChannelFrame::AddRail { .. }
            | ChannelFrame::RailReady { .. }
            | ChannelFrame::RailRefused { .. }
            | ChannelFrame::RequestRail { .. }
            | ChannelFrame::Quiesce { .. }
            | ChannelFrame::Quiesced { .. }
            | ChannelFrame::NotNow { .. }
            | ChannelFrame::TryPath { .. }
            | ChannelFrame::PathTried { .. }
            | ChannelFrame::RequestRefused { .. } => {
                if self.policy.rails && self.policy.heals && !self.over {
                    self.rail_frame(frame, now);
                }
            }
        }
    }

    /// One of the frames of rails. The peer's own NIC is our peer's.
    fn rail_frame(&mut self, frame: ChannelFrame, now: Instant) {
        match frame {
            ChannelFrame::AddRail { rail, own, peer, lanes } => {
                self.rail_is_added(rail, peer, own, usize::from(lanes));
            }
            ChannelFrame::RailReady { rail } => self.rail_is_ready(rail, now),
            ChannelFrame::RailRefused { rail, why } => self.rail_is_refused(rail, why),
            ChannelFrame::RequestRail { own, peer } if self.policy.leads => {
                self.actions.push_request(peer, own)
            }
            ChannelFrame::RequestRefused { own, peer, why } if !self.policy.leads => {
                self.actions.push_refused_request(peer, own, why);
            }
            ChannelFrame::TryPath { rail, number, peer, record, .. } => {
                self.path_is_tried(rail, number, peer, record, now);
            }
            ChannelFrame::PathTried { rail, number, answer } => self.path_was_tried(rail, number, answer),
            ChannelFrame::Quiesce { lane, number } if self.lane(lane as usize).is_some() => {
                self.with_lane(lane as usize, now, |lane, context| lane.peer_leaves(number, context));
            }
            // A lane that is not there lets nothing through.
            ChannelFrame::Quiesce { lane, number } if (lane as usize) < MAX_RAILS * LANES_PER_RAIL => {
                self.actions.push_frame(ChannelFrame::Quiesced { lane, number });
            }
            ChannelFrame::NotNow { lane, attempt } => {
                self.with_lane(lane as usize, now, |lane, context| lane.put_off_by_peer(attempt, context));
            }
            ChannelFrame::Quiesced { lane, number } => {
                self.with_lane(lane as usize, now, |lane, context| lane.quiesced(number, context));
            }
            _ => {}
        }
    }

    /// The control connection has ended or failed: in reading, or by not sending within
    /// [`STEP_LIMIT`](super::STEP_LIMIT).
    pub(in crate::connection) fn channel_lost(&mut self, error: &io::Error) {
        self.lose(LostReason::of_channel(error));
    }

    /// The peer's process with this pid has ended.
    pub(in crate::connection) fn peer_died(&mut self, pid: i32) {
        self.lose(LostReason::Died(pid));
    }

    /// No data of the peer was received for `time`, and its pings are unanswered.
    pub(in crate::connection) fn peer_silent(&mut self, time: Duration) {
        self.lose(LostReason::Silent(time));
    }

    /// The health of the device of a rail has been queried. Reported for rails that are still being made, too.
    pub(in crate::connection) fn device(&mut self, rail: usize, health: DeviceHealth, now: Instant) {
        let Some(view) = self.rails.get_mut(rail).map(|rail| &mut rail.view) else { return };
        view.device = health;
        let DeviceHealth::Lost(reason) = health else {
            return self.with_rail(rail, now, LaneMachine::device_changed);
        };
        self.settle(now);
        if self.has_spare || self.rails.iter().any(Rail::may_work) {
            self.with_rail(rail, now, |lane, context| lane.device_lost(reason, context));
        } else {
            self.lose(LostReason::Device(reason));
        }
    }

    /// Whether a rail can be made that there is not, as far as is known. Once none can, a connection without a device is lost by the next
    /// [`Machine::device`].
    pub(in crate::connection) fn set_spare(&mut self, has_spare: bool, now: Instant) {
        if std::mem::replace(&mut self.has_spare, has_spare) != has_spare {
            self.settle(now);
        }
    }

    /// Whether a rail must be made for the connection to go on: none works, and a device is lost, here or, for all that is known, at the peer.
    pub(in crate::connection) fn lacks_rail(&self) -> bool {
        let is_lost = |rail: &Rail| rail.is_open() && (rail.view.device_is_lost() || rail.is_parting());
        !self.over && self.rails.iter().any(is_lost) && !self.rails.iter().any(Rail::has_healthy_lane)
    }

    /// The lanes that are to be drained before their parts can go on elsewhere.
    pub(in crate::connection) fn undrained_lanes(&self) -> impl Iterator<Item = usize> {
        let lanes = self.rails.iter().flat_map(|rail| rail.lanes.iter().map(move |lane| (lane, &rail.view)));
        let waiting = lanes.filter(|(lane, view)| lane.destroy_at.is_some() && lane.waits_for_drain(view));
        waiting.map(|(lane, _)| lane.index)
    }

    /// A lane has not drained in [`DRAIN_LIMIT`](super::DRAIN_LIMIT), for a driver of which the time stands still.
    pub(in crate::connection) fn drain_is_late(&mut self, lane: usize, now: Instant) {
        self.with_lane(lane, now, LaneMachine::drain_is_late);
    }

    /// The lanes that are closed once nothing is left on them.
    pub(in crate::connection) fn parting_lanes(&self) -> impl Iterator<Item = usize> {
        let lanes = self.rails.iter().flat_map(|rail| &rail.lanes);
        lanes.filter(|lane| lane.is_parting()).map(|lane| lane.index)
    }

    /// Whether other rails may get keys of memory that this rail has.
    pub(in crate::connection) fn set_memory_comes(&mut self, rail: usize, memory_comes: bool) {
        if let Some(rail) = self.rails.get_mut(rail) {
            rail.view.memory_comes = memory_comes;
        }
    }

    /// Nothing is left on a lane that is drained.
    pub(in crate::connection) fn lane_empty(&mut self, lane: usize, now: Instant) {
        self.with_lane(lane, now, LaneMachine::emptied);
    }

    /// The end of [`Action::Create`] or [`Action::CreateConnected`].
    pub(in crate::connection) fn created(
        &mut self,
        lane: usize,
        attempt: u32,
        result: Result<LaneRecord, String>,
        now: Instant,
    ) {
        self.with_lane(lane, now, |lane, context| lane.created(attempt, result, context));
    }

    /// The end of [`Action::Connect`], or an [`Action::CreateConnected`] that did not connect.
    pub(in crate::connection) fn connected(
        &mut self,
        lane: usize,
        attempt: u32,
        result: Result<(), String>,
        now: Instant,
    ) {
        self.with_lane(lane, now, |lane, context| lane.connected(attempt, result, context));
    }

    /// Handles deadlines that have passed. Does nothing before [`Machine::deadline`].
    pub(in crate::connection) fn timeout(&mut self, now: Instant) {
        if self.over {
            return;
        }
        self.give_up_rails(now);
        self.give_up_trials(now);
        for rail in 0..MAX_RAILS {
            self.with_rail(rail, now, LaneMachine::timeout);
        }
    }

    /// When to call [`Machine::timeout`]; `None`: no deadline is set.
    pub(in crate::connection) fn deadline(&self) -> Option<Instant> {
        if self.over {
            return None;
        }
        let of_rail = |rail: &Rail| rail.lanes.iter().filter_map(|lane| lane.deadline(&rail.view)).min();
        self.rails.iter().filter_map(of_rail).chain(self.answer_deadline()).chain(self.trial_deadline()).min()
    }

    /// The next action: frames after all others.
    pub(in crate::connection) fn next_action(&mut self) -> Option<Action> {
        self.next_local_action().or_else(|| self.actions.next_frame().map(Action::Send))
    }

    /// The next action other than a frame, for a driver with a full socket. Frames wait, at most one for
    /// each lane and a Pong, and newer ones replace them.
    pub(in crate::connection) fn next_local_action(&mut self) -> Option<Action> {
        self.actions.next_local()
    }

    /// Whether actions wait to be taken.
    pub(in crate::connection) fn has_actions(&self) -> bool {
        self.actions.has_local() || self.actions.has_frames()
    }

    /// Whether frames wait to be taken.
    pub(in crate::connection) fn has_frames(&self) -> bool {
        self.actions.has_frames()
    }

    /// Whether the connection is lost: [`Action::Lose`] was, or is, the last action.
    pub(in crate::connection) fn is_over(&self) -> bool {
        self.over
    }

    /// Which lanes have ever been healthy, in bits: the others wait to be built.
    pub(in crate::connection) fn made_lanes(&self) -> u64 {
        let lanes = self.rails.iter().flat_map(|rail| &rail.lanes).filter(|lane| lane.made);
        lanes.fold(0, |made, lane| made | 1_u64.checked_shl(lane.index as u32).unwrap_or(0))
    }

    fn lane(&mut self, index: usize) -> Option<&mut LaneMachine> {
        self.rails.get_mut(index / LANES_PER_RAIL)?.lanes.get_mut(index % LANES_PER_RAIL)
    }

    fn with_lane(
        &mut self,
        index: usize,
        now: Instant,
        change: impl FnOnce(&mut LaneMachine, &mut EventContext<'_>),
    ) {
        self.change_lane(index, now, change);
        self.settle(now);
    }

    pub(super) fn with_rail(
        &mut self,
        rail: usize,
        now: Instant,
        change: impl Fn(&mut LaneMachine, &mut EventContext<'_>),
    ) {
        self.change_rail(rail, now, change);
        self.settle(now);
    }

    pub(super) fn change_rail(
        &mut self,
        rail: usize,
        now: Instant,
        change: impl Fn(&mut LaneMachine, &mut EventContext<'_>),
    ) {
        let lanes = self.rails.get(rail).map_or(0, |rail| rail.lanes.len());
        for lane in 0..lanes {
            self.change_lane(rail * LANES_PER_RAIL + lane, now, &change);
        }
    }

    fn change_lane(
        &mut self,
        index: usize,
        now: Instant,
        change: impl FnOnce(&mut LaneMachine, &mut EventContext<'_>),
    ) {
        if self.over {
            return;
        }
        // A peer may send any index.
        let Some(Rail { lanes, view, .. }) = self.rails.get_mut(index / LANES_PER_RAIL) else { return };
        let Some(lane) = lanes.get_mut(index % LANES_PER_RAIL) else { return };
        let mut context = EventContext { now, rail: *view, actions: &mut self.actions, closed: None };
        change(lane, &mut context);
        lane.ask_for_quiet(&mut context);
        lane.destroy_undrained(&mut context);
        if let Some(reason) = context.closed {
            self.lose_without_lanes(reason);
            self.need_others(index, now);
        }
        self.report_unconnected(index / LANES_PER_RAIL);
    }

    /// Leader: reports a rail of which no lane connects.
    fn report_unconnected(&mut self, number: usize) {
        let Some(rail) = self.rails.get_mut(number).filter(|_| self.policy.leads) else { return };
        if rail.is_unconnected || !rail.has_never_connected() {
            return;
        }
        rail.is_unconnected = true;
        let failure = rail.lanes.iter().find_map(|lane| lane.failure.as_ref());
        let reason = failure.map_or_else(String::new, ToString::to_string);
        self.actions.push(Action::RailUnconnected { rail: number, reason });
    }

    /// Tells the lanes of each rail whether another rail has a healthy lane, if that has changed.
    pub(super) fn settle(&mut self, now: Instant) {
        let healthy = self.rails.iter().map(Rail::has_healthy_lane).enumerate();
        let healthy = healthy.fold(0_u32, |set, (rail, is_healthy)| set | u32::from(is_healthy) << rail);
        let may_work = self.rails.iter().map(Rail::may_work).enumerate();
        let may_work = may_work.fold(0_u32, |set, (rail, may_work)| set | u32::from(may_work) << rail);
        for index in 0..MAX_RAILS {
            let others_healthy = healthy & !(1 << index) != 0;
            let Some(rail) = self.rails.get_mut(index) else { return };
            let others_come = self.has_spare || may_work & !(1 << index) != 0;
            let has_changed = std::mem::replace(&mut rail.view.others_come, others_come) != others_come;
            if rail.view.others_healthy == others_healthy {
                if has_changed {
                    self.change_rail(index, now, LaneMachine::others_may_come);
                }
                continue;
            }
            rail.view.others_healthy = others_healthy;
            if others_healthy {
                self.change_rail(index, now, LaneMachine::others_work);
            } else {
                rail.view.alone_since = Some(now);
                self.change_rail(index, now, LaneMachine::is_alone);
            }
        }
    }

    fn lose_without_lanes(&mut self, last: LostReason) {
        if !self.rails.iter().any(Rail::is_open) {
            self.lose(LostReason::NoLane(Box::new(last)));
        }
    }

    fn lose(&mut self, reason: LostReason) {
        if self.over {
            return;
        }
        self.over = true;
        for lane in self.rails.iter().flat_map(|rail| &rail.lanes) {
            if let Some(attempt) = lane.under_way() {
                self.actions.push(Action::Discard { lane: lane.index, attempt });
            }
        }
        self.actions.drop_frames();
        self.actions.push(Action::Lose(reason));
    }

    /// Actions that wait to be taken.
    #[cfg(test)]
    pub(super) fn backlog(&self) -> usize {
        self.actions.len()
    }
}

//! The recovery machine of one connection.

use std::io;
use std::time::{Duration, Instant};

use super::actions::Actions;
use super::lane::{EventContext, LaneMachine};
use super::{Action, LostReason};
use crate::connection::DeviceHealth;
use crate::control::wire::LaneRecord;
use crate::control::{ChannelFrame, RailRefusal};

/// Decides about the recovery of one connection's lanes.
///
/// The driver reports events in order, each with the current time, and carries out what [`Machine::next_action`]
/// returns before it reports the next one. [`Machine::timeout`] is called once [`Machine::deadline`] has passed and
/// all earlier events are reported, frames in the socket included. Lanes begin healthy, and the device with its port
/// up.
#[derive(Debug)]
pub(in crate::connection) struct Machine {
    lanes: Vec<LaneMachine>,
    device: DeviceHealth,
    actions: Actions,
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
}

impl Machine {
    /// A machine for a connection of `lanes` healthy lanes.
    pub(in crate::connection) fn new(policy: RebuildPolicy, lanes: usize) -> Self {
        Self {
            lanes: (0..lanes).map(|index| LaneMachine::new(index, policy)).collect(),
            device: DeviceHealth::Up,
            actions: Actions::default(),
            over: false,
        }
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
            | ChannelFrame::Quiesced { .. } => {}
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

    /// Leader: makes a rail.
    pub(in crate::connection) fn add_rail(
        &mut self,
        rail: usize,
        own: u16,
        peer: u16,
        lanes: usize,
        now: Instant,
    ) {
        let _ = (own, peer, lanes, now);
        self.actions.push(Action::RailRefused { rail, why: RailRefusal::Limited });
    }

    /// The end of [`Action::OpenRail`].
    pub(in crate::connection) fn rail_opened(
        &mut self,
        rail: usize,
        result: Result<(), RailRefusal>,
        now: Instant,
    ) {
        let _ = (rail, result, now);
    }

    /// Follower: asks the leader for a rail.
    pub(in crate::connection) fn request_rail(&mut self, own: u16, peer: u16) {
        let _ = (own, peer);
    }

    /// Moves the lanes of a rail to ERROR, and rebuilds none of them.
    pub(in crate::connection) fn leave_rail(&mut self, rail: usize, reason: &'static str, now: Instant) {
        let _ = (rail, reason, now);
    }

    /// Rebuilds the lanes of a rail that was left.
    pub(in crate::connection) fn resume_rail(&mut self, rail: usize, now: Instant) {
        let _ = (rail, now);
    }

    /// The health of the device of a rail has been queried.
    pub(in crate::connection) fn device(&mut self, rail: usize, health: DeviceHealth, now: Instant) {
        let _ = rail;
        if let DeviceHealth::Lost(reason) = health {
            return self.lose(LostReason::Device(reason));
        }
        self.device = health;
        self.with_lanes(now, LaneMachine::device_changed);
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
        self.with_lanes(now, LaneMachine::timeout);
    }

    /// When to call [`Machine::timeout`]; `None`: no deadline is set.
    pub(in crate::connection) fn deadline(&self) -> Option<Instant> {
        if self.over {
            return None;
        }
        self.lanes.iter().filter_map(|lane| lane.deadline(self.device)).min()
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

    /// Whether frames wait to be taken.
    pub(in crate::connection) fn has_frames(&self) -> bool {
        self.actions.has_frames()
    }

    /// Whether the connection is lost: [`Action::Lose`] was, or is, the last action.
    pub(in crate::connection) fn is_over(&self) -> bool {
        self.over
    }

    fn with_lane(
        &mut self,
        index: usize,
        now: Instant,
        change: impl FnOnce(&mut LaneMachine, &mut EventContext<'_>),
    ) {
        if self.over {
            return;
        }
        // A peer may send any index.
        let Some(lane) = self.lanes.get_mut(index) else { return };
        let mut context = EventContext { now, device: self.device, actions: &mut self.actions, closed: None };
        change(lane, &mut context);
        if let Some(reason) = context.closed {
            self.lose_without_lanes(reason);
        }
    }

    fn with_lanes(&mut self, now: Instant, change: impl Fn(&mut LaneMachine, &mut EventContext<'_>)) {
        for index in 0..self.lanes.len() {
            self.with_lane(index, now, &change);
        }
    }

    fn lose_without_lanes(&mut self, last: LostReason) {
        if self.lanes.iter().all(LaneMachine::is_closed) {
            self.lose(LostReason::NoLane(Box::new(last)));
        }
    }

    fn lose(&mut self, reason: LostReason) {
        if self.over {
            return;
        }
        self.over = true;
        for lane in &mut self.lanes {
            lane.discard(&mut self.actions);
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

//! Parts of a lane that has failed, and go on over another rail.
//!
//! A part may be posted elsewhere only when nothing of its lane can still arrive: see [`Quiesce`](crate::rails::Quiesce). The end that
//! takes its parts from a lane sends Quiesce when its queue pair is in ERROR, the other one answers Quiesced when its own is drained too.
//!
//! A rebuild of the lane may be under way at the same time. An end that answers a question discards a queue pair that the peer could
//! already be connected to; and a question is not sent between a request of a rebuild and its end. So an answer is true until its
//! lane is healthy again, and then nothing waits for it.

use std::time::Instant;

use super::lane::{EventContext, LaneMachine, State};
use super::{ALONE_LIMIT, Action, FOLLOW_LIMIT, LANES_PER_RAIL, LostReason, Machine, STEP_LIMIT};
use crate::connection::DeviceHealth;
use crate::control::ChannelFrame;
use crate::fabric::Opcode;
use crate::rails::{QuiesceAction, QuiesceState};

impl Machine {
    /// Moves the lanes of a rail to ERROR, and rebuilds none of them while another rail has a healthy lane. Rebuilds that the peer
    /// requests are answered.
    pub(in crate::connection) fn leave_rail(&mut self, rail: usize, reason: &'static str, now: Instant) {
        if !self.policy.rails {
            return;
        }
        if let Some(rail) = self.rails.get_mut(rail) {
            rail.view.left = true;
        }
        self.with_rail(rail, now, |lane, context| lane.leave(reason, context));
    }

    /// Rebuilds the lanes of a rail that was left, from now on.
    pub(in crate::connection) fn resume_rail(&mut self, rail: usize, now: Instant) {
        if let Some(rail) = self.rails.get_mut(rail) {
            rail.view.left = false;
        }
        self.with_rail(rail, now, LaneMachine::resume);
    }

    /// Which parts may leave a lane: none (`None`) before it is drained here; those that write, too, once both ends are.
    pub(in crate::connection) fn may_move(&self, lane: usize) -> Option<bool> {
        let rail = self.rails.get(lane / LANES_PER_RAIL)?;
        let lane = rail.lanes.get(lane % LANES_PER_RAIL)?;
        (lane.made && lane.is_drained()).then(|| lane.may_move_all())
    }
}

impl LaneMachine {
    /// The rail is left.
    fn leave(&mut self, reason: &'static str, context: &mut EventContext<'_>) {
        match self.state {
            State::Healthy if self.policy.heals => self.set_error(reason, None, context),
            State::Creating { tried, .. } | State::Asked { tried, .. } | State::Connecting { tried, .. }
                if context.rail.is_held() =>
            {
                self.discard(context.actions);
                self.state = State::Waiting { tried: tried.saturating_sub(1) };
            }
            _ => {}
        }
    }

    /// The rail is used again.
    fn resume(&mut self, context: &mut EventContext<'_>) {
        match self.state {
            State::Waiting { tried } => self.try_again(tried, context),
            State::Resting { .. } => self.try_again(0, context),
            _ => self.tell_leader(context),
        }
    }

    /// Another rail has a healthy lane again: parts of this one can go there. Where a rebuild is under way in which the question must not
    /// be sent, and that the peer may never end, it is not waited for as long as if nothing else worked.
    pub(super) fn others_work(&mut self, context: &mut EventContext<'_>) {
        let is_asked = !self.made || self.quiesce.state() != QuiesceState::InUse;
        if let State::Asked { until, .. } | State::Answered { until, .. } = &mut self.state
            && !is_asked
        {
            *until = (*until).min(context.now + ALONE_LIMIT);
        }
        if self.is_drained() {
            self.move_parts(context);
        }
    }

    /// No other rail has a healthy lane any more: from now on the limits hold within which transfers fail.
    pub(super) fn is_alone(&mut self, context: &mut EventContext<'_>) {
        let latest = context.now + FOLLOW_LIMIT;
        match &mut self.state {
            State::Waiting { .. } => self.try_again(0, context),
            State::Creating { tried, .. } | State::Connecting { tried, .. } => *tried = 1,
            State::Asked { tried, until } => (*tried, *until) = (1, context.now + STEP_LIMIT),
            State::PeerInformed { until, .. } => *until = latest,
            State::Making { give_up_at, .. } => *give_up_at = latest,
            State::Answered { until, give_up_at, .. } => {
                (*until, *give_up_at) = (context.now + STEP_LIMIT, latest);
            }
            _ => {}
        }
        self.tell_leader(context);
    }

    /// Sends Quiesce, once for each failure, if there is a rail that parts can go to. Called whenever something has changed.
    pub(super) fn ask_for_quiet(&mut self, context: &mut EventContext<'_>) {
        let may_ask = match self.state {
            State::Broken { .. }
            | State::Waiting { .. }
            | State::Resting { .. }
            | State::Creating { .. }
            | State::PeerInformed { .. }
            | State::Making { .. }
            | State::Parting { .. } => self.made && context.rail.others_healthy,
            State::Healthy
            | State::Asked { .. }
            | State::Connecting { .. }
            | State::Answered { .. }
            | State::Closed => false,
        };
        if !may_ask {
            return;
        }
        for action in self.quiesce.begin(0, u64::MAX).into_iter().flatten() {
            if let QuiesceAction::Send(number) = action {
                let lane = self.index as u32;
                context.actions.push_frame(ChannelFrame::Quiesce { lane, number });
            }
        }
        if self.is_drained() {
            self.quiesce.drained();
        }
    }

    /// The peer's end of the lane is drained, or closed.
    pub(super) fn quiesced(&mut self, number: u32, context: &mut EventContext<'_>) {
        let could_move = self.quiesce.may_move(Opcode::Write);
        self.quiesce.quiesced(number);
        if could_move || !self.quiesce.may_move(Opcode::Write) || !self.is_drained() {
            return;
        }
        self.move_parts(context);
        if matches!(self.state, State::Parting { .. }) {
            self.close_with_device(context);
        }
    }

    /// The peer takes its parts from the lane.
    pub(super) fn peer_leaves(&mut self, number: u32, context: &mut EventContext<'_>) {
        if !self.policy.heals {
            return;
        }
        match self.state {
            State::Healthy => {
                self.asked = Some(number);
                self.set_error("the peer has left the lane", None, context);
            }
            State::Broken { .. } => self.asked = Some(number),
            State::Answered { attempt, give_up_at, .. } => {
                self.discard(context.actions);
                self.state = State::PeerInformed { until: give_up_at, missed: Some(attempt) };
                send_quiesced(self.index, number, context);
            }
            _ => send_quiesced(self.index, number, context),
        }
    }

    /// Answers the peer's question, if it waits for that.
    pub(super) fn answer_peer(&mut self, context: &mut EventContext<'_>) {
        if let Some(number) = self.asked.take() {
            send_quiesced(self.index, number, context);
        }
    }

    /// Moves what may be moved, if there is a rail to take it.
    pub(super) fn move_parts(&self, context: &mut EventContext<'_>) {
        if self.made && context.rail.others_healthy {
            context.actions.push(Action::MoveParts { lane: self.index, both_ends: self.may_move_all() });
        }
    }

    /// Whether nothing of it can still arrive at the peer.
    fn may_move_all(&self) -> bool {
        self.peer_closed || self.quiesce.may_move(Opcode::Write)
    }

    /// The device is lost, and with it the lane; its parts may be saved.
    pub(super) fn device_lost(&mut self, reason: &'static str, context: &mut EventContext<'_>) {
        match self.state {
            State::Closed | State::Parting { .. } => {}
            State::Healthy if context.rail.others_healthy => self.set_error(reason, None, context),
            State::Broken { .. } if context.rail.others_healthy => {}
            _ if self.is_drained() => self.part(context),
            _ => self.close_with_device(context),
        }
    }

    /// Drained, and not to be rebuilt: closed once its parts have been moved.
    pub(super) fn part(&mut self, context: &mut EventContext<'_>) {
        if self.made && context.rail.others_healthy && !self.quiesce.may_move(Opcode::Write) {
            self.discard(context.actions);
            self.state = State::Parting { until: context.now + STEP_LIMIT };
            return;
        }
        self.close_with_device(context);
    }

    pub(super) fn close_with_device(&mut self, context: &mut EventContext<'_>) {
        let reason = match context.rail.device {
            DeviceHealth::Lost(reason) => reason,
            DeviceHealth::Up | DeviceHealth::PortDown(_) => "the device was lost",
        };
        self.close(LostReason::Device(reason), context);
    }
}

fn send_quiesced(lane: usize, number: u32, context: &mut EventContext<'_>) {
    context.actions.push_frame(ChannelFrame::Quiesced { lane: lane as u32, number });
}

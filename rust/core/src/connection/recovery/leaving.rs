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
use super::limit::Limit;
use super::rail::RailView;
use super::{
    ALONE_LIMIT, Action, DESTROY_LIMIT, DEVICE_LIMIT, FOLLOW_LIMIT, LANES_PER_RAIL, LOST_DRAIN_LIMIT,
    LostReason, MEMORY_LIMIT, Machine, STEP_LIMIT,
};
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
        // Of a lane that was never made nothing was posted.
        lane.is_drained().then(|| !lane.made || lane.may_move_all())
    }
}

impl LaneMachine {
    /// Whether parts wait for the drain, to leave the lane, here or at the peer.
    pub(super) fn waits_for_drain(&self, rail: &RailView) -> bool {
        let is_left = rail.can_be_left() || self.peer_closed && rail.others_come;
        let is_waited_for = is_left || self.asked.is_some();
        self.made && matches!(self.state, State::Broken { .. }) && is_waited_for
    }

    /// It has had its time to drain, although the time of the machine stands still.
    pub(super) fn drain_is_late(&mut self, context: &mut EventContext<'_>) {
        self.destroy_at = self.destroy_at.map(|at| at.min(context.now));
    }

    /// Destroys the queue pair if it does not drain, which is as good if its device can. If that takes too long as well, the lane is closed: see
    /// [`LaneMachine::waits_for_destroy`]. Called whenever something has changed.
    pub(super) fn destroy_undrained(&mut self, context: &mut EventContext<'_>) {
        if self.waits_for_drain(&context.rail) && self.destroy_at.is_some_and(|at| context.now >= at) {
            (self.destroy_at, self.destroyed_by) = (None, Some(context.now + DESTROY_LIMIT));
            context.actions.push(Action::Destroy { lane: self.index });
        }
    }

    /// Whether the lane is kept because its queue pair is being destroyed: its parts go on over another rail once that is done.
    pub(super) fn waits_for_destroy(&self, context: &EventContext<'_>) -> bool {
        context.rail.others_healthy && self.destroyed_by.is_some_and(|at| context.now < at)
    }

    pub(super) fn wait_for_destroy(&mut self, context: &EventContext<'_>) {
        if let State::Broken { until, .. } = &mut self.state {
            *until = Limit::after(STEP_LIMIT, context.now);
        }
    }

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
        if let State::Parting { until } = &mut self.state {
            *until = context.now + STEP_LIMIT;
        }
        if self.is_drained() {
            self.move_parts(context);
        }
    }

    /// Another rail may come now, or none any more. For one that none takes over from it ends as that of a lost device does: the connection with it.
    pub(super) fn others_may_come(&mut self, context: &mut EventContext<'_>) {
        let may_leave = context.rail.others_healthy || context.rail.others_come;
        if self.is_parting() && !may_leave && !context.rail.device_is_lost() {
            self.close_parted(context);
        }
    }

    /// No other rail has a healthy lane any more: from now on the limits hold within which transfers fail.
    pub(super) fn is_alone(&mut self, context: &mut EventContext<'_>) {
        let latest = context.now + FOLLOW_LIMIT;
        let is_destroying = self.destroyed_by.is_some_and(|at| context.now < at);
        match &mut self.state {
            State::Broken { until, .. } if is_destroying => *until = Limit::after(STEP_LIMIT, context.now),
            State::Waiting { .. } => self.try_again(0, context),
            State::Unneeded => self.need(context),
            State::Creating { tried, .. } | State::Connecting { tried, .. } => *tried = 1,
            State::Asked { tried, until } => (*tried, *until) = (1, context.now + STEP_LIMIT),
            State::PeerInformed { until, .. } => *until = latest,
            State::Parting { until } => *until = context.now + DEVICE_LIMIT,
            State::Making { give_up_at, .. } => *give_up_at = latest,
            State::Answered { until, give_up_at, .. } => {
                (*until, *give_up_at) = (context.now + STEP_LIMIT, latest);
            }
            _ => {}
        }
        self.others_may_come(context);
        self.tell_leader(context);
    }

    /// Sends Quiesce, once for each failure, if there is a rail that parts can go to, or will be. Called whenever something has changed.
    pub(super) fn ask_for_quiet(&mut self, context: &mut EventContext<'_>) {
        let may_ask = match self.state {
            State::Broken { .. }
            | State::Waiting { .. }
            | State::Resting { .. }
            | State::Creating { .. }
            | State::PeerInformed { .. }
            | State::Making { .. }
            | State::Parting { .. } => self.made && context.rail.can_be_left(),
            State::Healthy
            | State::Unneeded
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
            State::Closed if self.lingers => self.asked = Some(number),
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
        if let Some(number) = self.asked.take_if(|_| !self.lingers) {
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
            State::Healthy if context.rail.others_come => {
                self.set_error(reason, None, context);
                self.hurry(context);
            }
            State::Broken { .. } if context.rail.others_come => self.hurry(context),
            _ if self.is_drained() => self.part(context),
            _ => self.close_parted(context),
        }
    }

    /// The device is lost: what it has not flushed at once it never will.
    fn hurry(&mut self, context: &EventContext<'_>) {
        self.destroy_at = self.destroy_at.map(|at| at.min(context.now + LOST_DRAIN_LIMIT));
    }

    /// Drained, and not to be rebuilt: closed once its parts have been moved, which takes the peer's answer, another rail, and there the keys
    /// of their memory.
    pub(super) fn part(&mut self, context: &mut EventContext<'_>) {
        if !self.made || !context.rail.others_come {
            return self.close_parted(context);
        }
        self.discard(context.actions);
        let limit = if context.rail.others_healthy { STEP_LIMIT } else { DEVICE_LIMIT };
        self.state = State::Parting { until: context.now + limit };
        self.keep_until = Some(context.now + MEMORY_LIMIT);
        self.ask_for_quiet(context);
    }

    /// The time of a lane that is left is over: it is closed, unless what waits on it may find keys on another rail later.
    pub(super) fn end_leaving(&mut self, context: &mut EventContext<'_>) {
        if context.rail.others_healthy && self.waits_for_memory(context) {
            self.state = State::Parting { until: context.now + STEP_LIMIT };
        } else {
            self.close_parted(context);
        }
    }

    fn waits_for_memory(&self, context: &EventContext<'_>) -> bool {
        context.rail.memory_comes && self.keep_until.is_some_and(|at| context.now < at)
    }

    /// Nothing is left on it.
    pub(super) fn emptied(&mut self, context: &mut EventContext<'_>) {
        let is_left = matches!(self.state, State::Parting { .. }) && context.rail.others_healthy;
        if is_left && self.may_move_all() && !self.waits_for_memory(context) {
            self.close_parted(context);
        }
    }

    /// Closes it for good: its device is lost, or the peer's end is closed.
    pub(super) fn close_parted(&mut self, context: &mut EventContext<'_>) {
        match context.rail.device {
            DeviceHealth::Lost(reason) => self.close(LostReason::Device(reason), context),
            DeviceHealth::Up | DeviceHealth::PortDown(_) => {
                context.actions.push(Action::Close { lane: self.index, reason: LostReason::Refused });
                self.end(LostReason::Refused, context);
            }
        }
    }
}

fn send_quiesced(lane: usize, number: u32, context: &mut EventContext<'_>) {
    context.actions.push_frame(ChannelFrame::Quiesced { lane: lane as u32, number });
}

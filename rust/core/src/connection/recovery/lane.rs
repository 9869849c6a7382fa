//! One lane: its states, and the transitions common to both sides.

use std::time::{Duration, Instant};

use super::actions::Actions;
use super::limit::Limit;
use super::rail::RailView;
use super::{
    Action, DRAIN_LIMIT, DRIVER_LIMIT, LostReason, PATIENCE, PORT_LIMIT, RebuildFailure, RebuildPolicy,
    STEP_LIMIT,
};
use crate::connection::DeviceHealth;
use crate::control::ChannelFrame;
use crate::control::wire::LaneRecord;
use crate::rails::Quiesce;

/// A lane of a connection.
#[derive(Debug)]
pub(super) struct LaneMachine {
    pub(super) index: usize,
    pub(super) policy: RebuildPolicy,
    pub(super) state: State,
    /// The last attempt that the leader began, or that was requested of the follower.
    pub(super) attempt: u32,
    /// Why it is not healthy.
    pub(super) cause: String,
    /// The failure of the last attempt since the lane was healthy.
    pub(super) failure: Option<RebuildFailure>,
    /// It has been healthy: there may be parts on it.
    pub(super) made: bool,
    /// How far both ends are, once this one takes its parts from the lane.
    pub(super) quiesce: Quiesce,
    /// The peer takes its parts from the lane, and is to be told of the drain here.
    pub(super) asked: Option<u32>,
    /// Closed, and its queue pair is not known to be destroyed: what the peer has posted may still arrive, and it is not told otherwise.
    pub(super) lingers: bool,
    /// The peer's end is closed for good.
    pub(super) peer_closed: bool,
    /// Follower: the leader was not told that the lane has failed, because the rail is held.
    pub(super) untold: bool,
    /// Follower: the leader was told that nothing is done before the port is up, and is to be told when it is.
    pub(super) puts_off: bool,
    /// Leader: when the peer has said so first, since the lane was healthy.
    pub(super) put_off_since: Option<Instant>,
    /// In ERROR and not drained: when its queue pair is destroyed, if parts wait to leave it.
    pub(super) destroy_at: Option<Instant>,
    /// In ERROR, and its queue pair is being destroyed: until when that is waited for at most, while another rail works.
    pub(super) destroyed_by: Option<Instant>,
    /// Of a lane that is left: until when it is kept at most for memory of which other rails may get keys.
    pub(super) keep_until: Option<Instant>,
    /// Leader: the last pause between attempts of a lane that rests.
    pub(super) pause: Duration,
}

/// The state of a lane. A state with `until` ends at that time at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Healthy.
    Healthy,
    /// The queue pair is in ERROR and not drained.
    Broken {
        until: Limit,
        /// Follower: the leader's request, if it has come already.
        ask: Option<RebuildRequest>,
    },
    /// Leader: drained, and waits for the port, or for a rail that is held. `tried` attempts have failed so far.
    Waiting { tried: u32 },
    /// Leader: drained, and too many attempts have failed while another rail works, or the peer's port is down.
    Resting { until: Instant },
    /// Leader: a new queue pair is being created, for attempt `tried` in a row.
    Creating { tried: u32, until: Limit },
    /// Leader: the rebuild was requested, and the peer's answer is awaited.
    Asked { tried: u32, until: Instant },
    /// Leader: the peer has answered; the new queue pair is being connected to the peer's.
    Connecting { tried: u32, until: Limit },
    /// Of a further rail that is not used yet: neither end has a queue pair for it, nor is making one.
    Unneeded,
    /// Follower: drained, and waits for a request.
    PeerInformed {
        until: Instant,
        /// The answered attempt with the discarded queue pair.
        missed: Option<u32>,
    },
    /// Follower: a new queue pair is being created and connected to the leader's.
    Making {
        attempt: u32,
        until: Limit,
        /// A newer request of the leader, to be handled next.
        next: Option<RebuildRequest>,
        /// When the lane is closed at the latest.
        give_up_at: Instant,
    },
    /// Follower: the new queue pair is connected and Rebuilt is sent; the leader's Ready is awaited.
    Answered { attempt: u32, until: Instant, give_up_at: Instant },
    /// Drained, and not to be rebuilt, as its device is lost or the peer has closed its end: closed once its parts have moved to another rail, or
    /// could not.
    Parting { until: Instant },
    /// Closed for good.
    Closed,
}

/// A leader's request for a rebuild.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RebuildRequest {
    pub(super) attempt: u32,
    pub(super) record: LaneRecord,
}

/// The context of one event: the time, what is known of the rail, and the queue for actions.
#[derive(Debug)]
pub(super) struct EventContext<'a> {
    pub(super) now: Instant,
    pub(super) rail: RailView,
    pub(super) actions: &'a mut Actions,
    /// Why the lane was closed, if it was.
    pub(super) closed: Option<LostReason>,
}

impl LaneMachine {
    /// A healthy one.
    pub(super) fn new(index: usize, policy: RebuildPolicy) -> Self {
        Self {
            index,
            policy,
            state: State::Healthy,
            attempt: 0,
            cause: String::new(),
            failure: None,
            made: true,
            quiesce: Quiesce::default(),
            asked: None,
            lingers: false,
            peer_closed: false,
            untold: false,
            puts_off: false,
            put_off_since: None,
            destroy_at: None,
            destroyed_by: None,
            keep_until: None,
            pause: Duration::ZERO,
        }
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.state == State::Healthy
    }

    /// Whether it has never been in working order, and rests between attempts.
    pub(super) fn has_never_connected(&self) -> bool {
        !self.made && !self.pause.is_zero()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether it is left for good, and not closed yet.
    pub(super) fn is_parting(&self) -> bool {
        matches!(self.state, State::Parting { .. })
    }

    /// Its queue pair is in ERROR.
    pub(super) fn broken(&mut self, reason: &str, context: &mut EventContext<'_>) {
        if self.state == State::Healthy {
            reason.clone_into(&mut self.cause);
            self.state = State::Broken { until: Limit::after(STEP_LIMIT, context.now), ask: None };
            (self.destroy_at, self.destroyed_by) = (Some(context.now + DRAIN_LIMIT), None);
            self.ask_for_quiet(context);
        }
    }

    /// Its queue pair is in ERROR and drained.
    pub(super) fn drained(&mut self, reason: &str, context: &mut EventContext<'_>) {
        self.broken(reason, context);
        let State::Broken { ask, .. } = self.state else { return };
        self.quiesce.drained();
        // Before any frame of the rebuild.
        self.answer_peer(context);
        self.move_parts(context);
        if !self.policy.heals {
            self.close(LostReason::NotHealed(self.cause.clone()), context);
        } else if self.peer_closed || context.rail.device_is_lost() {
            self.part(context);
        } else if self.policy.leads {
            self.try_again(0, context);
        } else {
            self.wait_for_leader(ask, context);
        }
    }

    /// The lane's worker has destroyed its queue pair.
    pub(super) fn destroyed(&mut self, context: &mut EventContext<'_>) {
        if !self.is_closed() {
            self.end(LostReason::Destroyed, context);
            self.send_refused(context);
        } else if std::mem::take(&mut self.lingers) {
            self.answer_peer(context);
            self.send_refused(context);
        }
    }

    /// It is closed, and its queue pair is not destroyed yet, or could not be. A peer without rails does not post elsewhere what it has posted
    /// here.
    pub(super) fn lingers(&mut self, context: &mut EventContext<'_>) {
        if !self.policy.rails {
            return self.destroyed(context);
        }
        self.lingers = true;
        let question = context.actions.take_end(self.index as u32);
        self.asked = self.asked.or(question);
        if !self.is_closed() {
            self.end(LostReason::Destroyed, context);
        }
    }

    /// The peer has closed its end.
    pub(super) fn refused(&mut self, context: &mut EventContext<'_>) {
        if !self.policy.heals || self.is_closed() {
            return;
        }
        // It has closed its end before it said so: nothing of the lane arrives there any more.
        let was_closed = std::mem::replace(&mut self.peer_closed, true);
        let may_leave = context.rail.others_healthy || context.rail.others_come;
        match self.state {
            State::Parting { .. } if was_closed => {}
            State::Parting { .. } => self.move_parts(context),
            State::Broken { .. } if may_leave => {}
            State::Healthy if may_leave => {
                self.set_error("the peer has closed its end of the lane", None, context);
            }
            _ if self.is_drained() => {
                self.move_parts(context);
                self.part(context);
            }
            _ => self.close_parted(context),
        }
    }

    /// The port went down or came up. Queue pairs that are to replace a broken one do not survive that either.
    pub(super) fn device_changed(&mut self, context: &mut EventContext<'_>) {
        if !context.rail.port_is_down() {
            match self.state {
                State::Waiting { tried } => self.try_again(tried, context),
                State::PeerInformed { .. } => self.answer_at_last(context),
                _ => {}
            }
            return;
        }
        match self.state {
            // Where lanes are not rebuilt, the device's own retries may still succeed.
            State::Healthy if self.policy.heals => self.set_error("the port is down", None, context),
            State::Creating { tried, .. } | State::Asked { tried, .. } | State::Connecting { tried, .. } => {
                self.discard(context.actions);
                // The attempt failed because of the local port: a flapping port must not use up the attempts.
                self.state = State::Waiting { tried: tried.saturating_sub(1) };
            }
            State::Making { attempt, give_up_at, next, .. } => {
                self.discard(context.actions);
                self.state = State::PeerInformed { until: give_up_at, missed: None };
                self.put_off(next.map_or(attempt, |ask| ask.attempt), context);
            }
            State::Answered { attempt, give_up_at, .. } => {
                self.discard(context.actions);
                self.state = State::PeerInformed { until: give_up_at, missed: Some(attempt) };
            }
            _ => {}
        }
    }

    /// The creation of a new queue pair has ended.
    pub(super) fn created(
        &mut self,
        attempt: u32,
        result: Result<LaneRecord, String>,
        context: &mut EventContext<'_>,
    ) {
        match self.state {
            State::Creating { tried, .. } if attempt == self.attempt => self.ask(tried, result, context),
            State::Making { attempt: under_way, next, give_up_at, .. } if attempt == under_way => {
                self.answer(result, next, give_up_at, context);
            }
            _ => self.discard_late(attempt, context),
        }
    }

    /// Connecting a new queue pair has ended.
    pub(super) fn connected(
        &mut self,
        attempt: u32,
        result: Result<(), String>,
        context: &mut EventContext<'_>,
    ) {
        match (self.state, result) {
            (State::Connecting { .. }, Ok(())) if attempt == self.attempt => {
                self.declare_ready(attempt, context)
            }
            (State::Connecting { tried, .. }, Err(error)) if attempt == self.attempt => {
                self.fail(RebuildFailure::NotConnected(error), tried, context);
            }
            (State::Making { attempt: under_way, .. }, Err(error)) if attempt == under_way => {
                self.not_connected(error, context);
            }
            _ => self.discard_late(attempt, context),
        }
    }

    /// Handles the deadline of the current state, if it has passed.
    pub(super) fn timeout(&mut self, context: &mut EventContext<'_>) {
        if self.state_deadline(&context.rail).is_none_or(|deadline| context.now < deadline)
            || self.defer_once(context)
        {
            return;
        }
        match self.state {
            State::Healthy | State::Unneeded | State::Closed => {}
            State::Broken { .. } if self.waits_for_destroy(context) => self.wait_for_destroy(context),
            State::Broken { .. } => self.close(LostReason::NotDrained { cause: self.cause.clone() }, context),
            State::Waiting { .. } => self.close(LostReason::PortDown, context),
            State::Resting { .. } => self.try_once_more(context),
            State::Parting { .. } => self.end_leaving(context),
            State::Creating { .. } => self.give_up_queue_pair(too_slow("created"), context),
            State::Asked { tried, .. } => self.fail(RebuildFailure::Unanswered, tried, context),
            State::Connecting { tried, .. } => {
                self.fail(RebuildFailure::NotConnected(too_slow("connected")), tried, context);
            }
            State::Making { next: None, .. } => {
                self.give_up_queue_pair(too_slow("created and connected"), context);
            }
            State::Making { next: Some(ask), give_up_at, .. } => {
                self.discard(context.actions);
                self.make(ask, give_up_at, context);
            }
            State::Answered { attempt, give_up_at, .. } => {
                self.discard_unconfirmed(attempt, give_up_at, context)
            }
            State::PeerInformed { .. } => self.close_without_request(context),
        }
    }

    /// Defers the deadline once by a moment; true if it did. See [`Limit`].
    fn defer_once(&mut self, context: &EventContext<'_>) -> bool {
        match &mut self.state {
            State::Broken { until, .. }
            | State::Creating { until, .. }
            | State::Connecting { until, .. }
            | State::Making { until, .. } => until.defer_once(context.now),
            _ => false,
        }
    }

    /// When to call [`LaneMachine::timeout`].
    pub(super) fn deadline(&self, rail: &RailView) -> Option<Instant> {
        let destroy_at = self.destroy_at.filter(|_| self.waits_for_drain(rail));
        destroy_at.into_iter().chain(self.state_deadline(rail)).min()
    }

    fn state_deadline(&self, rail: &RailView) -> Option<Instant> {
        match self.state {
            State::Healthy | State::Unneeded | State::Closed => None,
            State::Waiting { .. } => match rail.device {
                // Long before, another rail may have worked.
                DeviceHealth::PortDown(since) if !rail.others_healthy => {
                    Some(rail.alone_since.map_or(since, |alone| alone.max(since)) + PORT_LIMIT)
                }
                _ => None,
            },
            State::Broken { until, .. }
            | State::Creating { until, .. }
            | State::Connecting { until, .. }
            | State::Making { until, .. } => Some(until.next_check()),
            State::Asked { until, .. }
            | State::Resting { until }
            | State::Parting { until }
            | State::PeerInformed { until, .. }
            | State::Answered { until, .. } => Some(until),
        }
    }

    /// Moves a healthy lane to ERROR.
    pub(super) fn set_error(
        &mut self,
        reason: &'static str,
        ask: Option<RebuildRequest>,
        context: &mut EventContext<'_>,
    ) {
        reason.clone_into(&mut self.cause);
        self.state = State::Broken { until: Limit::after(STEP_LIMIT, context.now), ask };
        (self.destroy_at, self.destroyed_by) = (Some(context.now + DRAIN_LIMIT), None);
        context.actions.push(Action::Break { lane: self.index, reason });
        self.ask_for_quiet(context);
    }

    /// Installs the queue pair of `attempt`: the lane is healthy.
    pub(super) fn install(&mut self, attempt: u32, context: &mut EventContext<'_>) {
        context.actions.push(Action::Install { lane: self.index, attempt });
        self.state = State::Healthy;
        self.failure = None;
        self.cause.clear();
        self.quiesce.replaced();
        (self.made, self.untold, self.puts_off) = (true, false, false);
        (self.put_off_since, self.pause) = (None, Duration::ZERO);
    }

    /// Discards the queue pair that was to be installed.
    pub(super) fn discard(&mut self, actions: &mut Actions) {
        let Some(attempt) = self.under_way() else { return };
        let lane = self.index;
        // The leader may be connected to it, and have posted requests. It may ask soon whether they can still arrive.
        let is_urgent = self.policy.rails && matches!(self.state, State::Answered { .. });
        actions.push(match is_urgent {
            true => Action::DiscardNow { lane, attempt },
            false => Action::Discard { lane, attempt },
        });
    }

    /// Discards a queue pair that is reported when no attempt waits for it.
    pub(super) fn discard_late(&mut self, attempt: u32, context: &mut EventContext<'_>) {
        if self.under_way() != Some(attempt) {
            context.actions.push(Action::Discard { lane: self.index, attempt });
        }
    }

    /// Closes the lane for good, and sends Refused to the peer.
    pub(super) fn close(&mut self, reason: LostReason, context: &mut EventContext<'_>) {
        context.actions.push(Action::Close { lane: self.index, reason: reason.clone() });
        self.end(reason, context);
        self.send_refused(context);
    }

    /// The creation took too long: where no other rail works, it is not tried again.
    fn give_up_queue_pair(&mut self, error: String, context: &mut EventContext<'_>) {
        if !context.rail.others_healthy {
            self.pause = self.pause.max(PATIENCE);
        }
        self.close_without_queue_pair(error, context);
    }

    pub(super) fn close_without_queue_pair(&mut self, error: String, context: &mut EventContext<'_>) {
        // A device that is lost refuses queue pairs before it says so.
        let may_come = context.rail.others_come && self.pause < PATIENCE;
        if context.rail.others_healthy || may_come {
            self.discard(context.actions);
            self.failure = Some(RebuildFailure::NotCreated(error));
            self.rest(context);
            if !self.policy.leads {
                self.wait_on(None, context);
            }
            return;
        }
        self.close(LostReason::NoQueuePair { error, cause: self.cause.clone() }, context);
    }

    /// Sends Refused: this end of the lane is closed.
    pub(super) fn send_refused(&self, context: &mut EventContext<'_>) {
        if self.policy.heals && !self.lingers {
            context
                .actions
                .push_frame(ChannelFrame::Refused { lane: self.index as u32, attempt: self.attempt });
        }
    }

    pub(super) fn end(&mut self, reason: LostReason, context: &mut EventContext<'_>) {
        self.discard(context.actions);
        self.state = State::Closed;
        self.answer_peer(context);
        context.closed = Some(reason);
    }

    /// Its old queue pair is drained, and not yet replaced.
    pub(super) fn is_drained(&self) -> bool {
        !matches!(self.state, State::Healthy | State::Broken { .. } | State::Closed)
    }

    /// The attempt with a queue pair that exists or is being created.
    pub(super) fn under_way(&self) -> Option<u32> {
        match self.state {
            State::Creating { .. } | State::Asked { .. } | State::Connecting { .. } => Some(self.attempt),
            State::Making { attempt, .. } | State::Answered { attempt, .. } => Some(attempt),
            State::Healthy
            | State::Broken { .. }
            | State::Waiting { .. }
            | State::Resting { .. }
            | State::Unneeded
            | State::PeerInformed { .. }
            | State::Parting { .. }
            | State::Closed => None,
        }
    }
}

fn too_slow(what: &str) -> String {
    format!("it was not {what} within {} s", DRIVER_LIMIT.as_secs())
}

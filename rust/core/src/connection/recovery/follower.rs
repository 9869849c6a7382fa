//! The follower, which accepted the connection: it makes its part of a rebuild when the leader requests it.

use std::time::Instant;

use super::lane::{EventContext, LaneMachine, RebuildRequest, State};
use super::limit::Limit;
use super::{Action, DRIVER_LIMIT, FOLLOW_LIMIT, LostReason, RebuildFailure, STEP_LIMIT};
use crate::control::ChannelFrame;
use crate::control::wire::LaneRecord;

impl LaneMachine {
    /// The lane is drained: creates the new queue pair if the leader has requested it, else sends Broken.
    pub(super) fn wait_for_leader(&mut self, ask: Option<RebuildRequest>, context: &mut EventContext<'_>) {
        let give_up_at = context.now + FOLLOW_LIMIT;
        self.state = State::PeerInformed { until: give_up_at, missed: None };
        match ask {
            Some(ask) => self.make(ask, give_up_at, context),
            None => {
                self.untold = true;
                self.tell_leader(context);
            }
        }
    }

    /// Sends Broken, if that was put off until the rail is not held any more.
    pub(super) fn tell_leader(&mut self, context: &mut EventContext<'_>) {
        if self.untold && matches!(self.state, State::PeerInformed { .. }) && !context.rail.is_held() {
            self.untold = false;
            self.send_broken(context);
        }
    }

    /// The leader requests a rebuild. Its attempts count up: one that is not newer is a repetition.
    pub(super) fn rebuild(&mut self, attempt: u32, record: LaneRecord, context: &mut EventContext<'_>) {
        if self.policy.leads || !self.policy.heals || !is_newer(attempt, self.attempt) {
            return;
        }
        self.attempt = attempt;
        let ask = RebuildRequest { attempt, record };
        match &mut self.state {
            State::Healthy => self.set_error("the peer asks for a rebuild", Some(ask), context),
            State::Broken { until, ask: asked } => {
                // The time runs from the first request: a peer cannot postpone the end.
                if asked.replace(ask).is_none() {
                    *until = Limit::after(STEP_LIMIT, context.now);
                }
            }
            // One queue pair at a time is created, whatever the peer requests.
            State::Making { next, .. } => *next = Some(ask),
            &mut State::PeerInformed { until, .. } => self.make(ask, until, context),
            State::Unneeded => self.make(ask, context.now + FOLLOW_LIMIT, context),
            &mut State::Answered { give_up_at, .. } => {
                self.discard(context.actions);
                self.make(ask, give_up_at, context);
            }
            State::Closed => self.send_refused(context),
            // The leader need not wait for an answer: it moves its own parts, and learns when the lane is closed.
            State::Parting { .. } => self.put_off(attempt, context),
            State::Waiting { .. }
            | State::Resting { .. }
            | State::Creating { .. }
            | State::Asked { .. }
            | State::Connecting { .. } => {}
        }
    }

    /// Creates the queue pair for the leader's request. No other creation is under way.
    pub(super) fn make(
        &mut self,
        ask: RebuildRequest,
        mut give_up_at: Instant,
        context: &mut EventContext<'_>,
    ) {
        if context.rail.others_healthy {
            give_up_at = give_up_at.max(context.now + FOLLOW_LIMIT);
        }
        self.state = State::PeerInformed { until: give_up_at, missed: None };
        if context.now >= give_up_at {
            return self.close_without_request(context);
        }
        if context.rail.port_is_down() {
            return self.put_off(ask.attempt, context);
        }
        self.puts_off = false;
        let until = Limit::after(DRIVER_LIMIT, context.now);
        self.state = State::Making { attempt: ask.attempt, until, next: None, give_up_at };
        let (lane, attempt) = (self.index, ask.attempt);
        context.actions.push(Action::CreateConnected { lane, attempt, peer: ask.record });
    }

    /// The port is down, so nothing is done for the leader's request. It need not wait for the answer, if it knows the frame that says so:
    /// otherwise it requests again after a while.
    pub(super) fn put_off(&mut self, attempt: u32, context: &mut EventContext<'_>) {
        if self.policy.rails {
            self.puts_off = true;
            context.actions.push_frame(ChannelFrame::NotNow { lane: self.index as u32, attempt });
        }
    }

    /// The port is up: the leader, which waits for that, is told.
    pub(super) fn answer_at_last(&mut self, context: &mut EventContext<'_>) {
        if std::mem::take(&mut self.puts_off) {
            self.send_broken(context);
        }
    }

    /// The creation has ended: answers the leader, or continues with a newer request.
    pub(super) fn answer(
        &mut self,
        result: Result<LaneRecord, String>,
        next: Option<RebuildRequest>,
        give_up_at: Instant,
        context: &mut EventContext<'_>,
    ) {
        let State::Making { attempt, .. } = self.state else { return };
        match (result, next) {
            (_, Some(ask)) => {
                self.discard(context.actions);
                self.make(ask, give_up_at, context);
            }
            (Ok(record), None) => {
                self.state = State::Answered { attempt, until: context.now + STEP_LIMIT, give_up_at };
                context.actions.push_frame(ChannelFrame::Rebuilt {
                    lane: self.index as u32,
                    attempt,
                    record,
                });
            }
            (Err(error), None) => self.close_without_queue_pair(error, context),
        }
    }

    /// The new queue pair does not connect to the leader's, which may be destroyed: a leader that has abandoned an
    /// attempt begins another. A leader that still waits gets no answer and then begins another.
    pub(super) fn not_connected(&mut self, error: String, context: &mut EventContext<'_>) {
        let State::Making { next, give_up_at, .. } = self.state else { return };
        self.discard(context.actions);
        self.failure = Some(RebuildFailure::NotConnected(error));
        self.state = State::PeerInformed { until: give_up_at, missed: None };
        if let Some(ask) = next {
            self.make(ask, give_up_at, context);
        }
    }

    /// The leader is connected too. If this side has discarded its queue pair meanwhile, the leader's lane is
    /// connected to nothing, and gets Broken.
    pub(super) fn ready(&mut self, attempt: u32, context: &mut EventContext<'_>) {
        match self.state {
            State::Answered { attempt: answered, .. } if attempt == answered => {
                self.install(attempt, context)
            }
            State::PeerInformed { missed, .. } if missed == Some(attempt) => {
                self.state = State::PeerInformed { until: context.now + FOLLOW_LIMIT, missed: None };
                self.send_broken(context);
            }
            _ => {}
        }
    }

    /// The leader was not ready in time. It may consider the lane healthy, and gets Broken.
    pub(super) fn discard_unconfirmed(
        &mut self,
        attempt: u32,
        give_up_at: Instant,
        context: &mut EventContext<'_>,
    ) {
        self.discard(context.actions);
        self.state = State::PeerInformed { until: give_up_at, missed: Some(attempt) };
        if context.now >= give_up_at {
            if !context.rail.others_healthy {
                return self.close_without_request(context);
            }
            self.wait_on(Some(attempt), context);
        }
        self.send_broken(context);
    }

    /// Waits for a request for another while: another rail works.
    pub(super) fn wait_on(&mut self, missed: Option<u32>, context: &mut EventContext<'_>) {
        self.state = State::PeerInformed { until: context.now + FOLLOW_LIMIT, missed };
    }

    pub(super) fn close_without_request(&mut self, context: &mut EventContext<'_>) {
        if let State::PeerInformed { missed, .. } = self.state
            && context.rail.others_healthy
        {
            return self.wait_on(missed, context);
        }
        let (failure, cause) = (self.failure.take(), self.cause.clone());
        self.close(LostReason::NotAsked { failure, cause }, context);
    }

    fn send_broken(&self, context: &mut EventContext<'_>) {
        context.actions.push_frame(ChannelFrame::Broken { lane: self.index as u32 });
    }
}

/// Whether an attempt was begun after another, also across a wrap of the numbers.
fn is_newer(attempt: u32, other: u32) -> bool {
    (1..=u32::MAX / 2).contains(&attempt.wrapping_sub(other))
}

//! The leader, which opened the connection: it begins the rebuilds.

use super::lane::{EventContext, LaneMachine, State};
use super::limit::Limit;
use super::{
    Action, DRIVER_LIMIT, FIRST_PAUSE, FOLLOW_LIMIT, LAST_PAUSE, LAST_PAUSE_UNMADE, LostReason, MAX_ATTEMPTS,
    RebuildFailure, STEP_LIMIT,
};
use crate::control::ChannelFrame;
use crate::control::wire::LaneRecord;

impl LaneMachine {
    /// The next attempt, after `tried` in a row; once the port is up, and the rail is not held.
    pub(super) fn try_again(&mut self, tried: u32, context: &mut EventContext<'_>) {
        if context.rail.port_is_down() || context.rail.is_held() {
            self.state = State::Waiting { tried };
            return;
        }
        if tried >= MAX_ATTEMPTS {
            if context.rail.others_healthy {
                return self.rest(context);
            }
            let failure = self.failure.take().unwrap_or(RebuildFailure::Unanswered);
            let cause = self.cause.clone();
            return self.close(LostReason::NotRebuilt { attempts: tried, failure, cause }, context);
        }
        self.attempt = self.attempt.wrapping_add(1);
        self.state = State::Creating { tried: tried + 1, until: Limit::after(DRIVER_LIMIT, context.now) };
        context.actions.push(Action::Create { lane: self.index, attempt: self.attempt });
    }

    /// The attempt under way has failed.
    pub(super) fn fail(&mut self, failure: RebuildFailure, tried: u32, context: &mut EventContext<'_>) {
        self.discard(context.actions);
        self.failure = Some(failure);
        // No attempt is current until the next one begins.
        self.state = State::Waiting { tried };
        self.try_again(tried, context);
    }

    /// Pauses, longer each time, instead of closing the lane: another rail works.
    pub(super) fn rest(&mut self, context: &mut EventContext<'_>) {
        // What has never worked may never do.
        let last = if self.made { LAST_PAUSE } else { LAST_PAUSE_UNMADE };
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, last);
        self.state = State::Resting { until: context.now + self.pause };
    }

    /// The peer's port is down: it does nothing for this attempt, and sends Broken once the port is up. Attempts are not counted, so that a
    /// flapping port does not use them up; a peer that never says anything else has as long as a follower waits.
    pub(super) fn put_off_by_peer(&mut self, attempt: u32, context: &mut EventContext<'_>) {
        let State::Asked { tried, .. } = self.state else { return };
        if attempt != self.attempt {
            return;
        }
        self.discard(context.actions);
        let since = *self.put_off_since.get_or_insert(context.now);
        if context.rail.others_healthy {
            self.failure = Some(RebuildFailure::PortDown);
            return self.rest(context);
        }
        // Long before, another rail may have worked.
        let since = context.rail.alone_since.map_or(since, |alone| alone.max(since));
        if context.now.saturating_duration_since(since) >= FOLLOW_LIMIT {
            let (attempts, cause) = (tried, self.cause.clone());
            let failure = RebuildFailure::PortDown;
            return self.close(LostReason::NotRebuilt { attempts, failure, cause }, context);
        }
        self.failure = Some(RebuildFailure::PortDown);
        self.state = State::Resting { until: context.now + STEP_LIMIT };
    }

    /// The pause is over: one attempt, or all of them if no other rail works any more.
    pub(super) fn try_once_more(&mut self, context: &mut EventContext<'_>) {
        let tried = if context.rail.others_healthy { MAX_ATTEMPTS - 1 } else { 0 };
        self.try_again(tried, context);
    }

    /// The creation of the new queue pair has ended: requests the rebuild from the peer.
    pub(super) fn ask(
        &mut self,
        tried: u32,
        result: Result<LaneRecord, String>,
        context: &mut EventContext<'_>,
    ) {
        match result {
            Ok(record) => {
                self.state = State::Asked { tried, until: context.now + STEP_LIMIT };
                let (lane, attempt) = (self.index as u32, self.attempt);
                context.actions.push_frame(ChannelFrame::Rebuild { lane, attempt, record });
            }
            Err(error) => self.close_without_queue_pair(error, context),
        }
    }

    /// The peer has answered: connects to its new queue pair.
    pub(super) fn rebuilt(&mut self, attempt: u32, record: LaneRecord, context: &mut EventContext<'_>) {
        let State::Asked { tried, .. } = self.state else { return };
        if attempt == self.attempt {
            self.state = State::Connecting { tried, until: Limit::after(DRIVER_LIMIT, context.now) };
            context.actions.push(Action::Connect { lane: self.index, attempt, peer: record });
        }
    }

    /// The new queue pair is connected: sends Ready and installs it.
    pub(super) fn declare_ready(&mut self, attempt: u32, context: &mut EventContext<'_>) {
        self.install(attempt, context);
        context.actions.push_frame(ChannelFrame::Ready { lane: self.index as u32, attempt });
    }

    /// The peer's end has failed, or has discarded its new queue pair. Received before the peer has answered an
    /// attempt, it refers to the lane as it was before.
    pub(super) fn broken_at_peer(&mut self, context: &mut EventContext<'_>) {
        if !self.policy.leads || !self.policy.heals {
            return;
        }
        match self.state {
            State::Healthy => self.set_error("the peer's end of the lane has failed", None, context),
            State::Connecting { tried, .. } => self.fail(RebuildFailure::GivenUp, tried, context),
            // The peer uses its end of the rail, or no other rail works there.
            State::Unneeded => self.need(context),
            // The peer's port is up again, or its rail is not held any more.
            State::Resting { .. } => self.try_once_more(context),
            _ => {}
        }
    }
}

//! The side that was connected to: it makes the other half of a rebuild when the leader asks for it.

use std::time::Instant;

use super::lane::{Ask, Lane, State, Turn};
use super::limit::Limit;
use super::{Action, DRIVER_LIMIT, FOLLOW_LIMIT, Failure, LostReason, STEP_LIMIT};
use crate::control::ChannelFrame;
use crate::control::wire::LaneRecord;

impl Lane {
    /// The lane is drained: makes the other half if the leader has asked for it, else says that it should.
    pub(super) fn await_leader(&mut self, ask: Option<Ask>, turn: &mut Turn<'_>) {
        let give_up_at = turn.now + FOLLOW_LIMIT;
        self.state = State::Told { until: give_up_at, missed: None };
        match ask {
            Some(ask) => self.make(ask, give_up_at, turn),
            None => self.say_broken(turn),
        }
    }

    /// The leader asks for a rebuild. Its attempts count up: what is not newer was asked before.
    pub(super) fn rebuild(&mut self, attempt: u32, record: LaneRecord, turn: &mut Turn<'_>) {
        if self.role.leads || !self.role.heals || !is_newer(attempt, self.attempt) {
            return;
        }
        self.attempt = attempt;
        let ask = Ask { attempt, record };
        match &mut self.state {
            State::Healthy => self.break_off("the peer asks for a rebuild", Some(ask), turn),
            State::Broken { until, ask: asked } => {
                // The time runs from the first request: a peer cannot put the end off.
                if asked.replace(ask).is_none() {
                    *until = Limit::after(STEP_LIMIT, turn.now);
                }
            }
            // One at a time is made, whatever the peer asks for.
            State::Making { next, .. } => *next = Some(ask),
            &mut State::Told { until, .. } => self.make(ask, until, turn),
            &mut State::Answered { give_up_at, .. } => {
                self.discard(turn.actions);
                self.make(ask, give_up_at, turn);
            }
            State::Closed => self.tell_closed(turn),
            State::Waiting { .. }
            | State::Creating { .. }
            | State::Asked { .. }
            | State::Connecting { .. } => {}
        }
    }

    /// Makes the half that the leader asks for, where nothing else is under way.
    pub(super) fn make(&mut self, ask: Ask, give_up_at: Instant, turn: &mut Turn<'_>) {
        self.state = State::Told { until: give_up_at, missed: None };
        if turn.now >= give_up_at {
            return self.close_unasked(turn);
        }
        if turn.port_is_down() {
            // Without an answer the leader asks again: by then the port may be back.
            return;
        }
        let until = Limit::after(DRIVER_LIMIT, turn.now);
        self.state = State::Making { attempt: ask.attempt, until, next: None, give_up_at };
        let (lane, attempt) = (self.index, ask.attempt);
        turn.actions.push(Action::CreateConnected { lane, attempt, peer: ask.record });
    }

    /// The new queue pair is there, or is not: answers the leader, or goes on with what it asked for meanwhile.
    pub(super) fn answer(
        &mut self,
        result: Result<LaneRecord, String>,
        next: Option<Ask>,
        give_up_at: Instant,
        turn: &mut Turn<'_>,
    ) {
        let State::Making { attempt, .. } = self.state else { return };
        match (result, next) {
            (_, Some(ask)) => {
                self.discard(turn.actions);
                self.make(ask, give_up_at, turn);
            }
            (Ok(record), None) => {
                self.state = State::Answered { attempt, until: turn.now + STEP_LIMIT, give_up_at };
                turn.actions.say(ChannelFrame::Rebuilt { lane: self.index as u32, attempt, record });
            }
            (Err(error), None) => self.close_without_queue_pair(error, turn),
        }
    }

    /// The new queue pair does not connect to the leader's. That one may be gone: a leader that has given an attempt up
    /// begins another. If it has not, it gets no answer, and does so then.
    pub(super) fn not_connected(&mut self, error: String, turn: &mut Turn<'_>) {
        let State::Making { next, give_up_at, .. } = self.state else { return };
        self.discard(turn.actions);
        self.failure = Some(Failure::NotConnected(error));
        self.state = State::Told { until: give_up_at, missed: None };
        if let Some(ask) = next {
            self.make(ask, give_up_at, turn);
        }
    }

    /// The leader is connected too. If it says so when we have given our half up, it takes a lane to be ready that
    /// leads nowhere, and must be told.
    pub(super) fn ready(&mut self, attempt: u32, turn: &mut Turn<'_>) {
        match self.state {
            State::Answered { attempt: answered, .. } if attempt == answered => self.install(attempt, turn),
            State::Told { missed, .. } if missed == Some(attempt) => {
                self.state = State::Told { until: turn.now + FOLLOW_LIMIT, missed: None };
                self.say_broken(turn);
            }
            _ => {}
        }
    }

    /// The leader was not ready in time. It may believe that it is, and is told.
    pub(super) fn give_half_up(&mut self, attempt: u32, give_up_at: Instant, turn: &mut Turn<'_>) {
        self.discard(turn.actions);
        self.state = State::Told { until: give_up_at, missed: Some(attempt) };
        if turn.now >= give_up_at {
            return self.close_unasked(turn);
        }
        self.say_broken(turn);
    }

    pub(super) fn close_unasked(&mut self, turn: &mut Turn<'_>) {
        let (failure, cause) = (self.failure.take(), self.cause.clone());
        self.close(LostReason::NotAsked { failure, cause }, turn);
    }

    fn say_broken(&self, turn: &mut Turn<'_>) {
        turn.actions.say(ChannelFrame::Broken { lane: self.index as u32 });
    }
}

/// Whether an attempt was begun after another, also when the numbers start over.
fn is_newer(attempt: u32, other: u32) -> bool {
    (1..=u32::MAX / 2).contains(&attempt.wrapping_sub(other))
}

//! One lane: its states, and what both sides do alike.

use std::time::Instant;

use super::actions::Actions;
use super::limit::Limit;
use super::{Action, DRIVER_LIMIT, Failure, LostReason, PORT_LIMIT, Role, STEP_LIMIT};
use crate::connection::DeviceHealth;
use crate::control::ChannelFrame;
use crate::control::wire::LaneRecord;

/// A lane of a connection.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) index: usize,
    pub(super) role: Role,
    pub(super) state: State,
    /// The last attempt that the leader began, or that the follower was asked for.
    pub(super) attempt: u32,
    /// Why it is not healthy.
    pub(super) cause: String,
    /// What became of the last attempt that failed, since it was healthy.
    pub(super) failure: Option<Failure>,
}

/// Where a lane stands. A state with `until` ends at that time, if nothing else has ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// In working order.
    Healthy,
    /// The queue pair is in ERROR and not drained.
    Broken {
        until: Limit,
        /// Follower: what the leader has asked for meanwhile.
        ask: Option<Ask>,
    },
    /// Leader: drained, and waits for the port. Of the attempts so far `tried` failed.
    Waiting { tried: u32 },
    /// Leader: a new queue pair is being created, for attempt `tried` in a row.
    Creating { tried: u32, until: Limit },
    /// Leader: the peer was asked for its half.
    Asked { tried: u32, until: Instant },
    /// Leader: the peer has answered; the new queue pair is being connected to the peer's.
    Connecting { tried: u32, until: Limit },
    /// Follower: drained, and waits to be asked.
    Told {
        until: Instant,
        /// The attempt for which it had answered and given its new queue pair up.
        missed: Option<u32>,
    },
    /// Follower: a new queue pair is being created and connected to the leader's.
    Making {
        attempt: u32,
        until: Limit,
        /// A newer request of the leader, which comes next.
        next: Option<Ask>,
        /// When the lane is given up at the latest.
        give_up_at: Instant,
    },
    /// Follower: the new queue pair is connected, and the leader knows; it has to be ready.
    Answered { attempt: u32, until: Instant, give_up_at: Instant },
    /// Closed for good.
    Closed,
}

/// What a leader has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) attempt: u32,
    pub(super) record: LaneRecord,
}

/// One event: when it is, how the device is, and where the consequences go.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    pub(super) now: Instant,
    pub(super) device: DeviceHealth,
    pub(super) actions: &'a mut Actions,
    /// Why the lane was closed, if it was.
    pub(super) closed: Option<LostReason>,
}

impl Turn<'_> {
    pub(super) fn port_is_down(&self) -> bool {
        matches!(self.device, DeviceHealth::PortDown(_))
    }
}

impl Lane {
    /// A healthy one.
    pub(super) fn new(index: usize, role: Role) -> Self {
        Self { index, role, state: State::Healthy, attempt: 0, cause: String::new(), failure: None }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Its queue pair is in ERROR.
    pub(super) fn broken(&mut self, reason: &str, turn: &mut Turn<'_>) {
        if self.state == State::Healthy {
            reason.clone_into(&mut self.cause);
            self.state = State::Broken { until: Limit::after(STEP_LIMIT, turn.now), ask: None };
        }
    }

    /// Its queue pair is in ERROR and drained.
    pub(super) fn drained(&mut self, reason: &str, turn: &mut Turn<'_>) {
        self.broken(reason, turn);
        let State::Broken { ask, .. } = self.state else { return };
        if !self.role.heals {
            self.close(LostReason::NotHealed(self.cause.clone()), turn);
        } else if self.role.leads {
            self.try_again(0, turn);
        } else {
            self.await_leader(ask, turn);
        }
    }

    /// Its queue pair was destroyed by the lane's worker.
    pub(super) fn destroyed(&mut self, turn: &mut Turn<'_>) {
        if !self.is_closed() {
            self.end(LostReason::Destroyed, turn);
            self.tell_closed(turn);
        }
    }

    /// The peer has closed its end.
    pub(super) fn refused(&mut self, turn: &mut Turn<'_>) {
        if self.role.heals && !self.is_closed() {
            turn.actions.push(Action::Close { lane: self.index, reason: LostReason::Refused });
            self.end(LostReason::Refused, turn);
        }
    }

    /// The port went down or came back. Queue pairs that are to replace a broken one do not outlast it either.
    pub(super) fn device_changed(&mut self, turn: &mut Turn<'_>) {
        if !turn.port_is_down() {
            if let State::Waiting { tried } = self.state {
                self.try_again(tried, turn);
            }
            return;
        }
        match self.state {
            // Where lanes are not rebuilt, the device's own retries are the better chance.
            State::Healthy if self.role.heals => self.break_off("the port is down", None, turn),
            State::Creating { tried, .. } | State::Asked { tried, .. } | State::Connecting { tried, .. } => {
                self.discard(turn.actions);
                // It failed for no fault of the peer: a port that flaps must not use up the attempts.
                self.state = State::Waiting { tried: tried.saturating_sub(1) };
            }
            State::Making { give_up_at, .. } => {
                self.discard(turn.actions);
                self.state = State::Told { until: give_up_at, missed: None };
            }
            State::Answered { attempt, give_up_at, .. } => {
                self.discard(turn.actions);
                self.state = State::Told { until: give_up_at, missed: Some(attempt) };
            }
            _ => {}
        }
    }

    /// A new queue pair was created, or was not.
    pub(super) fn created(&mut self, attempt: u32, result: Result<LaneRecord, String>, turn: &mut Turn<'_>) {
        match self.state {
            State::Creating { tried, .. } if attempt == self.attempt => self.ask(tried, result, turn),
            State::Making { attempt: under_way, next, give_up_at, .. } if attempt == under_way => {
                self.answer(result, next, give_up_at, turn);
            }
            _ => self.discard_late(attempt, turn),
        }
    }

    /// A new queue pair was connected, or was not.
    pub(super) fn connected(&mut self, attempt: u32, result: Result<(), String>, turn: &mut Turn<'_>) {
        match (self.state, result) {
            (State::Connecting { .. }, Ok(())) if attempt == self.attempt => {
                self.declare_ready(attempt, turn)
            }
            (State::Connecting { tried, .. }, Err(error)) if attempt == self.attempt => {
                self.fail(Failure::NotConnected(error), tried, turn);
            }
            (State::Making { attempt: under_way, .. }, Err(error)) if attempt == under_way => {
                self.not_connected(error, turn);
            }
            _ => self.discard_late(attempt, turn),
        }
    }

    /// Does what its time has come for.
    pub(super) fn timeout(&mut self, turn: &mut Turn<'_>) {
        if self.deadline(turn.device).is_none_or(|deadline| turn.now < deadline) || self.look_again(turn) {
            return;
        }
        match self.state {
            State::Healthy | State::Closed => {}
            State::Broken { .. } => self.close(LostReason::NotDrained { cause: self.cause.clone() }, turn),
            State::Waiting { .. } => self.close(LostReason::PortDown, turn),
            State::Creating { .. } => self.close_without_queue_pair(too_slow("created"), turn),
            State::Asked { tried, .. } => self.fail(Failure::Unanswered, tried, turn),
            State::Connecting { tried, .. } => {
                self.fail(Failure::NotConnected(too_slow("connected")), tried, turn);
            }
            State::Making { next: None, .. } => {
                self.close_without_queue_pair(too_slow("created and connected"), turn);
            }
            State::Making { next: Some(ask), give_up_at, .. } => {
                self.discard(turn.actions);
                self.make(ask, give_up_at, turn);
            }
            State::Answered { attempt, give_up_at, .. } => self.give_half_up(attempt, give_up_at, turn),
            State::Told { .. } => self.close_unasked(turn),
        }
    }

    /// Looks again in a moment, if this was the first look.
    fn look_again(&mut self, turn: &Turn<'_>) -> bool {
        match &mut self.state {
            State::Broken { until, .. }
            | State::Creating { until, .. }
            | State::Connecting { until, .. }
            | State::Making { until, .. } => until.look_again(turn.now),
            _ => false,
        }
    }

    /// When to call [`Lane::timeout`].
    pub(super) fn deadline(&self, device: DeviceHealth) -> Option<Instant> {
        match self.state {
            State::Healthy | State::Closed => None,
            State::Waiting { .. } => match device {
                DeviceHealth::PortDown(since) => Some(since + PORT_LIMIT),
                DeviceHealth::Up | DeviceHealth::Lost(_) => None,
            },
            State::Broken { until, .. }
            | State::Creating { until, .. }
            | State::Connecting { until, .. }
            | State::Making { until, .. } => Some(until.next_look()),
            State::Asked { until, .. } | State::Told { until, .. } | State::Answered { until, .. } => {
                Some(until)
            }
        }
    }

    /// Moves a healthy lane to ERROR.
    pub(super) fn break_off(&mut self, reason: &'static str, ask: Option<Ask>, turn: &mut Turn<'_>) {
        reason.clone_into(&mut self.cause);
        self.state = State::Broken { until: Limit::after(STEP_LIMIT, turn.now), ask };
        turn.actions.push(Action::Break { lane: self.index, reason });
    }

    /// The queue pair of `attempt` takes the lane's place.
    pub(super) fn install(&mut self, attempt: u32, turn: &mut Turn<'_>) {
        turn.actions.push(Action::Install { lane: self.index, attempt });
        self.state = State::Healthy;
        self.failure = None;
        self.cause.clear();
    }

    /// Gives up the queue pair that was to take the lane's place.
    pub(super) fn discard(&mut self, actions: &mut Actions) {
        if let Some(attempt) = self.under_way() {
            actions.push(Action::Discard { lane: self.index, attempt });
        }
    }

    /// The same for one that comes when it is not waited for.
    pub(super) fn discard_late(&mut self, attempt: u32, turn: &mut Turn<'_>) {
        if self.under_way() != Some(attempt) {
            turn.actions.push(Action::Discard { lane: self.index, attempt });
        }
    }

    /// Closes it for good, and says so to the peer.
    pub(super) fn close(&mut self, reason: LostReason, turn: &mut Turn<'_>) {
        turn.actions.push(Action::Close { lane: self.index, reason: reason.clone() });
        self.end(reason, turn);
        self.tell_closed(turn);
    }

    pub(super) fn close_without_queue_pair(&mut self, error: String, turn: &mut Turn<'_>) {
        self.close(LostReason::NoQueuePair { error, cause: self.cause.clone() }, turn);
    }

    /// Tells the peer that this end is closed.
    pub(super) fn tell_closed(&self, turn: &mut Turn<'_>) {
        if self.role.heals {
            turn.actions.say(ChannelFrame::Refused { lane: self.index as u32, attempt: self.attempt });
        }
    }

    fn end(&mut self, reason: LostReason, turn: &mut Turn<'_>) {
        self.discard(turn.actions);
        self.state = State::Closed;
        turn.closed = Some(reason);
    }

    /// The attempt whose queue pair exists, or is being made.
    fn under_way(&self) -> Option<u32> {
        match self.state {
            State::Creating { .. } | State::Asked { .. } | State::Connecting { .. } => Some(self.attempt),
            State::Making { attempt, .. } | State::Answered { attempt, .. } => Some(attempt),
            State::Healthy
            | State::Broken { .. }
            | State::Waiting { .. }
            | State::Told { .. }
            | State::Closed => None,
        }
    }
}

fn too_slow(what: &str) -> String {
    format!("it was not {what} within {} s", DRIVER_LIMIT.as_secs())
}

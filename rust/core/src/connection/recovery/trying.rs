//! Trials of paths: before a rail is made, one request of no bytes goes over its two NICs.
//!
//! ```text
//! leader: new queue pair ── TryPath ──▶ follower: new queue pair, connected to the leader's
//!         connects its own, writes  ◀── PathTried: ready ──
//!         the rail is made, or not   ── PathTried: ended ──▶ destroys it
//! ```
//! The queue pairs of a trial are no lanes. There is one trial at a time for each number of a rail, so a peer that asks without end has as
//! many queue pairs as there are numbers.

use std::time::Instant;

use super::adding::{Adding, NewRail, is_possible};
use super::{Action, DRIVER_LIMIT, Machine, STEP_LIMIT};
use crate::control::wire::LaneRecord;
use crate::control::{ChannelFrame, PathAnswer, RailRefusal};

/// How far a trial is. Its number is that of the rail's last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Trial {
    /// There is none.
    #[default]
    None,
    /// Leader: the queue pair here is being created.
    Creating { until: Instant },
    /// Leader: the peer's queue pair is awaited.
    Asked { until: Instant },
    /// Leader: the queue pairs are connected, and the answer to a request is awaited.
    Writing { until: Instant },
    /// Follower: the queue pair here is being created and connected; `next` is a newer question of the leader.
    Making { until: Instant, next: Option<Question>, ended: bool },
    /// Follower: it is connected, and the leader's request is awaited.
    Held { until: Instant },
}

/// A leader's [`ChannelFrame::TryPath`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    number: u32,
    nic: u16,
    record: LaneRecord,
}

impl Trial {
    fn until(&self) -> Option<Instant> {
        match *self {
            Self::None => None,
            Self::Creating { until }
            | Self::Asked { until }
            | Self::Writing { until }
            | Self::Making { until, .. }
            | Self::Held { until } => Some(until),
        }
    }
}

impl Machine {
    /// Leader: as [`Machine::add_rail`], once a request has gone from NIC `own` here to NIC `peer` there. If it has not,
    /// [`Action::PathRefused`] follows; [`Action::RailRefused`] if that could not be tried.
    pub(in crate::connection) fn try_rail(
        &mut self,
        rail: usize,
        (own, peer): (u16, u16),
        lanes: usize,
        now: Instant,
    ) {
        let new = NewRail { own, peer, lanes };
        let may_try = self.policy.rails && self.policy.leads && !self.is_over() && is_possible(rail, lanes);
        let place = self.rails.get_mut(rail).filter(|place| may_try && place.adding == Adding::Free);
        let Some(place) = place else { return self.add_rail(rail, own, peer, lanes, now) };
        place.adding = Adding::Trying(new);
        place.trials = place.trials.wrapping_add(1);
        place.trial = Trial::Creating { until: now + DRIVER_LIMIT };
        self.actions.push(Action::CreateTrial { rail, number: place.trials, nic: own });
    }

    /// The end of [`Action::CreateTrial`] or [`Action::AnswerTrial`]. `Err(None)`: the queue pair was created, and not connected.
    pub(in crate::connection) fn trial_created(
        &mut self,
        rail: usize,
        number: u32,
        result: Result<LaneRecord, Option<RailRefusal>>,
        now: Instant,
    ) {
        if self.is_over() {
            return;
        }
        let Some(place) = self.rails.get_mut(rail) else { return };
        let is_current = number == place.trials;
        match (place.trial, place.adding) {
            (Trial::Creating { .. }, Adding::Trying(new)) if is_current => match result {
                Ok(record) => {
                    place.trial = Trial::Asked { until: now + STEP_LIMIT };
                    let (rail, NewRail { own, peer, .. }) = (rail as u8, new);
                    self.actions.push_frame(ChannelFrame::TryPath { rail, number, own, peer, record });
                }
                Err(why) => self.not_tried(rail, why.unwrap_or(RailRefusal::Unusable)),
            },
            (Trial::Making { next, ended, .. }, _) if is_current => {
                place.trial = Trial::None;
                let answer = match result {
                    Ok(record) if next.is_none() && !ended => {
                        place.trial = Trial::Held { until: now + STEP_LIMIT };
                        PathAnswer::Ready(record)
                    }
                    Ok(_) => {
                        self.actions.push(Action::EndTrial { rail, number });
                        PathAnswer::Unreached
                    }
                    Err(Some(why)) => PathAnswer::Refused(why),
                    Err(None) => PathAnswer::Unreached,
                };
                match next {
                    Some(question) => self.answer_trial(rail, question, now),
                    None if ended => {}
                    None => self.answer(rail, number, answer),
                }
            }
            _ if result.is_ok() => self.actions.push(Action::EndTrial { rail, number }),
            _ => {}
        }
    }

    /// The end of [`Action::WriteTrial`].
    pub(in crate::connection) fn trial_written(
        &mut self,
        rail: usize,
        number: u32,
        result: Result<(), String>,
    ) {
        if self.is_over() {
            return;
        }
        let Some(place) = self.rails.get_mut(rail) else { return };
        // Also where the trial was given up meanwhile.
        self.actions.push(Action::EndTrial { rail, number });
        let (Trial::Writing { .. }, Adding::Trying(new)) = (place.trial, place.adding) else { return };
        if number != place.trials {
            return;
        }
        place.trial = Trial::None;
        let NewRail { own, peer, lanes } = new;
        match result {
            Ok(()) => {
                place.adding = Adding::Opening(new);
                self.actions.push(Action::OpenRail { rail, nic: own, peer, lanes });
            }
            Err(reason) => {
                place.adding = Adding::Free;
                self.actions.push(Action::PathRefused { rail, reason });
            }
        }
        self.answer(rail, number, PathAnswer::Ended);
    }

    /// Follower: the leader tries a path. `nic` is that of this end.
    pub(super) fn path_is_tried(
        &mut self,
        number_of_rail: u8,
        number: u32,
        nic: u16,
        record: LaneRecord,
        now: Instant,
    ) {
        let rail = usize::from(number_of_rail);
        if self.policy.leads || !is_possible(rail, 1) {
            return;
        }
        let Some(place) = self.rails.get_mut(rail) else { return };
        let question = Question { number, nic, record };
        match &mut place.trial {
            _ if place.adding != Adding::Free => {
                self.answer(rail, number, PathAnswer::Refused(RailRefusal::Unknown));
            }
            // One queue pair at a time is created, whatever the peer asks.
            Trial::Making { next, .. } => *next = Some(question).filter(|_| number != place.trials),
            Trial::Held { .. } if number == place.trials => {}
            Trial::Held { .. } => {
                let number = place.trials;
                self.actions.push(Action::EndTrial { rail, number });
                self.answer_trial(rail, question, now);
            }
            _ => self.answer_trial(rail, question, now),
        }
    }

    /// What the peer says of a trial.
    pub(super) fn path_was_tried(&mut self, rail: u8, number: u32, answer: PathAnswer) {
        let rail = usize::from(rail);
        let Some(place) = self.rails.get_mut(rail).filter(|place| place.trials == number) else { return };
        match (&mut place.trial, answer) {
            (Trial::Asked { until }, PathAnswer::Ready(peer)) => {
                // Behind the driver's own limit.
                place.trial = Trial::Writing { until: *until + DRIVER_LIMIT };
                self.actions.push(Action::WriteTrial { rail, number, peer });
            }
            (Trial::Asked { .. }, PathAnswer::Refused(why)) => {
                self.actions.push(Action::EndTrial { rail, number });
                self.not_tried(rail, why);
            }
            (Trial::Asked { .. }, PathAnswer::Unreached) => {
                (place.trial, place.adding) = (Trial::None, Adding::Free);
                self.actions.push(Action::EndTrial { rail, number });
                let reason =
                    "the peer's queue pair did not connect: its log says why at level DEBUG".to_owned();
                self.actions.push(Action::PathRefused { rail, reason });
            }
            (Trial::Making { next: None, ended, .. }, PathAnswer::Ended) => *ended = true,
            (Trial::Held { .. }, PathAnswer::Ended) => {
                place.trial = Trial::None;
                self.actions.push(Action::EndTrial { rail, number });
            }
            _ => {}
        }
    }

    /// When the first trial has taken too long.
    pub(super) fn trial_deadline(&self) -> Option<Instant> {
        self.rails.iter().filter_map(|rail| rail.trial.until()).min()
    }

    /// Ends trials that have taken too long. What is still created for them is destroyed once it is reported.
    pub(super) fn give_up_trials(&mut self, now: Instant) {
        for rail in 0..self.rails.len() {
            let Some(place) = self.rails.get_mut(rail) else { return };
            if place.trial.until().is_none_or(|until| now < until) {
                continue;
            }
            let (trial, number) = (std::mem::take(&mut place.trial), place.trials);
            self.actions.push(Action::EndTrial { rail, number });
            match trial {
                // Nothing is known of the path.
                Trial::Creating { .. } => self.not_tried(rail, RailRefusal::Unusable),
                Trial::Asked { .. } => {
                    self.answer(rail, number, PathAnswer::Ended);
                    self.not_tried(rail, RailRefusal::Unusable);
                }
                Trial::Writing { .. } => {
                    place.adding = Adding::Free;
                    let reason = "a request of no bytes was not answered".to_owned();
                    self.actions.push(Action::PathRefused { rail, reason });
                    self.answer(rail, number, PathAnswer::Ended);
                }
                Trial::Making { next: Some(question), .. } => self.answer_trial(rail, question, now),
                Trial::Making { ended: false, .. } => self.answer(rail, number, PathAnswer::Unreached),
                Trial::Making { .. } | Trial::Held { .. } | Trial::None => {}
            }
        }
    }

    /// Follower: creates the queue pair that a question is for. No other creation for this number is waited for.
    fn answer_trial(&mut self, rail: usize, question: Question, now: Instant) {
        let Some(place) = self.rails.get_mut(rail) else { return };
        let Question { number, nic, record } = question;
        place.trials = number;
        place.trial = Trial::Making { until: now + DRIVER_LIMIT, next: None, ended: false };
        self.actions.push(Action::AnswerTrial { rail, number, nic, peer: record });
    }

    /// Leader: a path could not be tried.
    fn not_tried(&mut self, rail: usize, why: RailRefusal) {
        if let Some(place) = self.rails.get_mut(rail) {
            (place.trial, place.adding) = (Trial::None, Adding::Free);
            self.actions.push(Action::RailRefused { rail, why });
        }
    }

    fn answer(&mut self, rail: usize, number: u32, answer: PathAnswer) {
        self.actions.push_frame(ChannelFrame::PathTried { rail: rail as u8, number, answer });
    }
}

//! Trials of the path of the second rail.

use super::agenda::Event;
use super::driver::record;
use super::world::World;
use super::{Mutation, Violation};
use crate::control::RailRefusal;

/// A queue pair of a trial. Peers know it by its place among all of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct TrialPair {
    pub(super) end: usize,
    rail: usize,
    number: u32,
    peer: Option<u32>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A helper creates it, or works on it.
    Busy,
    Live,
    Gone,
}

impl TrialPair {
    pub(super) fn is_there(&self) -> bool {
        self.state != State::Gone
    }
}

impl World {
    /// The machine begins a trial, or answers one.
    pub(super) fn create_trial(&mut self, end: usize, rail: usize, number: u32, peer: Option<u32>) {
        let pair = self.trial_pairs.len() as u32;
        self.trial_pairs.push(TrialPair { end, rail, number, peer, state: State::Busy });
        let delay = self.random.between(50, self.conditions.create);
        self.after(delay, Event::TrialCreated { end, pair });
    }

    pub(super) fn trial_created(&mut self, end: usize, pair: u32) {
        let TrialPair { rail, number, peer, .. } = self.trial_pairs[pair as usize];
        let result = if self.random.percent(self.conditions.create_fails) {
            Err(Some(RailRefusal::Unusable))
        } else if peer.is_some() && self.random.percent(self.conditions.connect_fails) {
            Err(None)
        } else {
            Ok(record(pair))
        };
        self.set(pair, if result.is_ok() { State::Live } else { State::Gone });
        self.report(end, |machine, now| machine.trial_created(rail, number, result, now));
    }

    /// The leader connects its queue pair and writes.
    pub(super) fn write_trial(&mut self, end: usize, rail: usize, number: u32, peer: u32) {
        let Some(pair) = self.find_trial(end, rail, number) else {
            return self.violation(Violation::NotConnected, "a trial that does not exist is to be written");
        };
        self.set(pair, State::Busy);
        self.trial_pairs[pair as usize].peer = Some(peer);
        let delay = self.random.between(50, self.conditions.connect + 2 * self.conditions.wire);
        self.after(delay, Event::TrialWritten { end, pair });
    }

    pub(super) fn trial_written(&mut self, end: usize, pair: u32) {
        let TrialPair { rail, number, peer, .. } = self.trial_pairs[pair as usize];
        let far = peer.and_then(|peer| self.trial_pairs.get(peer as usize));
        let arrives =
            far.is_some_and(|far| far.state == State::Live && far.end != end && far.peer == Some(pair));
        let is_carried_out = arrives && !self.random.percent(self.conditions.connect_fails);
        self.set(pair, State::Live);
        self.is_proven |= is_carried_out;
        let is_believed = is_carried_out || self.mutation == Mutation::BelievesTrials;
        let result = is_believed.then_some(()).ok_or_else(|| "retries exceeded".to_owned());
        self.report(end, |machine, _| machine.trial_written(rail, number, result));
    }

    pub(super) fn end_trial(&mut self, end: usize, rail: usize, number: u32) {
        // One that a helper works on is ended once it is reported.
        if let Some(pair) = self.find_trial(end, rail, number)
            && self.trial_pairs[pair as usize].state == State::Live
            && self.mutation != Mutation::KeepsTrials
        {
            self.set(pair, State::Gone);
        }
    }

    /// The connection of an end is over.
    pub(super) fn end_trials(&mut self, end: usize) {
        self.trial_pairs.iter_mut().filter(|pair| pair.end == end).for_each(|pair| pair.state = State::Gone);
    }

    /// A leader opens a rail: its path was tried before.
    pub(super) fn check_trial(&mut self, end: usize) {
        if end == 0 && !self.is_proven {
            self.violation(Violation::Untried, "a rail is made over NICs of which nothing is known");
        }
    }

    fn find_trial(&self, end: usize, rail: usize, number: u32) -> Option<u32> {
        let is_it =
            |pair: &TrialPair| (pair.end, pair.rail, pair.number) == (end, rail, number) && pair.is_there();
        self.trial_pairs.iter().position(is_it).map(|pair| pair as u32)
    }

    fn set(&mut self, pair: u32, state: State) {
        // What was ended with its connection stays so.
        let place = &mut self.trial_pairs[pair as usize];
        if place.is_there() {
            place.state = state;
        }
    }
}

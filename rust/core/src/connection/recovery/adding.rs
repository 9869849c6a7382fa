//! Rails that are added while the connection is in use.
//!
//! ```text
//! leader: opens its end ── AddRail ──▶ follower: opens its end
//!         lanes are built ◀── RailReady ──       lanes wait for rebuilds
//! ```
//! The lanes of a new rail start as if they had failed and were drained, so that they are built as others are rebuilt: the first one at
//! once. The others are needed when either end uses the rail, when no other rail works, or when one of its lanes is closed for good. A
//! follower that needs one sends Broken.

use std::time::Instant;

use super::lane::{EventContext, LaneMachine, State};
use super::{Action, FOLLOW_LIMIT, LANES_PER_RAIL, Machine, RebuildPolicy, STEP_LIMIT};
use crate::control::{ChannelFrame, RailRefusal};
use crate::rails::MAX_RAILS;

/// How far a rail is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Adding {
    /// There is none of this number.
    Free,
    /// Leader: whether the two NICs reach each other is being tried.
    Trying(NewRail),
    /// This end is being opened.
    Opening(NewRail),
    /// Leader: this end is open; the peer's answer is awaited.
    Asked { rail: NewRail, until: Instant },
    /// Leader: the peer has not answered. It may still make the rail, so the number is used for these NICs only until it answers.
    Unanswered(NewRail),
    /// Both ends have it.
    Added(NewRail),
}

/// A rail as one end has asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NewRail {
    /// The NIC here, by its place in our list.
    pub(super) own: u16,
    /// The peer's.
    pub(super) peer: u16,
    pub(super) lanes: usize,
}

impl Machine {
    /// Leader: makes a rail of NIC `own` here and NIC `peer` there. [`Action::RailRefused`] follows if it is not made.
    pub(in crate::connection) fn add_rail(
        &mut self,
        rail: usize,
        own: u16,
        peer: u16,
        lanes: usize,
        _now: Instant,
    ) {
        if self.is_over() {
            return;
        }
        let new = NewRail { own, peer, lanes };
        let is_possible = self.policy.rails && self.policy.leads && is_possible(rail, lanes);
        let place = self.rails.get_mut(rail).filter(|_| is_possible).map(|rail| &mut rail.adding);
        match place {
            Some(place) if *place == Adding::Free || *place == Adding::Unanswered(new) => {
                *place = Adding::Opening(new);
                self.actions.push(Action::OpenRail { rail, nic: own, peer, lanes });
            }
            Some(
                Adding::Trying(known)
                | Adding::Opening(known)
                | Adding::Asked { rail: known, .. }
                | Adding::Added(known),
            ) if *known == new => {}
            _ => self.actions.push(Action::RailRefused { rail, why: RailRefusal::Unknown }),
        }
    }

    /// Follower: asks the leader for a rail of NIC `own` here and NIC `peer` there.
    pub(in crate::connection) fn request_rail(&mut self, own: u16, peer: u16) {
        if self.policy.rails && !self.policy.leads && !self.is_over() {
            self.actions.push_frame(ChannelFrame::RequestRail { own, peer });
        }
    }

    /// Leader: the rail that the peer has asked for is not made.
    pub(in crate::connection) fn refuse_request(&mut self, own: u16, peer: u16, why: RailRefusal) {
        if self.policy.rails && self.policy.leads && !self.is_over() {
            self.actions.push_frame(ChannelFrame::RequestRefused { own, peer, why });
        }
    }

    /// The end of [`Action::OpenRail`].
    pub(in crate::connection) fn rail_opened(
        &mut self,
        rail: usize,
        result: Result<(), RailRefusal>,
        now: Instant,
    ) {
        if self.is_over() {
            return;
        }
        let Some(place) = self.rails.get_mut(rail).map(|rail| &mut rail.adding) else { return };
        let &mut Adding::Opening(new) = place else { return };
        let number = rail as u8;
        match (result, self.policy.leads) {
            (Ok(()), true) => {
                *place = Adding::Asked { rail: new, until: now + STEP_LIMIT };
                let NewRail { own, peer, lanes } = new;
                self.actions.push_frame(ChannelFrame::AddRail {
                    rail: number,
                    own,
                    peer,
                    lanes: lanes as u8,
                });
            }
            (Ok(()), false) => {
                *place = Adding::Added(new);
                // Before anything of its lanes.
                self.actions.push_frame(ChannelFrame::RailReady { rail: number });
                self.begin_lanes(rail, new.lanes, now);
            }
            (Err(why), true) => {
                *place = Adding::Free;
                self.actions.push(Action::RailRefused { rail, why });
            }
            (Err(why), false) => {
                *place = Adding::Free;
                self.actions.push_frame(ChannelFrame::RailRefused { rail: number, why });
            }
        }
    }

    /// Follower: the leader adds a rail. `own` and `peer` are as this end calls them.
    pub(super) fn rail_is_added(&mut self, number: u8, own: u16, peer: u16, lanes: usize) {
        if self.policy.leads {
            return;
        }
        let (rail, new) = (usize::from(number), NewRail { own, peer, lanes });
        let refused = ChannelFrame::RailRefused { rail: number, why: RailRefusal::Unknown };
        let place = self.rails.get_mut(rail).filter(|_| is_possible(rail, lanes));
        match place.map(|rail| &mut rail.adding) {
            Some(place @ Adding::Free) => {
                *place = Adding::Opening(new);
                self.actions.push(Action::OpenRail { rail, nic: own, peer, lanes });
            }
            // It is answered once it is open.
            Some(Adding::Opening(known)) if *known == new => {}
            Some(Adding::Added(known)) if *known == new => {
                self.actions.push_frame(ChannelFrame::RailReady { rail: number });
            }
            _ => self.actions.push_frame(refused),
        }
    }

    /// Leader: the peer has its end of a rail.
    pub(super) fn rail_is_ready(&mut self, number: u8, now: Instant) {
        let rail = usize::from(number);
        let Some(place) = self.rails.get_mut(rail).map(|rail| &mut rail.adding) else { return };
        if let &mut Adding::Asked { rail: new, .. } = place {
            *place = Adding::Added(new);
            self.begin_lanes(rail, new.lanes, now);
        }
    }

    /// Leader: the peer does not make a rail.
    pub(super) fn rail_is_refused(&mut self, number: u8, why: RailRefusal) {
        let rail = usize::from(number);
        let Some(place) = self.rails.get_mut(rail).map(|rail| &mut rail.adding) else { return };
        match place {
            Adding::Asked { .. } => {
                *place = Adding::Free;
                self.actions.push(Action::RailRefused { rail, why });
            }
            Adding::Unanswered(_) => *place = Adding::Free,
            Adding::Free | Adding::Trying(_) | Adding::Opening(_) | Adding::Added(_) => {}
        }
    }

    /// When a peer must have answered.
    pub(super) fn answer_deadline(&self) -> Option<Instant> {
        let until = |adding| match adding {
            Adding::Asked { until, .. } => Some(until),
            _ => None,
        };
        self.rails.iter().filter_map(|rail| until(rail.adding)).min()
    }

    /// Gives up rails that the peer has not answered in time.
    pub(super) fn give_up_rails(&mut self, now: Instant) {
        for (number, rail) in self.rails.iter_mut().enumerate() {
            if let Adding::Asked { rail: new, until } = rail.adding
                && now >= until
            {
                rail.adding = Adding::Unanswered(new);
                self.actions.push(Action::RailRefused { rail: number, why: RailRefusal::Unusable });
            }
        }
    }

    /// A rail has carried something here: all of its lanes are needed.
    pub(in crate::connection) fn rail_is_used(&mut self, rail: usize, now: Instant) {
        self.with_rail(rail, now, LaneMachine::need);
    }

    /// A lane of a rail is closed: so that the rail can be used all the same, its other lanes are needed. Not where its device is lost.
    pub(super) fn need_others(&mut self, closed: usize, now: Instant) {
        let rail = closed / LANES_PER_RAIL;
        if self.rails.get(rail).is_some_and(|rail| !rail.view.device_is_lost()) {
            self.change_rail(rail, now, LaneMachine::need);
        }
    }

    fn begin_lanes(&mut self, rail: usize, lanes: usize, now: Instant) {
        let (policy, first) = (self.policy, rail * LANES_PER_RAIL);
        if let Some(rail) = self.rails.get_mut(rail) {
            rail.lanes = (0..lanes).map(|lane| LaneMachine::unmade(first + lane, policy, now)).collect();
        }
        self.settle(now);
        self.with_rail(rail, now, LaneMachine::begin);
    }
}

impl LaneMachine {
    /// One of a new rail, without a queue pair: it is built as if it had failed.
    fn unmade(index: usize, policy: RebuildPolicy, now: Instant) -> Self {
        let state = State::PeerInformed { until: now + FOLLOW_LIMIT, missed: None };
        Self { state, cause: "it was not made yet".to_owned(), made: false, ..Self::new(index, policy) }
    }

    /// Both ends have the rail.
    fn begin(&mut self, context: &mut EventContext<'_>) {
        let is_first = self.index.is_multiple_of(LANES_PER_RAIL);
        if self.policy.lanes_on_use && !is_first {
            self.state = State::Unneeded;
            if !context.rail.others_healthy {
                self.need(context);
            }
        } else if self.policy.leads {
            self.try_again(0, context);
        }
    }

    /// Has it made, if that was put off until it is needed.
    pub(super) fn need(&mut self, context: &mut EventContext<'_>) {
        match self.state {
            State::Unneeded if self.policy.leads => self.try_again(0, context),
            State::Unneeded => self.wait_for_leader(None, context),
            _ => {}
        }
    }

    pub(super) fn is_unneeded(&self) -> bool {
        self.state == State::Unneeded
    }
}

/// Whether a further rail can have this number and so many lanes.
pub(super) fn is_possible(rail: usize, lanes: usize) -> bool {
    (1..MAX_RAILS).contains(&rail) && (1..=LANES_PER_RAIL).contains(&lanes)
}

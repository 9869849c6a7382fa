//! Pairs that take over where a rail is lost for good.
//!
//! As long as its rails work, a NIC forms those of [`rail_pairs`](crate::rails::matching::rail_pairs) only. Where the NIC at one end of a rail is lost, the
//! one at the other end is *free*, unless it has other rails: it may form one with any NIC of that end. So a rail that is lost has one
//! *substitute*, a place with a number of its own, of which the pair is chosen when it is tried.

use std::collections::BTreeSet;

use super::{Pairing, Place, State};
use crate::rails::matching::{NicPair, share_layer};

/// How a rail was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The device here is, and can be used no more.
    Own,
    /// For all that is known the peer's is.
    Peer,
    /// Both NICs work, and not with each other.
    Pair,
}

impl Pairing {
    /// A rail that was made is lost, for good as far as is known. The place of a pair that may take over, if that is new.
    pub fn lost(&mut self, rail: usize, loss: Loss) -> Option<usize> {
        let place = self.places.get_mut(rail).filter(|place| place.state.has_rail())?;
        let has_left = std::mem::replace(&mut place.state, State::Lost) != State::Made;
        let own = place.pair.own;
        let is_gone = loss == Loss::Own && !self.gone.contains(&own);
        if has_left && !is_gone {
            return None;
        }
        if is_gone {
            self.gone.push(own);
        }
        // NICs that were not free are now.
        for rail in 0..self.places.len() {
            let is_open = |place: &Place| place.is_substitute && place.state == State::Free;
            if self.places.get(rail).is_some_and(is_open) {
                self.choose(rail);
            }
        }
        if has_left {
            return None;
        }
        self.add_best(loss == Loss::Pair)
    }

    /// The peer refuses its NIC for a rail that is made here. The place of a pair that may take over, if that is new.
    pub fn refused_by_peer(&mut self, rail: usize, now: u64) -> Option<usize> {
        self.now = now;
        let place = self.places.get_mut(rail).filter(|place| place.state == State::Made)?;
        place.state = State::Refused;
        // Its NIC would be refused for other rails too.
        let peer = place.pair.peer;
        (0..self.own.len()).for_each(|own| self.note_refused(NicPair { own, peer }));
        self.add_best(true)
    }

    fn add_best(&mut self, is_beside: bool) -> Option<usize> {
        let pair = self.best_pair(None)?;
        let added = self.add_substitute(pair)?;
        self.places.get_mut(added)?.is_beside = is_beside;
        Some(added)
    }

    /// The other end wants a rail of this pair, because one of these NICs has no rail that works. Its place; `None` if there can be none.
    pub fn take_over(&mut self, pair: NicPair, now: u64) -> Option<usize> {
        self.now = now;
        let is_possible = self.may_take_over && self.goes(pair) && self.has_no_place(pair, None);
        if !is_possible || self.is_refused(pair) {
            return None;
        }
        // One that waits for another pair, which only this end wants.
        let waiting = self.places.iter().position(|place| place.is_substitute && place.state == State::Free);
        let Some(rail) = waiting else { return self.add_substitute(pair) };
        self.places.get_mut(rail)?.pair = pair;
        Some(rail)
    }

    /// Whether a pair without a place could take over if every rail were lost now, as it may be at the other end.
    pub fn could_take_over(&self, now: u64) -> bool {
        let is_refused = |pair| self.refused.iter().any(|old| old.pair == pair && now < old.until);
        let mut others = self.other_pairs(None);
        self.free_number().is_some() && others.any(|pair| !is_refused(pair))
    }

    /// Whether the pair of this rail is chosen when it is tried.
    pub fn is_substitute(&self, rail: usize) -> bool {
        self.places.get(rail).is_some_and(|place| place.is_substitute)
    }

    /// Whether the rail was made and is lost.
    pub fn is_lost(&self, rail: usize) -> bool {
        self.places.get(rail).is_some_and(|place| place.state == State::Lost)
    }

    /// Whether a rail is of use beside others that work: a substitute, or one that the peer has refused, only if it lets more NICs work at a time. Or
    /// it is for two NICs that both work.
    pub fn is_of_use_beside(&self, rail: usize) -> bool {
        let widens = |pair| self.width(Some(rail), Some(pair)) > self.width(Some(rail), None);
        let Some(place) = self.places.get(rail) else { return false };
        let is_extra = place.is_substitute && !place.is_beside || place.state == State::Refused;
        !is_extra || widens(place.pair)
    }

    /// How many NICs work at a time at either end, over all rails but this one, and one of that pair.
    fn width(&self, rail: Option<usize>, and: Option<NicPair>) -> usize {
        let pairs =
            self.places_but(rail).filter(|place| self.holds(place)).map(|place| place.pair).chain(and);
        let (own, peer): (BTreeSet<_>, BTreeSet<_>) = pairs.map(|pair| (pair.own, pair.peer)).unzip();
        own.len().min(peer.len())
    }

    /// Whether the pair of a substitute may be tried now.
    pub(super) fn is_of_use(&self, rail: usize) -> bool {
        self.pair(rail).is_some_and(|pair| {
            self.goes(pair) && self.has_no_place(pair, Some(rail)) && !self.is_refused(pair)
        })
    }

    /// Gives a substitute the pair that is best now. False if there is none that may be tried.
    pub(super) fn choose(&mut self, rail: usize) -> bool {
        let Some(pair) = self.best_pair(Some(rail)).filter(|pair| !self.is_refused(*pair)) else {
            return false;
        };
        self.places.get_mut(rail).into_iter().for_each(|place| place.pair = pair);
        true
    }

    /// Whether no other place than that of `rail` has this pair.
    pub(super) fn has_no_place(&self, pair: NicPair, rail: Option<usize>) -> bool {
        !self.places.iter().enumerate().any(|(other, place)| Some(other) != rail && place.pair == pair)
    }

    /// The pair to take over: those first that were not tried, that let more NICs work, of which the NICs have the fewest rails, and that a
    /// network vouches for. `rail` has a pair, and looks for the best one.
    fn best_pair(&self, rail: Option<usize>) -> Option<NicPair> {
        let width = self.width(rail, None);
        let is_free = |pair: &NicPair| {
            self.is_free(rail, |other| other.own == pair.own)
                || self.is_free(rail, |other| other.peer == pair.peer)
        };
        let rails = |pair: &NicPair| {
            let places = self.places_but(rail).filter(|place| self.holds(place));
            places.filter(|place| place.pair.own == pair.own || place.pair.peer == pair.peer).count()
        };
        self.other_pairs(rail).filter(is_free).min_by_key(|pair| {
            let (times, widens) = (self.times_refused(*pair), self.width(rail, Some(*pair)) > width);
            (self.is_refused(*pair), times, !widens, rails(pair), !self.has_network(*pair))
        })
    }

    /// The pairs without a place, but for those of NICs that are gone.
    fn other_pairs(&self, rail: Option<usize>) -> impl Iterator<Item = NicPair> {
        let own = if self.may_take_over { self.own.len() } else { 0 };
        let all = (0..own).flat_map(|own| (0..self.peer.len()).map(move |peer| NicPair { own, peer }));
        all.filter(move |pair| self.goes(*pair) && self.has_no_place(*pair, rail))
    }

    fn goes(&self, pair: NicPair) -> bool {
        let ends = self.own.get(pair.own).zip(self.peer.get(pair.peer));
        !self.gone.contains(&pair.own) && ends.is_some_and(|(own, peer)| share_layer(own, peer))
    }

    /// Whether a NIC has lost a rail, and has no other one, made or to be made. `has` are the pairs with it.
    fn is_free(&self, rail: Option<usize>, has: impl Fn(NicPair) -> bool) -> bool {
        let mut of_nic = self.places_but(rail).filter(|place| has(place.pair));
        let mut lost = of_nic.clone().filter(|place| matches!(place.state, State::Refused | State::Lost));
        lost.next().is_some() && !of_nic.any(|place| self.holds(place))
    }

    fn places_but(&self, rail: Option<usize>) -> impl Iterator<Item = &Place> + Clone {
        self.places
            .iter()
            .enumerate()
            .filter(move |(number, _)| Some(*number) != rail)
            .map(|(_, place)| place)
    }

    /// A new place, or that of a rail which is not made and cannot be now.
    fn free_number(&self) -> Option<usize> {
        if self.places.len() < self.limit {
            return Some(self.places.len());
        }
        let is_useless = |place: &Place| {
            let is_gone = self.gone.contains(&place.pair.own);
            !place.is_substitute && place.state == State::Free && (is_gone || self.is_refused(place.pair))
        };
        self.places.iter().position(is_useless)
    }

    fn add_substitute(&mut self, pair: NicPair) -> Option<usize> {
        let rail = self.free_number()?;
        let place = Place { is_substitute: true, ..Place::new(pair) };
        match self.places.get_mut(rail) {
            Some(useless) => *useless = place,
            None => self.places.push(place),
        }
        Some(rail)
    }

    /// The other end has made a rail of a pair of its choice. Numbers that are not known here between are that end's.
    pub(super) fn made_there(&mut self, rail: usize, pair: NicPair) {
        if (self.places.len()..self.limit).contains(&rail) {
            self.places
                .resize(rail + 1, Place { state: State::Lost, is_substitute: true, ..Place::new(pair) });
        }
        if let Some(place) = self.places.get_mut(rail) {
            *place = Place { state: State::Made, is_substitute: true, ..Place::new(pair) };
        }
    }
}

#[cfg(test)]
#[path = "substitutes_tests.rs"]
mod tests;

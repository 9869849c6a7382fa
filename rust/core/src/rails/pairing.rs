//! Which pair of NICs each rail is to have, as long as it is not made: a pair that does not reach each other gives way to another one.
//!
//! In the words of this module a NIC of the end that has more of them is an *outer* one: it has one rail at most. One of the other end is
//! an *inner* one, and may have several. Where both have as many, those of this host are the outer ones.

mod substitutes;

pub use substitutes::Loss;

use super::matching::{NicEnd, NicPair, rail_pairs, share_layer, share_network};
use super::{MAX_RAILS, MILLISECOND, RailMap};

/// A pair that was found not to reach each other is tried again after that, then after twice as long each time, up to a minute: the end of
/// a peer that was slow may have been taken for that of its path.
const FIRST_REFUSAL: u64 = 1_000 * MILLISECOND;
const LONGEST_REFUSAL: u64 = 60_000 * MILLISECOND;

/// The pairs of a connection's rails. Times are nanoseconds of any one clock.
#[derive(Clone, Debug, Default)]
pub struct Pairing {
    own: Vec<NicEnd>,
    peer: Vec<NicEnd>,
    /// By the number of the rail.
    places: Vec<Place>,
    /// Pairs that did not reach each other when that was tried last.
    refused: Vec<Refused>,
    /// The time of the last event.
    now: u64,
    /// The pairs are those of the operator's map, and none takes the place of another.
    is_mapped: bool,
    /// Other pairs take over where a rail is lost.
    may_take_over: bool,
    /// NICs of this host that can be used no more.
    gone: Vec<usize>,
    /// Places that there are at most.
    limit: usize,
}

#[derive(Clone, Copy, Debug)]
struct Refused {
    pair: NicPair,
    /// It is not tried before.
    until: u64,
    /// In a row.
    times: u32,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    pair: NicPair,
    state: State,
    /// A pair of it has not reached each other.
    has_failed: bool,
    /// It takes over from a rail that is lost: its pair is chosen when it is tried.
    is_substitute: bool,
    /// Of a substitute: it is for two NICs that work.
    is_beside: bool,
}

impl Place {
    fn new(pair: NicPair) -> Self {
        Self { pair, state: State::Free, has_failed: false, is_substitute: false, is_beside: false }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing is known of the pair.
    Free,
    /// It is being tried, or its rail made.
    UnderWay,
    /// The rail is made, and keeps its pair.
    Made,
    /// It is made here, and the peer does not make it: it keeps its number and its pair, and its NICs are for other rails until the peer does.
    Refused,
    /// It was made, and is lost for good: its number stays in use.
    Lost,
}

impl State {
    /// Whether the pair has, or had, a rail of this number.
    fn has_rail(self) -> bool {
        matches!(self, Self::Made | Self::Refused | Self::Lost)
    }
}

impl Pairing {
    /// The pairs of [`rail_pairs`], `limit` at most. The first is that of the rail that there is.
    pub fn new(own: &[NicEnd], peer: &[NicEnd], first: NicPair, map: &RailMap, limit: usize) -> Self {
        let mut places: Vec<_> = rail_pairs(own, peer, first, map).into_iter().map(Place::new).collect();
        places.truncate(limit);
        if let Some(first) = places.first_mut() {
            first.state = State::Made;
        }
        let is_mapped = !map.pairs(own, peer).is_empty();
        Self {
            own: own.to_vec(),
            peer: peer.to_vec(),
            places,
            is_mapped,
            limit: limit.min(MAX_RAILS),
            ..Self::default()
        }
    }

    /// The same; where a rail is lost, other pairs take over, but for those of the operator's map.
    pub fn with_substitutes(self) -> Self {
        Self { may_take_over: !self.is_mapped, ..self }
    }

    /// The same as the other end sees them.
    pub fn swapped(self) -> Self {
        let swap = |pair: NicPair| NicPair { own: pair.peer, peer: pair.own };
        let place = |place: Place| Place { pair: swap(place.pair), ..place };
        Self {
            own: self.peer,
            peer: self.own,
            places: self.places.into_iter().map(place).collect(),
            refused: self.refused.into_iter().map(|old| Refused { pair: swap(old.pair), ..old }).collect(),
            ..self
        }
    }

    /// The pair that each rail has, or is to have.
    pub fn pairs(&self) -> impl ExactSizeIterator<Item = NicPair> {
        self.places.iter().map(|place| place.pair)
    }

    /// The pair of a rail.
    pub fn pair(&self, rail: usize) -> Option<NicPair> {
        self.places.get(rail).map(|place| place.pair)
    }

    /// The pair to make a rail of, which counts as under way from now on. `None` if there is none: no NIC that is left reaches the one that
    /// the rail is for, or that is to be tried again only later.
    pub fn begin(&mut self, rail: usize, now: u64) -> Option<NicPair> {
        self.now = now;
        let place = *self.places.get(rail)?;
        if place.state == State::Lost {
            return None;
        }
        if place.is_substitute && place.state == State::Free {
            if !self.is_of_use(rail) && !self.choose(rail) {
                return None;
            }
        } else if !place.state.has_rail() && self.is_refused(place.pair) && !self.replace(rail) {
            return None;
        }
        if place.has_failed && place.state == State::Free && !place.is_substitute && self.is_taken(rail) {
            // Two rails share the NIC if there is no other one.
            self.replace(rail);
        }
        let place = self.places.get_mut(rail)?;
        if place.state == State::Free {
            place.state = State::UnderWay;
        }
        Some(place.pair)
    }

    /// Whether [`Pairing::begin`] finds a pair. It may say yes where that finds none.
    pub fn may_begin(&self, rail: usize, now: u64) -> bool {
        let Some(place) = self.places.get(rail) else { return false };
        let is_refused = self.refused.iter().any(|old| old.pair == place.pair && now < old.until);
        place.state != State::Lost && (place.state.has_rail() || !is_refused || !self.is_mapped)
    }

    /// What was under way has ended, for reasons that say nothing of the pair.
    pub fn put_off(&mut self, rail: usize) {
        if let Some(place) = self.places.get_mut(rail).filter(|place| place.state == State::UnderWay) {
            place.state = State::Free;
        }
    }

    /// The pair of a rail does not reach each other. False, and no note is taken, if this end has made the rail: it keeps its pair.
    pub fn refuse(&mut self, rail: usize, now: u64) -> bool {
        self.now = now;
        self.put_off(rail);
        let place = self.places.get_mut(rail).filter(|place| place.state == State::Free);
        let Some(place) = place else { return false };
        place.has_failed = true;
        let pair = place.pair;
        self.note_refused(pair);
        true
    }

    fn note_refused(&mut self, pair: NicPair) {
        let times = self.times_refused(pair);
        let pause = (FIRST_REFUSAL << times.min(16)).min(LONGEST_REFUSAL);
        self.refused.retain(|old| old.pair != pair);
        self.refused.push(Refused { pair, until: self.now.saturating_add(pause), times: times + 1 });
    }

    /// What did not reach each other may be tried again at once.
    pub fn forget_refusals(&mut self) {
        self.refused.clear();
    }

    /// The rail is made of that pair, which this end may have expected elsewhere: what was expected there takes its place.
    pub fn made(&mut self, rail: usize, pair: NicPair) {
        let is_of_first = self.pair(0).is_some_and(|first| first.own == pair.own || first.peer == pair.peer);
        let Some(before) = self.pair(rail).filter(|_| !is_of_first && !self.is_substitute(rail)) else {
            return self.made_there(rail, pair);
        };
        let is_outer_own = self.is_outer_own();
        for place in self.places.iter_mut().filter(|place| !place.state.has_rail() && !place.is_substitute) {
            if outer(is_outer_own, place.pair) == outer(is_outer_own, pair) {
                place.pair =
                    joined(is_outer_own, outer(is_outer_own, before), inner(is_outer_own, place.pair));
            }
            if self.own.len() == self.peer.len() && place.pair.peer == pair.peer {
                place.pair.peer = before.peer;
            }
        }
        if let Some(place) = self.places.get_mut(rail) {
            *place = Place { pair, state: State::Made, ..*place };
        }
        self.refused.retain(|old| old.pair != pair);
    }

    /// The rail that is meant by these NICs, which the other end wants: the one with both, which this end may have made already and not lost, or
    /// one that is not made with either.
    pub fn rail_for(&self, wanted: NicPair) -> Option<usize> {
        let find = |fits: &dyn Fn(NicPair) -> bool| {
            self.places.iter().position(|place| !place.state.has_rail() && fits(place.pair))
        };
        self.places
            .iter()
            .position(|place| place.pair == wanted && place.state != State::Lost)
            .or_else(|| find(&|pair| pair.peer == wanted.peer))
            .or_else(|| find(&|pair| pair.own == wanted.own))
    }

    /// Whether other rails have taken the inner NIC of one, while it waited for its next try.
    fn is_taken(&self, rail: usize) -> bool {
        let Some(pair) = self.pair(rail) else { return false };
        let users = self.users(inner(self.is_outer_own(), pair), rail);
        let has = |user: &usize| {
            self.places.get(*user).is_some_and(|place| matches!(place.state, State::UnderWay | State::Made))
        };
        users.iter().filter(|user| has(user)).count() >= self.fair_share()
    }

    /// Rails that an inner NIC has where they are spread evenly.
    fn fair_share(&self) -> usize {
        self.count(true).div_ceil(self.count(false).max(1)).max(1)
    }

    /// Gives the outer NIC of a rail another inner one, and others what that one had. False if there is none.
    fn replace(&mut self, rail: usize) -> bool {
        if self.is_mapped {
            return false;
        }
        let (outer_count, inner_count) = (self.count(true), self.count(false));
        let fair = self.fair_share();
        let most = if outer_count > inner_count { outer_count } else { fair };
        (fair..=most).any(|room| {
            // What a network vouches for, and has not failed, keeps its NICs, but for others of the same network.
            [false, true].into_iter().any(|by_network| {
                let mut seen = Vec::new();
                self.find_inner(rail, Search { room, by_network, leaving: rail }, &mut seen)
            })
        })
    }

    /// Looks for an inner NIC for the outer one of a rail, by taking those of other rails that find another one in turn. `seen` has those
    /// that were looked at.
    fn find_inner(&mut self, rail: usize, search: Search, seen: &mut Vec<usize>) -> bool {
        let is_outer_own = self.is_outer_own();
        let Some(pair) = self.pair(rail) else { return false };
        let (nic, present) = (outer(is_outer_own, pair), inner(is_outer_own, pair));
        let count = if is_outer_own { self.peer.len() } else { self.own.len() };
        // From the present one on, so that not all come to the same one; those first that were not tried.
        let mut others: Vec<_> = (1..count).map(|step| (present + step) % count).collect();
        others.sort_by_key(|other| self.times_refused(joined(is_outer_own, nic, *other)));
        for other in others {
            let joined = joined(is_outer_own, nic, other);
            if seen.contains(&other) || !self.may_be(joined, search.by_network) {
                continue;
            }
            seen.push(other);
            let users = self.users(other, search.leaving);
            if users.len() < search.room
                || users.into_iter().any(|user| {
                    self.may_give_way(user, search.by_network) && self.find_inner(user, search, seen)
                })
            {
                if let Some(place) = self.places.get_mut(rail) {
                    place.pair = joined;
                }
                return true;
            }
        }
        false
    }

    /// The rails but `leaving` with that inner NIC. One that is known not to reach it holds nothing.
    fn users(&self, nic: usize, leaving: usize) -> Vec<usize> {
        let is_outer_own = self.is_outer_own();
        let uses = |(rail, place): (usize, &Place)| {
            let holds = self.holds(place) && inner(is_outer_own, place.pair) == nic;
            (rail != 0 && rail != leaving && holds).then_some(rail)
        };
        self.places.iter().enumerate().filter_map(uses).collect()
    }

    /// Whether its NICs are for its rail.
    fn holds(&self, place: &Place) -> bool {
        match place.state {
            State::Free => !self.is_refused(place.pair),
            State::UnderWay | State::Made => true,
            State::Refused | State::Lost => false,
        }
    }

    fn may_give_way(&self, rail: usize, by_network: bool) -> bool {
        self.places.get(rail).is_some_and(|place| {
            let is_sure = !place.has_failed && self.has_network(place.pair);
            place.state == State::Free && !place.is_substitute && (by_network || !is_sure)
        })
    }

    /// Whether two NICs may form a further rail.
    fn may_be(&self, pair: NicPair, by_network: bool) -> bool {
        let is_first = self.pair(0).is_some_and(|first| first.own == pair.own || first.peer == pair.peer);
        let (own, peer) = (self.own.get(pair.own), self.peer.get(pair.peer));
        let goes = own.zip(peer).is_some_and(|(own, peer)| share_layer(own, peer));
        // Where link layers differ an outer NIC may have several rails as well.
        let is_taken = self.pairs().any(|other| other == pair);
        !is_first && !is_taken && goes && !self.is_refused(pair) && (!by_network || self.has_network(pair))
    }

    fn has_network(&self, pair: NicPair) -> bool {
        let (own, peer) = (self.own.get(pair.own), self.peer.get(pair.peer));
        own.zip(peer).is_some_and(|(own, peer)| share_network(own, peer))
    }

    fn is_refused(&self, pair: NicPair) -> bool {
        self.refused.iter().any(|old| old.pair == pair && self.now < old.until)
    }

    fn times_refused(&self, pair: NicPair) -> u32 {
        self.refused.iter().find(|old| old.pair == pair).map_or(0, |old| old.times)
    }

    fn is_outer_own(&self) -> bool {
        self.own.len() >= self.peer.len()
    }

    /// How many NICs of an end may form further rails.
    fn count(&self, of_outer: bool) -> usize {
        let all = if self.is_outer_own() == of_outer { self.own.len() } else { self.peer.len() };
        all.saturating_sub(1)
    }
}

/// What a search for an inner NIC goes by.
#[derive(Clone, Copy)]
struct Search {
    /// Rails that an inner NIC has at most.
    room: usize,
    /// Only pairs of one network; then all rails that are not under way may give way.
    by_network: bool,
    /// The rail that it is for, which gives up what it has.
    leaving: usize,
}

fn outer(is_own: bool, pair: NicPair) -> usize {
    if is_own { pair.own } else { pair.peer }
}

fn inner(is_outer_own: bool, pair: NicPair) -> usize {
    outer(!is_outer_own, pair)
}

fn joined(is_outer_own: bool, outer: usize, inner: usize) -> NicPair {
    if is_outer_own { NicPair { own: outer, peer: inner } } else { NicPair { own: inner, peer: outer } }
}

#[cfg(test)]
#[path = "pairing_tests.rs"]
mod tests;

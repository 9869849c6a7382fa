//! Which rails a connection gets: the pairs of NICs of both ends, and what has the next one made.

use std::sync::Arc;

use super::Connection;
use super::nic_record::{self, bytes_per_second};
use super::rail::{LANES_PER_RAIL, Rails};
use super::rail_demand::RailDemand;
use super::rail_loads::RailLoads;
use super::rail_lost::is_of_pair;
use super::rail_record::nic_name;
use crate::control::RailRefusal;
use crate::control::wire::{NicList, NicRecord};
use crate::memory::Region;
use crate::pool::clock;
use crate::rails::{
    NicEnd, NicPair, Pairing, PlanLimits, RailMap, RailSet, Shape, cut_map_warning, layer_warning,
};
use crate::sync::{AtomicBool, Mutex, Ordering, lock};
use crate::transfer::Iov;

/// Which rails a connection may have, and the demand for them.
#[derive(Debug)]
pub(super) struct Adding {
    /// There are pairs of NICs without a rail. Written by the connection's task, read by submitters as a hint: Relaxed.
    has_pairs: AtomicBool,
    pub(super) pairs: Mutex<Pairs>,
    /// Other pairs take over where a rail is lost.
    other_pairs: bool,
    pub(super) demand: RailDemand,
}

/// What is known once the peer has named its NICs.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    /// Which pair each rail has, or is to have.
    pub(super) pairing: Pairing,
    /// The speeds of the ports of both ends, by the numbers of the NICs, in Mbit/s.
    own_speeds: Vec<u32>,
    peer_speeds: Vec<u32>,
    /// The names of the peer's NICs, by their numbers.
    peer_names: Vec<String>,
    /// Leader: the rails that the peer waits for, with the NICs that it has named.
    asked_for: Vec<(usize, NicPair)>,
}

impl Pairs {
    /// The speed of the slower port of a pair, in bytes per second.
    fn speed(&self, pair: NicPair) -> u64 {
        let speed = |speeds: &[u32], nic: usize| speeds.get(nic).copied().unwrap_or(0);
        bytes_per_second(speed(&self.own_speeds, pair.own).min(speed(&self.peer_speeds, pair.peer)))
    }

    /// The NICs by which the peer has asked for a rail, once.
    fn take_request(&mut self, rail: usize) -> Option<NicPair> {
        let at = self.asked_for.iter().position(|(asked, _)| *asked == rail)?;
        Some(self.asked_for.swap_remove(at).1)
    }
}

impl Adding {
    pub(super) fn new(limits: PlanLimits, other_pairs: bool) -> Self {
        let (pairs, demand) = (Mutex::default(), RailDemand::new(limits));
        Self { has_pairs: AtomicBool::new(false), pairs, other_pairs, demand }
    }

    /// The name of a NIC of the peer; empty if it has told none.
    pub(super) fn peer_name(&self, number: u16) -> String {
        lock(&self.pairs).peer_names.get(usize::from(number)).cloned().unwrap_or_default()
    }

    /// The NICs of the first rail, by their numbers; `None` until the peer has named its own.
    pub(super) fn first_pair(&self) -> Option<(u16, u16)> {
        lock(&self.pairs).pairing.pair(0).map(|pair| (pair.own as u16, pair.peer as u16))
    }

    /// The speed of a rail between these NICs, in bytes per second; 0 if it is not known.
    pub(super) fn speed(&self, own: u16, peer: u16) -> u64 {
        lock(&self.pairs).speed(NicPair { own: own.into(), peer: peer.into() })
    }

    /// A rail is made of these NICs.
    pub(super) fn note_made(&self, rail: usize, own: u16, peer: u16) {
        lock(&self.pairs).pairing.made(rail, NicPair { own: own.into(), peer: peer.into() });
    }

    /// Whether there are pairs of NICs without a rail.
    pub(super) fn has_pairs(&self) -> bool {
        self.has_pairs.load(Ordering::Relaxed)
    }

    /// Whether one of the rails that are not made can be: it is being made, or was not refused a moment ago. Or a pair could take over, once this
    /// end knows what the peer has lost.
    pub(super) fn could_make(&self, made: RailSet, now: u64) -> bool {
        let pairing = &lock(&self.pairs).pairing;
        let may_be_made =
            |rail| !made.has(rail) && !pairing.is_lost(rail) && !self.demand.is_refused(rail, now);
        (0..pairing.pairs().len()).any(may_be_made) || pairing.could_take_over(now)
    }

    /// What was refused may be tried again at once.
    pub(super) fn forget_refusals(&self) {
        lock(&self.pairs).pairing.forget_refusals();
        self.demand.forget_refusals();
    }

    /// All pairs have a rail, or some have none.
    pub(super) fn set_has_pairs(&self, has_pairs: bool) {
        self.has_pairs.store(has_pairs, Ordering::Relaxed);
    }
}

impl Connection {
    /// The NICs of this end, as the peer is told of them; `None` where the first is not among those that are told.
    pub(super) fn nic_list(&self) -> Option<NicList> {
        let record = |nic: &nic_record::NicRecord| NicRecord {
            speed_mbps: nic.speed_mbps,
            link_layer: nic.link_layer,
            mtu: mtu_code(nic.mtu),
            name: nic_name(&nic.name, nic.port),
            networks: nic.networks.clone(),
        };
        let nics: Vec<_> = self.context.nics().iter().map(record).collect();
        let told = NicList::new(self.context.own_nic(), nics).inspect_err(|error| {
            tracing::warn!(peer = %self.peer.control, "the peer is not told of the NICs of this host, one rail is used: {error}");
        });
        told.ok()
    }

    /// The peer has named its NICs.
    pub(super) fn take_nic_list(&self, peer: &NicList) {
        let Some(own) = self.nic_list() else { return };
        let (own_ends, peer_ends): (Vec<NicEnd>, _) = (own.ends(), peer.ends());
        let first = NicPair { own: usize::from(own.own()), peer: usize::from(peer.own()) };
        let map = &self.context.settings.rail_map;
        // As the leader sees it at both ends, so that a pair has the same number; of the map the other end does not know.
        let limit = self.context.settings.rails;
        let pairing = if self.leads {
            Pairing::new(&own_ends, &peer_ends, first, map, limit)
        } else {
            let first = NicPair { own: first.peer, peer: first.own };
            Pairing::new(&peer_ends, &own_ends, first, &RailMap::default(), limit).swapped()
        };
        let pairing = if self.rails.adding.other_pairs { pairing.with_substitutes() } else { pairing };
        if let Some(warning) = map.warning(&own_ends, &peer_ends).filter(|_| self.leads) {
            tracing::warn!(peer = %self.peer.control, "{warning}");
        }
        if let Some(warning) = cut_map_warning(&own_ends, &peer_ends, first, map).filter(|_| self.leads) {
            tracing::warn!(peer = %self.peer.control, "{warning}");
        }
        if let Some(warning) = layer_warning(&own_ends, &peer_ends, first) {
            tracing::warn!(peer = %self.peer.control, "{warning}");
        }
        if let Some(nic) = peer.get(peer.own()) {
            self.first_rail.set_peer_nic(&nic.name);
        }
        let speeds = |list: &NicList| list.nics().iter().map(|nic| nic.speed_mbps).collect();
        let peer_names = peer.nics().iter().map(|nic| nic.name.clone()).collect();
        let has_pairs = pairing.pairs().len() > 1;
        *lock(&self.rails.adding.pairs) = Pairs {
            pairing,
            own_speeds: speeds(&own),
            peer_speeds: speeds(peer),
            peer_names,
            asked_for: Vec::new(),
        };
        // What the demand for further rails is measured by.
        if let Some((flow, speed)) = self.rail_nic(0) {
            self.rails.loads.add_first(flow, speed);
        }
        self.rails.adding.set_has_pairs(has_pairs);
    }

    /// A transfer begins, of which this is an iov, and which has so many bytes: whether the rails that there are suffice. Where there can be no others,
    /// neither is asked for.
    #[inline]
    pub(super) fn consider_rails(&self, iov: impl FnOnce() -> Option<Iov>, bytes: impl FnOnce() -> u64) {
        if self.rails.adding.has_pairs() {
            self.want_rail(iov, bytes, || self.rails_that_carry());
        }
    }

    /// The same for what is under way already; these rails carry something.
    pub(super) fn consider_rails_beside(&self, carry: RailSet) {
        if self.rails.adding.has_pairs() {
            self.want_rail(|| None, || 0, || carry);
        }
    }

    #[cold]
    fn want_rail(
        &self,
        iov: impl FnOnce() -> Option<Iov>,
        bytes: impl FnOnce() -> u64,
        carry: impl FnOnce() -> RailSet,
    ) {
        let (adding, now) = (&self.rails.adding, clock::now_ns());
        if !adding.demand.is_due(now) {
            return;
        }
        let (bytes, carry, made) = (bytes(), carry(), self.rails.in_use());
        // No task looks for a connection with one rail.
        for nic in self.rail_nics().filter(|_| !self.has_rails()) {
            nic.flow.look(now, 1, || nic.counts());
        }
        let (flow, credits) = self.rails_flow();
        let mut loads = self.rails.loads.snapshot(&flow, &credits);
        // A rail of which all lanes are being rebuilt carries nothing now.
        loads.iter_mut().enumerate().for_each(|(rail, load)| load.up &= carry.has(rail));
        // Where nothing is carried, any rail is better than none.
        let region = self.region_to_move(iov(), now).filter(|_| carry.0 != 0);
        let mut pairs = lock(&adding.pairs);
        let count = pairs.pairing.pairs().len();
        if made.0.count_ones() as usize >= count {
            return adding.set_has_pairs(false);
        }
        let mut eligible = made;
        for (rail, pair) in pairs.pairing.pairs().enumerate().filter(|(rail, _)| !made.has(*rail)) {
            let flow = self.context.nic_if_open(pair.own).map(|nic| &*nic.flow);
            if let Some(load) = loads.get_mut(rail) {
                *load = RailLoads::of_unmade(flow, pairs.speed(pair));
            }
            // One that is being made counts, though its NIC may not have all regions yet.
            let is_of_use = || {
                let takes = |region: &Arc<Region>| self.context.nic_takes(pair.own, region);
                adding.demand.is_making(rail) || region.as_ref().is_none_or(takes)
            };
            let is_needed = carry.0 == 0 || pairs.pairing.is_of_use_beside(rail);
            if is_needed && pairs.pairing.may_begin(rail, now) && is_of_use() {
                eligible = eligible.with(rail);
            }
        }
        let shape = Shape { bytes, eligible, home: None, spread: 0 };
        let under_way = flow.iter().sum();
        if let Some(rail) = adding.demand.wanted(&shape, under_way, made, &loads, now) {
            self.request_rail(rail, &mut pairs, now);
        }
    }

    /// The region here that a further rail is to carry: that of the transfer which asks; for what is under way that of the last one which did.
    fn region_to_move(&self, iov: Option<Iov>, now: u64) -> Option<Arc<Region>> {
        let (demand, regions) = (&self.rails.adding.demand, self.context.registry.snapshot());
        let Some(iov) = iov else {
            return demand.region(now).and_then(|id| regions.by_id(id)).map(Arc::clone);
        };
        let region = match iov.region {
            Some(id) => regions.by_id(id),
            None => regions.by_address(iov.local, iov.length),
        };
        demand.note_region(region.map(|region| region.id), now);
        region.map(Arc::clone)
    }

    /// Leader: has the rail made, of a pair that is tried before, if one is left; follower: asks the leader for it.
    pub(super) fn request_rail(&self, rail: usize, pairs: &mut Pairs, now: u64) {
        if !self.leads {
            let pair = match pairs.pairing.is_substitute(rail) {
                true => pairs.pairing.begin(rail, now),
                false => pairs.pairing.pair(rail),
            };
            match pair {
                Some(NicPair { own, peer }) => self.rail_requests.request_rail(own as u16, peer as u16),
                None => self.rails.adding.demand.refused(rail, now),
            }
            return;
        }
        match pairs.pairing.begin(rail, now) {
            // One more than the first rail has, which is for probes.
            Some(NicPair { own, peer }) => {
                let lanes = (self.lanes.len() + 1).min(LANES_PER_RAIL);
                self.rail_requests.add_rail(rail, own as u16, peer as u16, lanes);
            }
            None => self.give_up_rail(rail, RailRefusal::Unusable, pairs, now),
        }
    }

    /// Leader: a rail is not made for now. A peer that has asked for it is told.
    pub(super) fn give_up_rail(&self, rail: usize, why: RailRefusal, pairs: &mut Pairs, now: u64) {
        self.rails.adding.demand.refused(rail, now);
        if let Some(NicPair { own, peer }) = pairs.take_request(rail) {
            self.rail_requests.decline(own as u16, peer as u16, why);
        }
    }

    /// Has every rail made that can be made, without waiting for them.
    #[doc(hidden)]
    pub fn add_rails_now(&self) {
        let (made, now) = (self.rails.in_use(), clock::now_ns());
        let mut pairs = lock(&self.rails.adding.pairs);
        let count = pairs.pairing.pairs().len();
        for rail in (0..count).filter(|rail| !made.has(*rail)) {
            self.request_rail(rail, &mut pairs, now);
        }
    }

    /// Leader: rail `rail` is not made.
    pub(super) fn rail_refused(&self, rail: usize, why: RailRefusal) {
        tracing::debug!(peer = %self.peer.control, rail, ?why, "a rail is not made");
        let (mut pairs, now) = (lock(&self.rails.adding.pairs), clock::now_ns());
        if !self.try_next_substitute(rail, why, &mut pairs, now) {
            pairs.pairing.put_off(rail);
            self.give_up_rail(rail, why, &mut pairs, now);
            // This end has made it, so its number keeps the pair.
            let next = if is_of_pair(why) { pairs.pairing.refused_by_peer(rail, now) } else { None };
            if let Some(next) = next {
                self.request_beside(next, &mut pairs, now);
            }
        }
    }

    /// Leader: the NICs of rail `rail` do not reach each other. Another pair takes their place, if there is one.
    pub(super) fn path_refused(&self, rail: usize, reason: &str) {
        let (mut pairs, now) = (lock(&self.rails.adding.pairs), clock::now_ns());
        let Some(pair) = pairs.pairing.pair(rail) else { return };
        let peer_nic = pairs.peer_names.get(pair.peer).map_or("?", |name| name);
        let then = "another pair of NICs takes their place, or they are tried again in a while";
        self.note_refused(
            rail,
            pair.own as u16,
            &format!("it does not reach {peer_nic} of the peer: {reason}; {then}"),
        );
        if !pairs.pairing.refuse(rail, now) {
            // Made here, and not by the peer, before the path failed. Its pair stays, so without a pause it would be tried without end.
            return self.give_up_rail(rail, RailRefusal::Unusable, &mut pairs, now);
        }
        self.rails.adding.demand.goes_on(rail, now);
        self.request_rail(rail, &mut pairs, now);
    }

    /// Leader: the peer has need of a rail of NIC `own` here and NIC `peer` there, or of another one with either.
    pub(super) fn rail_requested(&self, own: u16, peer: u16) {
        let wanted = NicPair { own: own.into(), peer: peer.into() };
        let (mut pairs, now) = (lock(&self.rails.adding.pairs), clock::now_ns());
        let made = self.rails.in_use();
        let found = pairs.pairing.rail_for(wanted).filter(|rail| !made.has(*rail));
        let is_other = |rail| pairs.pairing.is_substitute(rail) && pairs.pairing.pair(rail) != Some(wanted);
        // A substitute that waits takes over by the pair that the peer wants: this end may not know yet which NICs are lost there.
        let taken_over = match found {
            Some(rail) if !is_other(rail) => None,
            _ => self.substitute_for(wanted, &mut pairs, now),
        };
        let Some(rail) = taken_over.or(found) else {
            tracing::debug!(peer = %self.peer.control, own, nic = peer, "the peer asks for a rail that is no pair here, or made");
            return self.rail_requests.decline(own, peer, RailRefusal::Unknown);
        };
        pairs.asked_for.retain(|(asked, _)| *asked != rail);
        pairs.asked_for.push((rail, wanted));
        let demand = &self.rails.adding.demand;
        // A peer that asks without end has no more tries than this end itself.
        let may_begin = match taken_over {
            // What was refused was another pair. One that was refused does not take over.
            Some(rail) => {
                demand.goes_on(rail, now);
                true
            }
            None => demand.begin(rail, now),
        };
        if may_begin {
            return self.request_rail(rail, &mut pairs, now);
        }
        tracing::debug!(peer = %self.peer.control, rail, "the peer asks for a rail that is being made, or was refused");
        if !demand.is_making(rail)
            && let Some(NicPair { own, peer }) = pairs.take_request(rail)
        {
            self.rail_requests.decline(own as u16, peer as u16, RailRefusal::Unusable);
        }
    }

    /// Follower: the leader does not make the rail that it was asked for. It is asked again after a pause.
    pub(super) fn request_refused(&self, own: u16, peer: u16, why: RailRefusal) {
        tracing::debug!(peer = %self.peer.control, own, nic = peer, ?why, "the peer does not make a rail");
        let wanted = NicPair { own: own.into(), peer: peer.into() };
        let (mut pairs, now) = (lock(&self.rails.adding.pairs), clock::now_ns());
        let rail = pairs.pairing.rail_for(wanted).filter(|rail| !self.rails.in_use().has(*rail));
        if let Some(rail) = rail
            && !self.try_next_substitute(rail, why, &mut pairs, now)
        {
            // Its NICs are not for it meanwhile.
            pairs.pairing.put_off(rail);
            self.rails.adding.demand.refused(rail, now);
        }
    }
}

impl Rails {
    /// The rails of which a lane has been in working order.
    pub(super) fn in_use(&self) -> RailSet {
        self.made()
            .filter(|(_, rail)| rail.is_added())
            .fold(RailSet::first(1), |set, (rail, _)| set.with(rail))
    }
}

/// The code of a path MTU of so many bytes: 1 for 256, 5 for 4096.
fn mtu_code(bytes: u32) -> u8 {
    match bytes {
        0..512 => 1,
        512..1024 => 2,
        1024..2048 => 3,
        2048..4096 => 4,
        _ => 5,
    }
}

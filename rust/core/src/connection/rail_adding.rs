//! Which rails a connection gets: the pairs of NICs of both ends, and what has the next one made.

use super::Connection;
use super::nic_record::{self, bytes_per_second};
use super::rail::{LANES_PER_RAIL, Rails};
use super::rail_demand::RailDemand;
use super::rail_loads::RailLoads;
use super::rail_record::nic_name;
use crate::control::RailRefusal;
use crate::control::wire::{NicList, NicRecord};
use crate::pool::clock;
use crate::rails::{NicEnd, NicPair, PlanLimits, RailMap, RailSet, Shape, rail_pairs};
use crate::sync::{AtomicBool, Mutex, Ordering, lock};

/// Which rails a connection may have, and the demand for them.
#[derive(Debug)]
pub(super) struct Adding {
    /// There are pairs of NICs without a rail. Written by the connection's task, read by submitters as a hint: Relaxed.
    has_pairs: AtomicBool,
    pairs: Mutex<Pairs>,
    pub(super) demand: RailDemand,
}

/// What is known once the peer has named its NICs.
#[derive(Debug, Default)]
struct Pairs {
    /// The pair of rail `n` at `n`.
    pairs: Vec<NicPair>,
    /// The speed of the slower port of each, in bytes per second.
    speeds: Vec<u64>,
    /// The names of the peer's NICs, by their numbers.
    peer_names: Vec<String>,
}

impl Adding {
    pub(super) fn new(limits: PlanLimits) -> Self {
        Self { has_pairs: AtomicBool::new(false), pairs: Mutex::default(), demand: RailDemand::new(limits) }
    }

    /// The name of a NIC of the peer; empty if it has told none.
    pub(super) fn peer_name(&self, number: u16) -> String {
        lock(&self.pairs).peer_names.get(usize::from(number)).cloned().unwrap_or_default()
    }

    /// The NICs of the first rail, by their numbers; `None` until the peer has named its own.
    pub(super) fn first_pair(&self) -> Option<(u16, u16)> {
        let pairs = lock(&self.pairs);
        pairs.pairs.first().map(|pair| (pair.own as u16, pair.peer as u16))
    }

    /// The speed of a rail between these NICs, in bytes per second; 0 if it is not known.
    pub(super) fn speed(&self, own: u16, peer: u16) -> u64 {
        let pairs = lock(&self.pairs);
        let is_it = |pair: &NicPair| (pair.own, pair.peer) == (usize::from(own), usize::from(peer));
        let at = pairs.pairs.iter().position(is_it);
        at.and_then(|at| pairs.speeds.get(at)).copied().unwrap_or(0)
    }

    /// Whether there are pairs of NICs without a rail.
    pub(super) fn has_pairs(&self) -> bool {
        self.has_pairs.load(Ordering::Relaxed)
    }

    /// All pairs have a rail, or some have none.
    fn set_has_pairs(&self, has_pairs: bool) {
        self.has_pairs.store(has_pairs, Ordering::Relaxed);
    }
}

impl Connection {
    /// The NICs of this end, as the peer is told of them; `None` where there is only one, or the first is not among those that are told.
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
        told.ok().filter(|list| list.nics().len() > 1)
    }

    /// The peer has named its NICs.
    pub(super) fn take_nic_list(&self, peer: &NicList) {
        let Some(own) = self.nic_list() else { return };
        let (own_ends, peer_ends): (Vec<NicEnd>, _) = (own.ends(), peer.ends());
        let first = NicPair { own: usize::from(own.own()), peer: usize::from(peer.own()) };
        let map = &self.context.settings.rail_map;
        // As the leader sees it at both ends, so that a pair has the same number; of the map the other end does not know.
        let mut pairs = if self.leads {
            rail_pairs(&own_ends, &peer_ends, first, map)
        } else {
            let swap = |pair: NicPair| NicPair { own: pair.peer, peer: pair.own };
            let of_leader = rail_pairs(&peer_ends, &own_ends, swap(first), &RailMap::default());
            of_leader.into_iter().map(swap).collect()
        };
        if let Some(warning) = map.warning(&own_ends, &peer_ends).filter(|_| self.leads) {
            tracing::warn!(peer = %self.peer.control, "{warning}");
        }
        pairs.truncate(self.context.settings.rails);
        if let Some(nic) = peer.get(peer.own()) {
            self.first_rail.set_peer_nic(&nic.name);
        }
        let speed = |pair: &NicPair| {
            let own = own.nics().get(pair.own).map_or(0, |nic| nic.speed_mbps);
            let peer = peer.nics().get(pair.peer).map_or(0, |nic| nic.speed_mbps);
            bytes_per_second(own.min(peer))
        };
        let speeds = pairs.iter().map(speed).collect();
        let peer_names = peer.nics().iter().map(|nic| nic.name.clone()).collect();
        let has_pairs = pairs.len() > 1;
        *lock(&self.rails.adding.pairs) = Pairs { pairs, speeds, peer_names };
        // What the demand for further rails is measured by.
        if let Some((flow, speed)) = self.rail_nic(0) {
            self.rails.loads.add_first(flow, speed);
        }
        self.rails.adding.set_has_pairs(has_pairs);
    }

    /// A transfer of so many bytes begins: whether the rails that there are suffice. Where there can be no others, its bytes are not summed.
    #[inline]
    pub(super) fn consider_rails(&self, bytes: impl FnOnce() -> u64) {
        if self.rails.adding.has_pairs() {
            self.want_rail(bytes, || self.rails_that_carry());
        }
    }

    /// The same; these rails carry something.
    pub(super) fn consider_rails_beside(&self, carry: RailSet, bytes: impl FnOnce() -> u64) {
        if self.rails.adding.has_pairs() {
            self.want_rail(bytes, || carry);
        }
    }

    #[cold]
    fn want_rail(&self, bytes: impl FnOnce() -> u64, carry: impl FnOnce() -> RailSet) {
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
        let pairs = lock(&adding.pairs);
        if made.0.count_ones() as usize >= pairs.pairs.len() {
            return adding.set_has_pairs(false);
        }
        for (rail, pair) in pairs.pairs.iter().enumerate().filter(|(rail, _)| !made.has(*rail)) {
            let flow = self.context.nic_if_open(pair.own).map(|nic| &*nic.flow);
            let speed = pairs.speeds.get(rail).copied().unwrap_or(0);
            if let Some(load) = loads.get_mut(rail) {
                *load = RailLoads::of_unmade(flow, speed);
            }
        }
        let shape = Shape { bytes, eligible: RailSet::first(pairs.pairs.len()), home: None, spread: 0 };
        let under_way = flow.iter().sum();
        if let Some(rail) = adding.demand.wanted(&shape, under_way, made, &loads, now)
            && let Some(pair) = pairs.pairs.get(rail)
        {
            self.request_rail(rail, *pair);
        }
    }

    /// Leader: has the rail made; follower: asks the leader for it.
    fn request_rail(&self, rail: usize, pair: NicPair) {
        let (own, peer) = (pair.own as u16, pair.peer as u16);
        if self.leads {
            // One more than the first rail has, which is for probes.
            self.rail_requests.add_rail(rail, own, peer, (self.lanes.len() + 1).min(LANES_PER_RAIL));
        } else {
            self.rail_requests.request_rail(own, peer);
        }
    }

    /// Has every rail made that can be made, without waiting for them.
    #[doc(hidden)]
    pub fn add_rails_now(&self) {
        let (made, pairs) = (self.rails.in_use(), lock(&self.rails.adding.pairs));
        for (rail, pair) in pairs.pairs.iter().enumerate().filter(|(rail, _)| !made.has(*rail)) {
            self.request_rail(rail, *pair);
        }
    }

    /// Leader: rail `rail` is not made.
    pub(super) fn rail_refused(&self, rail: usize, why: RailRefusal) {
        tracing::debug!(peer = %self.peer.control, rail, ?why, "a rail is not made");
        self.rails.adding.demand.refused(rail, clock::now_ns());
    }

    /// Leader: the peer has need of a rail of NIC `own` here and NIC `peer` there.
    pub(super) fn rail_requested(&self, own: u16, peer: u16) {
        let wanted = NicPair { own: own.into(), peer: peer.into() };
        let pairs = lock(&self.rails.adding.pairs);
        let rail = pairs.pairs.iter().position(|pair| *pair == wanted);
        let demand = &self.rails.adding.demand;
        match rail.filter(|rail| !self.rails.in_use().has(*rail)) {
            // A peer that asks without end has no more tries than this end itself.
            Some(rail) if demand.begin(rail, clock::now_ns()) => self.request_rail(rail, wanted),
            Some(rail) => {
                tracing::debug!(peer = %self.peer.control, rail, "the peer asks for a rail that is being made, or was refused")
            }
            None => {
                tracing::debug!(peer = %self.peer.control, own, nic = peer, "the peer asks for a rail that is no pair here, or made")
            }
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

//! When a connection gets further rails, and which: what both ends decide from the bytes under way.

use std::time::{Duration, Instant};

use super::Connection;
use super::rail::Rails;
use crate::control::RailRefusal;
use crate::control::wire::{NicList, NicRecord};
use crate::observe::{TransferSource, TransferTotals};
use crate::rails::{MAX_RAILS, NicEnd, NicPair, RailSet, rail_pairs};
use crate::sync::{AtomicBool, Mutex, Ordering, lock};

/// Which rails a connection may have, and how many it wants.
#[derive(Debug, Default)]
pub(super) struct Adding {
    /// There are pairs of NICs without a rail. Written under the lock of `state`, read by submitters without it, as a hint: Relaxed.
    has_pairs: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The pair of rail `n` at `n`; none until the peer has named its NICs.
    pairs: Vec<NicPair>,
    /// The names of the peer's NICs, by their numbers.
    peer_names: Vec<String>,
    /// How many rails there are to be.
    wanted: usize,
    /// The rail that is being added, or asked for, and when that is given up.
    under_way: Option<(usize, Instant)>,
    refused: [Option<Refused>; MAX_RAILS],
}

/// A rail that could not be made.
#[derive(Clone, Copy, Debug)]
struct Refused {
    until: Instant,
    pause: Duration,
}

/// A rail that was refused is tried again after this time, and after twice as long each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long the making of a rail may take before another one is tried: longer than all its steps.
const ADD_LIMIT: Duration = Duration::from_secs(10);

impl Adding {
    /// The peer has named its NICs.
    pub(super) fn set_pairs(&self, pairs: Vec<NicPair>, peer_names: Vec<String>) {
        let mut state = lock(&self.state);
        self.has_pairs.store(pairs.len() > 1, Ordering::Relaxed);
        (state.pairs, state.peer_names) = (pairs, peer_names);
    }

    /// The name of a NIC of the peer; empty if it has told none.
    pub(super) fn peer_name(&self, number: u16) -> String {
        lock(&self.state).peer_names.get(usize::from(number)).cloned().unwrap_or_default()
    }

    /// Whether there may be a rail to add.
    #[inline]
    pub(super) fn has_pairs(&self) -> bool {
        self.has_pairs.load(Ordering::Relaxed)
    }

    /// There are to be so many rails at least.
    pub(super) fn want(&self, rails: usize) {
        let mut state = lock(&self.state);
        state.wanted = state.wanted.max(rails).min(state.pairs.len());
    }

    /// The rail to add next, under way from now on; `None` if one is, if there are enough, or if none can be added now.
    pub(super) fn next(&self, made: RailSet, now: Instant) -> Option<(usize, NicPair)> {
        let mut state = lock(&self.state);
        if state.under_way.is_some_and(|(rail, until)| !made.has(rail) && now < until) {
            return None;
        }
        state.under_way = None;
        let count = made.0.count_ones() as usize;
        if count >= state.pairs.len() {
            self.has_pairs.store(false, Ordering::Relaxed);
        }
        if count >= state.wanted {
            return None;
        }
        let refused = &state.refused;
        let may_be_added = |rail: &usize| {
            let waits = refused.get(*rail).copied().flatten().is_some_and(|refused| now < refused.until);
            !made.has(*rail) && !waits
        };
        let rail = (1..state.pairs.len()).find(may_be_added)?;
        let pair = *state.pairs.get(rail)?;
        state.under_way = Some((rail, now + ADD_LIMIT));
        Some((rail, pair))
    }

    /// A rail could not be made.
    pub(super) fn refused(&self, rail: usize, why: RailRefusal, now: Instant) {
        let mut state = lock(&self.state);
        state.under_way = state.under_way.filter(|(under_way, _)| *under_way != rail);
        if let Some(refused) = state.refused.get_mut(rail) {
            let pause = match (why, *refused) {
                // Not before its operator changes a setting, for which the peer has to start again.
                (RailRefusal::Limited, _) => LONGEST_PAUSE,
                (_, Some(before)) => (before.pause * 2).min(LONGEST_PAUSE),
                (_, None) => FIRST_PAUSE,
            };
            *refused = Some(Refused { until: now + pause, pause });
        }
    }
}

impl Connection {
    /// The NICs of this end, as the peer is told of them; `None` where there is only one, or the first is not among those that are told.
    pub(super) fn nic_list(&self) -> Option<NicList> {
        let record = |nic: &super::nic_record::NicRecord| NicRecord {
            speed_mbps: nic.speed_mbps,
            link_layer: nic.link_layer,
            mtu: mtu_code(nic.mtu),
            name: nic.name.clone(),
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
        let mut pairs = rail_pairs(&own_ends, &peer_ends, first, map);
        if let Some(warning) = map.warning(&own_ends, &peer_ends) {
            tracing::warn!(peer = %self.peer.control, "{warning}");
        }
        pairs.truncate(self.context.settings.rails);
        if let Some(nic) = peer.get(peer.own()) {
            self.first_rail.set_peer_nic(&nic.name);
        }
        self.rails.adding.set_pairs(pairs, peer.nics().iter().map(|nic| nic.name.clone()).collect());
    }

    /// A transfer of so many bytes begins: whether the rails that there are suffice.
    #[inline]
    pub(super) fn consider_rails(&self, bytes: u64) {
        if self.rails.adding.has_pairs() {
            self.want_rails(bytes);
        }
    }

    #[cold]
    fn want_rails(&self, bytes: u64) {
        let mut totals = TransferTotals::default();
        self.all_lanes().for_each(|(_, lane)| lane.status.counts.add_ended(&mut totals));
        self.all_lanes().for_each(|(_, lane)| lane.status.counts.add_started(&mut totals));
        let under_way = totals.in_flight().bytes.saturating_add(bytes);
        let each = self.context.settings.plan_limits.rail_from.max(1);
        let wanted = usize::try_from(under_way / each).unwrap_or(MAX_RAILS).min(MAX_RAILS);
        if wanted > 1 {
            self.rails.adding.want(wanted);
            self.add_next_rail();
        }
    }

    /// The peer, or this end, has need of one more rail.
    pub(super) fn add_one_rail(&self) {
        let made = self.rails.in_use().0.count_ones() as usize;
        self.rails.adding.want(made + 1);
        self.add_next_rail();
    }

    /// Makes all rails that can be made, one after the other, without waiting for them.
    #[doc(hidden)]
    pub fn add_rails_now(&self) {
        self.rails.adding.want(MAX_RAILS);
        self.add_next_rail();
    }

    /// Has the next rail made that is wanted, if none is under way.
    pub(super) fn add_next_rail(&self) {
        let Some((rail, pair)) = self.rails.adding.next(self.rails.in_use(), Instant::now()) else { return };
        let (own, peer) = (pair.own as u16, pair.peer as u16);
        if self.leads {
            self.rail_requests.add_rail(rail, own, peer, self.lanes.len());
        } else {
            self.rail_requests.request_rail(own, peer);
        }
    }
}

impl Rails {
    /// The rails of which a lane has been in working order.
    pub(super) fn in_use(&self) -> RailSet {
        self.made().filter(|(_, rail)| rail.is_added()).fold(RailSet::first(1), |set, (rail, _)| set.with(rail))
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

//! The further rails of a connection: made later than it, each between another pair of NICs.

use std::sync::Arc;

use super::lanes::LaneHandle;
use super::nic_context::{NicContext, add_counts};
use super::nic_flow::NicFlow;
use super::rail_adding::Adding;
use super::rail_loads::RailLoads;
use super::rail_record::RailRecord;
use super::{Connection, RAILS};
use crate::memory::RemoteRegions;
use crate::pool::{LaneHealth, ProbeError};
use crate::rails::{MAX_RAILS, PlanLimits, RailCounts, RailSet};
use crate::sync::{AtomicBool, OnceCell, Ordering};

/// Lanes of a rail, at most. The index of a lane is that of its rail times this, and its number there.
pub(super) const LANES_PER_RAIL: usize = 8;

/// A further rail of a connection. Its lanes may be without queue pairs.
#[derive(Debug)]
pub(super) struct Rail {
    /// The NIC at this end.
    pub(super) nic: Arc<NicContext>,
    /// Its number at this end, and that of the peer's NIC there.
    pub(super) own: u16,
    pub(super) peer: u16,
    pub(super) lanes: Vec<LaneHandle>,
    /// The peer's regions, with the keys that they have on this rail.
    pub(super) remote: Arc<RemoteRegions>,
    /// What operators are told of it.
    pub(super) record: RailRecord,
    /// A lane has been in working order. Set by the connection's task, and read by all: a hint, Relaxed.
    pub(super) added: AtomicBool,
}

impl Rail {
    /// Whether a lane has been in working order.
    pub(super) fn is_added(&self) -> bool {
        self.added.load(Ordering::Relaxed)
    }
}

/// The places of a connection's further rails. A rail that is made stays until the connection ends, so submitters look without a lock.
#[derive(Debug)]
pub(super) struct Rails {
    further: [OnceCell<Rail>; MAX_RAILS - 1],
    /// What submitters know of the loads, and which rails are up.
    pub(super) loads: Arc<RailLoads>,
    /// Which there are to be.
    pub(super) adding: Adding,
}

impl Rails {
    pub(super) fn new(limits: PlanLimits, other_pairs: bool) -> Self {
        let further = std::array::from_fn(|_| OnceCell::new());
        Self { further, loads: Arc::new(RailLoads::new()), adding: Adding::new(limits, other_pairs) }
    }

    /// The place of a further rail, 1 to 7.
    pub(super) fn place(&self, rail: usize) -> Option<&OnceCell<Rail>> {
        self.further.get(rail.checked_sub(1)?)
    }

    /// A further rail that is made.
    pub(super) fn get(&self, rail: usize) -> Option<&Rail> {
        self.place(rail)?.get()
    }

    /// The further rails that are made, behind their numbers.
    pub(super) fn made(&self) -> impl Iterator<Item = (usize, &Rail)> {
        self.further.iter().enumerate().filter_map(|(place, rail)| Some((place + 1, rail.get()?)))
    }
}

impl Connection {
    /// Whether there are further rails, of which a lane has been in working order.
    #[inline]
    pub(super) fn has_rails(&self) -> bool {
        self.gate.load(Ordering::Relaxed) & RAILS != 0
    }

    /// Whether it has several rails, and transfers are started without asking [`Connection::require_open`] first, and without a span.
    #[inline]
    pub(super) fn is_open_with_rails(&self) -> bool {
        self.gate.load(Ordering::Relaxed) == RAILS && self.is_here()
    }

    /// The lanes of a rail; none if it is not made.
    pub(super) fn lanes_of(&self, rail: usize) -> &[LaneHandle] {
        match rail {
            0 => &self.lanes,
            _ => self.rails.get(rail).map_or(&[], |rail| &rail.lanes),
        }
    }

    /// The lane with this index.
    pub(super) fn lane(&self, index: usize) -> Option<&LaneHandle> {
        self.lanes_of(index / LANES_PER_RAIL).get(index % LANES_PER_RAIL)
    }

    /// The lanes of all rails, behind their indices.
    pub(super) fn all_lanes(&self) -> impl Iterator<Item = (usize, &LaneHandle)> {
        let further = self.rails.made().flat_map(|(rail, made)| {
            made.lanes.iter().enumerate().map(move |(lane, handle)| (rail * LANES_PER_RAIL + lane, handle))
        });
        self.lanes.iter().enumerate().chain(further)
    }

    /// The NIC of a rail at this end.
    pub(super) fn nic_of(&self, rail: usize) -> Option<&Arc<NicContext>> {
        match rail {
            0 => self.context.slots.first(),
            _ => self.rails.get(rail).map(|rail| &rail.nic),
        }
    }

    /// What operators are told of a rail.
    pub(super) fn rail_record(&self, rail: usize) -> Option<&RailRecord> {
        match rail {
            0 => Some(&self.first_rail),
            _ => self.rails.get(rail).map(|rail| &rail.record),
        }
    }

    /// The peer's regions as they are known on a rail.
    pub(super) fn remote_of(&self, rail: usize) -> Option<&Arc<RemoteRegions>> {
        match rail {
            0 => Some(&self.remote),
            _ => self.rails.get(rail).map(|rail| &rail.remote),
        }
    }

    /// The rails with a lane in working order that are said to be up.
    pub(super) fn rails_up(&self) -> RailSet {
        let up = self.rails.loads.up();
        let works = |rail: &usize| {
            self.lanes_of(*rail).iter().any(|lane| lane.status.health() == LaneHealth::Healthy)
        };
        (0..MAX_RAILS).filter(|rail| up.has(*rail)).filter(works).fold(RailSet::default(), RailSet::with)
    }

    /// Where no rail works and the first one is gone for good: a further one with lanes that are being rebuilt. What is started now waits there.
    #[cold]
    pub(super) fn healing_rail(&self) -> Option<usize> {
        let is_open =
            |rail: &usize| self.lanes_of(*rail).iter().any(|lane| lane.status.health() != LaneHealth::Closed);
        let is_gone = !is_open(&0);
        let mut further =
            self.rails.made().filter(|(_, made)| is_gone && made.is_added()).map(|(rail, _)| rail);
        further.find(is_open)
    }

    /// Whether a rail can take a transfer, now or once it is rebuilt.
    #[cold]
    pub(super) fn has_open_rail(&self) -> bool {
        self.is_usable() && (self.rails_up().0 != 0 || self.healing_rail().is_some())
    }

    /// Whether all lanes of these rails that were made are in working order, and the others have nothing.
    pub(super) fn all_made_lanes_work(&self, rails: RailSet) -> bool {
        let is_unused = |lane: &LaneHandle| !lane.status.was_made() && lane.status.counts.is_idle();
        let works = |lane: &LaneHandle| lane.status.health() == LaneHealth::Healthy || is_unused(lane);
        (0..MAX_RAILS).filter(|rail| rails.has(*rail)).flat_map(|rail| self.lanes_of(rail)).all(works)
    }

    /// The bytes under way on each rail, and the requests that its lanes in working order may still post.
    pub(super) fn rails_flow(&self) -> ([u64; MAX_RAILS], [u32; MAX_RAILS]) {
        let (mut bytes, mut credits) = ([0_u64; MAX_RAILS], [0_u32; MAX_RAILS]);
        for (rail, (bytes, credits)) in bytes.iter_mut().zip(&mut credits).enumerate() {
            for lane in self.lanes_of(rail) {
                let (started, ended) = lane.status.counts.bytes();
                *bytes = bytes.saturating_add(started.saturating_sub(ended));
                if lane.status.health() == LaneHealth::Healthy {
                    let (_, under_way) = lane.status.requests();
                    let free = self.context.settings.lane_depth.saturating_sub(under_way);
                    *credits = credits.saturating_add(free);
                }
            }
        }
        (bytes, credits)
    }

    /// Whether a lane of the rail that works has parts under way, and not only probes.
    pub(super) fn carries_parts(&self, rail: usize) -> bool {
        self.lanes_of(rail).iter().filter(|lane| lane.status.health() == LaneHealth::Healthy).any(|lane| {
            let (started, ended) = lane.status.counts.bytes();
            started > ended
        })
    }

    /// What the lanes of each of these rails count.
    pub(super) fn rail_counts(&self, rails: RailSet) -> [RailCounts; MAX_RAILS] {
        std::array::from_fn(|rail| {
            let lanes = if rails.has(rail) { self.lanes_of(rail) } else { &[] };
            lanes.iter().fold(RailCounts::default(), |sum, lane| add_counts(sum, &lane.status))
        })
    }

    /// The NICs of all rails at this end.
    pub(super) fn rail_nics(&self) -> impl Iterator<Item = &Arc<NicContext>> {
        (0..MAX_RAILS).filter_map(|rail| self.nic_of(rail))
    }

    /// The flow of the NIC of a rail, and the speed of the slower of its ports in bytes per second.
    pub(super) fn rail_nic(&self, rail: usize) -> Option<(Arc<NicFlow>, u64)> {
        let nic = self.nic_of(rail)?;
        let (own, peer) = match self.rails.get(rail) {
            Some(rail) => (rail.own, rail.peer),
            None => self.rails.adding.first_pair()?,
        };
        Some((Arc::clone(&nic.flow), self.rails.adding.speed(own, peer)))
    }

    /// Whether another rail than this one has a lane in working order.
    pub(super) fn rails_healthy_but(&self, rail: usize) -> bool {
        let of_others = self.all_lanes().filter(|(lane, _)| lane / LANES_PER_RAIL != rail);
        of_others.into_iter().any(|(_, lane)| lane.status.health() == LaneHealth::Healthy)
    }

    /// The lanes that have failed and have parts, while another rail works; and those that were given up, to which a part was on its way.
    pub(super) fn lanes_with_waiting(&self) -> Vec<usize> {
        if !self.has_rails() {
            return Vec::new();
        }
        let waits = |(index, lane): &(usize, &LaneHandle)| {
            let can_leave = || self.rails_healthy_but(index / LANES_PER_RAIL);
            match lane.status.health() {
                LaneHealth::Healthy => false,
                LaneHealth::Closed => !lane.status.counts.is_idle(),
                LaneHealth::Broken | LaneHealth::Drained => !lane.status.counts.is_idle() && can_leave(),
            }
        };
        self.all_lanes().filter(waits).map(|(index, _)| index).collect()
    }

    /// The lanes of a rail that take parts. The last one of several is kept for probes: a request on it waits for no other.
    pub(super) fn data_lanes(&self, rail: usize) -> &[LaneHandle] {
        match self.lanes_of(rail) {
            [lanes @ .., _] if !lanes.is_empty() => lanes,
            lanes => lanes,
        }
    }

    /// Posts a probe on a lane of a rail that has nothing under way.
    pub(super) fn post_probe(&self, rail: usize, number: u32) -> Result<(), ProbeError> {
        let remote = self.remote_of(rail).map(|remote| remote.table());
        let region = remote.as_ref().and_then(|table| table.writable());
        let remote = region.map_or((0, 0), |region| (region.base, region.rkey));
        let mut result = Err(ProbeError::Down);
        for lane in self.lanes_of(rail).iter().rev() {
            match lane.worker.post_probe(lane.key, number, remote) {
                Err(ProbeError::Down) => {}
                Err(error) => result = Err(error),
                Ok(()) => return Ok(()),
            }
        }
        result
    }

    /// A lane of a rail in working order, of those that take parts.
    pub(super) fn healthy_lane(&self, rail: usize, hint: usize) -> Option<&LaneHandle> {
        let lanes = self.data_lanes(rail);
        let (before, from) = lanes.split_at(hint.checked_rem(lanes.len()).unwrap_or(0));
        from.iter().chain(before).find(|lane| lane.status.health() == LaneHealth::Healthy)
    }
}

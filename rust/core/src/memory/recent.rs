//! The regions that the last transfer of a lane used, on both sides: the next one mostly uses them again.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::key_on_rail::KeyOnRail;
use super::range_index::holds;
use super::region::{Hold, Region, RegionId};
use super::remote_table::RemoteRegion;

/// As much of one of our regions, or of a segment of it, as work requests need. The default holds nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalRange {
    /// The region's id; 0 for none.
    id: u64,
    address: u64,
    length: u64,
    /// Local key.
    pub lkey: u32,
    /// Whether the CPU may read the memory.
    pub readable: bool,
}

impl LocalRange {
    /// Of the segment of `region` that holds `address..address + length` whole; `None` if none does.
    pub fn within(region: &Region, address: u64, length: u64) -> Option<Self> {
        region.segment_holding(address, length).map(|segment| Self {
            id: region.id.0,
            address: segment.address,
            length: segment.length,
            lkey: segment.lkey,
            readable: region.readable,
        })
    }

    /// Whether `address..address + length` is in it, and `region` names it or none.
    #[inline(always)]
    pub fn holds(&self, region: Option<RegionId>, address: u64, length: u64) -> bool {
        self.id != 0 && self.holds_too(region, address, length)
    }

    /// As [`LocalRange::holds`], of one that holds another range.
    #[inline(always)]
    pub fn holds_too(&self, region: Option<RegionId>, address: u64, length: u64) -> bool {
        region.is_none_or(|id| id.0 == self.id) && holds(self.address, self.length, address, length)
    }
}

/// Keeps a lane's recent region registered for a part that uses it. Its count is the lane's own, so that lanes on other
/// processors do not write to the same cache line for each transfer.
pub type Lease = Arc<Hold>;

/// A region of ours that stays registered between transfers, and one of the peer. Owned by a lane, under its worker's lock.
///
/// Before a region is deregistered each lane is told to [forget](Recent::forget) it; parts that have begun keep their
/// leases until they end, and a part that is free keeps one only as long as its last lane has it as well.
#[derive(Debug, Default)]
pub struct Recent {
    local: LocalRange,
    /// On the region that `local` is in.
    lease: Option<Lease>,
    /// The peer's.
    pub remote: RemoteRegion,
    /// On a lane of a further rail: which key of the first rail stands for that of `remote`.
    pub key_on_rail: KeyOnRail,
}

impl Recent {
    /// Our region, if it holds the range, with a lease on it.
    #[inline(always)]
    pub fn lease(&self, region: Option<RegionId>, address: u64, length: u64) -> Option<(LocalRange, Lease)> {
        if !self.local.holds(region, address, length) {
            return None;
        }
        self.lease.as_ref().map(|lease| (self.local, Arc::clone(lease)))
    }

    /// As [`Recent::lease`], into a place that may have the lease already: counting it again costs two locked instructions.
    #[inline(always)]
    pub fn lease_into(
        &self,
        kept: &mut Option<Lease>,
        region: Option<RegionId>,
        address: u64,
        length: u64,
    ) -> Option<LocalRange> {
        if !self.local.holds(region, address, length) {
            return None;
        }
        if !self.has(kept) {
            *kept = Some(Arc::clone(self.lease.as_ref()?));
        }
        Some(self.local)
    }

    /// Whether a lease is that on our recent region.
    #[inline(always)]
    pub fn has(&self, lease: &Option<Lease>) -> bool {
        matches!((lease, &self.lease), (Some(lease), Some(recent)) if Arc::ptr_eq(lease, recent))
    }

    /// Makes `region` the recent one, of which `local` is, and leases it. `None` if it is being deregistered.
    pub fn replace(&mut self, region: &Arc<Region>, local: LocalRange) -> Option<Lease> {
        let hold = region.hold()?;
        // In the same allocation, if no part has a lease.
        match self.lease.as_mut().and_then(Arc::get_mut) {
            Some(unused) => *unused = hold,
            None => self.lease = Some(Arc::new(hold)),
        }
        self.local = local;
        self.lease.clone()
    }

    /// Regions of the peer are gone.
    pub fn forget_remote(&mut self) {
        (self.remote, self.key_on_rail) = (RemoteRegion::default(), KeyOnRail::default());
    }

    /// No part that begins from now on uses one of `regions` by way of this.
    pub fn forget(&mut self, regions: &BTreeSet<RegionId>) {
        if regions.contains(&RegionId(self.local.id)) {
            (self.local, self.lease) = (LocalRange::default(), None);
        }
    }
}

#[cfg(test)]
#[cfg(not(flagcx_p2p_loom))]
mod tests {
    use super::*;
    use crate::fabric::{Access, SoftwareOptions, software};
    use crate::memory::{MemoryKind, Registry};

    fn regions(count: usize) -> Vec<Arc<Region>> {
        let device = software::open(&SoftwareOptions::default()).unwrap().remove(0);
        let registry = Registry::new(device);
        let memory = vec![0_u8; 4096 * count];
        let start = memory.as_ptr().expose_provenance() as u64;
        let register = |n: usize| {
            let range = (start + 4096 * n as u64, 4096);
            registry.register(range, MemoryKind::Host, Access::FULL, true, None, None).unwrap()
        };
        let ids: Vec<_> = (0..count).map(register).collect();
        ids.iter().map(|id| Arc::clone(registry.snapshot().by_id(*id).unwrap())).collect()
    }

    fn replace(recent: &mut Recent, region: &Arc<Region>) -> Option<Lease> {
        let local = LocalRange::within(region, region.address, region.length).unwrap();
        recent.replace(region, local)
    }

    #[test]
    fn is_held_between_uses_until_it_is_forgotten() {
        let region = regions(1).remove(0);
        let mut recent = Recent::default();
        let lease = |recent: &Recent| recent.lease(Some(region.id), region.address, 1);
        assert!(lease(&recent).is_none() && replace(&mut recent, &region).is_some());
        assert!(lease(&recent).is_some() && region.in_use());
        recent.forget(&[RegionId(region.id.0 + 1)].into());
        assert!(lease(&recent).is_some());
        recent.forget(&[region.id].into());
        assert!(!region.in_use() && lease(&recent).is_none());
    }

    #[test]
    fn what_is_forgotten_stays_held_for_the_parts_that_use_it() {
        let region = regions(1).remove(0);
        let mut recent = Recent::default();
        let first = replace(&mut recent, &region);
        let second = recent.lease(None, region.address, 1);
        recent.forget(&[region.id].into());
        assert!(recent.lease(None, region.address, 1).is_none(), "no new use");
        drop(first);
        assert!(region.in_use());
        drop(second);
        assert!(!region.in_use());
    }

    #[test]
    fn another_region_takes_its_place_at_once() {
        let [first, second] = &regions(2)[..] else { panic!("two regions") };
        let mut recent = Recent::default();
        let in_use = replace(&mut recent, first);
        assert!(replace(&mut recent, second).is_some() && second.in_use());
        assert!(first.in_use(), "a part has it");
        drop(in_use);
        assert!(!first.in_use());
        recent.forget(&[first.id].into());
        assert!(recent.lease(Some(second.id), second.address, 4096).is_some());
        assert!(recent.lease(Some(first.id), second.address, 4096).is_none());
        assert!(recent.lease(None, second.address, 4097).is_none());
        assert!(replace(&mut recent, first).is_some() && !second.in_use(), "no part has it");
    }

    #[test]
    fn a_region_that_is_being_deregistered_is_not_leased() {
        let [first, second] = &regions(2)[..] else { panic!("two regions") };
        let mut recent = Recent::default();
        assert!(replace(&mut recent, first).is_some());
        second.revoke();
        assert!(replace(&mut recent, second).is_none() && !second.in_use());
        assert!(recent.lease(None, first.address, 1).is_some());
    }
}

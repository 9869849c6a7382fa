//! The regions that the last transfer of a lane used, on both sides: the next one mostly uses them again.

use std::sync::Arc;

use super::range_index::holds;
use super::region::{Hold, Region, RegionId};
use super::remote_table::RemoteRegion;

/// As much of one of our regions as work requests need. The default holds nothing.
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
    /// Of a region.
    pub fn of(region: &Region) -> Self {
        Self {
            id: region.id.0,
            address: region.address,
            length: region.length,
            lkey: region.lkey,
            readable: region.readable,
        }
    }

    /// Whether `address..address + length` is in it, and `region` names it or none.
    #[inline(always)]
    pub fn holds(&self, region: Option<RegionId>, address: u64, length: u64) -> bool {
        region.is_none_or(|id| id.0 == self.id)
            && self.id != 0
            && holds(self.address, self.length, address, length)
    }
}

/// A region of ours that stays held between transfers, and one of the peer. Owned by a lane, under its worker's lock.
///
/// One hold serves all parts that use the region at a time, and taking part in it costs a plain count. Whoever
/// deregisters the region tells the lane to [forget](Recent::forget) it.
#[derive(Debug, Default)]
pub struct Recent {
    local: LocalRange,
    hold: Option<Hold>,
    /// Parts that use what `hold` holds.
    users: u32,
    /// The peer's.
    pub remote: RemoteRegion,
}

impl Recent {
    /// Our region, for one more part; [`Recent::give_back`] ends its use.
    #[inline(always)]
    pub fn share(&mut self, region: Option<RegionId>, address: u64, length: u64) -> Option<LocalRange> {
        if !self.local.holds(region, address, length) {
            return None;
        }
        self.users += 1;
        Some(self.local)
    }

    /// Makes `region` the recent one and shares it. `None` while another one is in use, or if `region` is being
    /// deregistered.
    pub fn replace(&mut self, region: &Arc<Region>) -> Option<LocalRange> {
        // Makes room: the first transfer after the last of those that use it now takes its place.
        self.local = LocalRange::default();
        if self.users > 0 {
            return None;
        }
        self.hold = region.hold();
        self.hold.as_ref()?;
        self.local = LocalRange::of(region);
        self.users = 1;
        Some(self.local)
    }

    /// A part that shared the region has ended.
    #[inline]
    pub fn give_back(&mut self) {
        self.users = self.users.saturating_sub(1);
        if self.users == 0 && self.local.id == 0 {
            self.hold = None;
        }
    }

    /// Whether parts use `region` by way of this.
    pub fn is_shared(&self, region: RegionId) -> bool {
        self.users > 0 && self.hold.as_ref().is_some_and(|hold| hold.region().id == region)
    }

    /// Holds `region` only as long as parts use it that have begun.
    pub fn forget(&mut self, region: RegionId) {
        if self.hold.as_ref().is_some_and(|hold| hold.region().id == region) {
            self.local = LocalRange::default();
            if self.users == 0 {
                self.hold = None;
            }
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
            registry.register(range, MemoryKind::Host, Access::FULL, true, None).unwrap()
        };
        let ids: Vec<_> = (0..count).map(register).collect();
        ids.iter().map(|id| Arc::clone(registry.snapshot().by_id(*id).unwrap())).collect()
    }

    #[test]
    fn is_held_between_uses_until_it_is_forgotten() {
        let region = regions(1).remove(0);
        let mut recent = Recent::default();
        let share = |recent: &mut Recent| recent.share(Some(region.id), region.address, 1).is_some();
        assert!(!share(&mut recent) && recent.replace(&region).is_some());
        assert!(share(&mut recent) && recent.is_shared(region.id));
        recent.give_back();
        recent.give_back();
        assert!(region.in_use() && !recent.is_shared(region.id));
        recent.forget(region.id);
        assert!(!region.in_use() && !share(&mut recent));
    }

    #[test]
    fn what_is_forgotten_stays_held_for_those_who_use_it() {
        let region = regions(1).remove(0);
        let mut recent = Recent::default();
        assert!(recent.replace(&region).is_some());
        recent.forget(region.id);
        assert!(region.in_use() && recent.is_shared(region.id));
        assert!(recent.share(None, region.address, 1).is_none(), "no new use");
        recent.give_back();
        assert!(!region.in_use());
    }

    #[test]
    fn another_region_takes_its_place_once_it_is_idle() {
        let [first, second] = &regions(2)[..] else { panic!("two regions") };
        let mut recent = Recent::default();
        assert!(recent.replace(first).is_some());
        assert!(recent.replace(second).is_none() && !second.in_use());
        recent.give_back();
        assert!(!first.in_use(), "it makes room");
        assert!(recent.replace(second).is_some() && second.in_use());
        recent.forget(first.id);
        assert!(recent.share(Some(second.id), second.address, 4096).is_some());
        assert!(recent.share(Some(first.id), second.address, 4096).is_none());
        assert!(recent.share(None, second.address, 4097).is_none());
    }
}

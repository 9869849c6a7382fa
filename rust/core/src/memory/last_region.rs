//! The region that a thread's last small transfer used: the next one mostly uses it again, and does not look it up. It is forgotten
//! with each change of its registry.

use std::cell::Cell;

use super::range_index::holds;
use super::region::{MemoryKind, Region, RegionId};
use super::registry::Registry;
use super::segment::Segment;

/// As much of a region of host memory, or of a segment of it, as leads to its key.
#[derive(Clone, Copy, Debug)]
struct LastRegion {
    /// Names its registry, as that was; 0 for none.
    state_number: u64,
    id: RegionId,
    address: u64,
    length: u64,
    lkey: u32,
    /// Whether transfers may write into it.
    local_write: bool,
}

thread_local! {
    static LAST: Cell<LastRegion> = const {
        Cell::new(LastRegion {
            state_number: 0,
            id: RegionId(0),
            address: 0,
            length: 0,
            lkey: 0,
            local_write: false,
        })
    };
}

impl Registry {
    /// The local key of host memory that holds `address..address + length`, of the region that is named, if one is; none if the
    /// range crosses a boundary between two segments. `writes`: the
    /// transfer writes into it. The region may end at any time: whether the key is still
    /// good is for the device to say.
    #[inline]
    pub fn host_key(&self, region: Option<RegionId>, address: u64, length: u64, writes: bool) -> Option<u32> {
        let last = LAST.get();
        let fits = last.state_number == self.state_number()
            && region.is_none_or(|id| id == last.id)
            && last.allows(writes);
        if fits && holds(last.address, last.length, address, length) {
            return Some(last.lkey);
        }
        self.look_up_host_key(region, address, length, writes)
    }

    #[inline(never)]
    fn look_up_host_key(
        &self,
        region: Option<RegionId>,
        address: u64,
        length: u64,
        writes: bool,
    ) -> Option<u32> {
        // Read first: a change meanwhile makes the answer one that is not used again.
        let state_number = self.state_number();
        let snapshot = self.snapshot();
        let region = match region {
            Some(id) => snapshot.by_id(id)?,
            None => snapshot.by_address(address, length)?,
        };
        if region.kind != MemoryKind::Host {
            return None;
        }
        let found = LastRegion::of(state_number, region, region.segment_holding(address, length)?);
        LAST.set(found);
        found.allows(writes).then_some(found.lkey)
    }
}

impl LastRegion {
    fn of(state_number: u64, region: &Region, segment: &Segment) -> Self {
        let &Segment { address, length, lkey, .. } = segment;
        Self { state_number, id: region.id, address, length, lkey, local_write: region.access.local_write }
    }

    #[inline]
    fn allows(&self, writes: bool) -> bool {
        self.local_write || !writes
    }
}

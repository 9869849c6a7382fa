//! The regions of an engine at one moment, as transfers look them up.

use std::sync::Arc;

use crate::memory::range_index::RangeIndex;
use crate::memory::region::{Region, RegionId};

/// The regions at one moment.
#[derive(Debug, Default)]
pub struct RegionSnapshot {
    /// Sorted by id.
    regions: Vec<Arc<Region>>,
    by_address: RangeIndex,
}

impl RegionSnapshot {
    /// Of `regions`, which come sorted by id.
    pub(super) fn of(regions: impl Iterator<Item = Arc<Region>>) -> Self {
        let regions: Vec<_> = regions.collect();
        let by_address = RangeIndex::new(regions.iter().map(|region| (region.address, region.length)));
        Self { regions, by_address }
    }

    /// The region with this id.
    pub fn by_id(&self, id: RegionId) -> Option<&Arc<Region>> {
        let position = self.regions.binary_search_by_key(&id, |region| region.id).ok()?;
        self.regions.get(position)
    }

    /// A region that holds `address..address + length`: the innermost by start, then the newest.
    pub fn by_address(&self, address: u64, length: u64) -> Option<&Arc<Region>> {
        self.regions.get(self.by_address.find(address, length)?)
    }

    /// All regions, by id.
    pub fn regions(&self) -> &[Arc<Region>] {
        &self.regions
    }
}

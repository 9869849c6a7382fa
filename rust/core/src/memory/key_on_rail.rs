//! The key that memory of the peer has on a further rail.

use super::RemoteRegion;
use super::range_index::holds;

/// Memory of the peer that has one key on the first rail and one on a further rail: of a region on each, what is in both. The default
/// holds nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyOnRail {
    base: u64,
    size: u64,
    first: u32,
    rail: u32,
    is_known: bool,
}

impl KeyOnRail {
    /// Of a region on the first rail, and the region on the further rail that holds a range of it.
    pub fn new(first: &RemoteRegion, rail: &RemoteRegion) -> Self {
        let base = first.base.max(rail.base);
        let end = |region: &RemoteRegion| region.base.saturating_add(region.size);
        let size = end(first).min(end(rail)).saturating_sub(base);
        Self { base, size, first: first.rkey, rail: rail.rkey, is_known: true }
    }

    /// The key on the further rail of a range that has the key `first` on the first one.
    #[inline(always)]
    pub fn of(&self, first: u32, address: u64, length: u64) -> Option<u32> {
        (first == self.first && holds(self.base, self.size, address, length) && self.is_known)
            .then_some(self.rail)
    }

    /// What of a region on the further rail has its key by this, under the key that it has on the first one; empty if it is another one.
    pub fn named(&self, rail: &RemoteRegion) -> RemoteRegion {
        let end = |base: u64, size: u64| base.saturating_add(size);
        let base = self.base.max(rail.base);
        let both = end(self.base, self.size).min(end(rail.base, rail.size)).saturating_sub(base);
        let size = if self.is_known && self.rail == rail.rkey { both } else { 0 };
        RemoteRegion { base, size, rkey: self.first, ..*rail }
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests {
    use super::*;

    fn region(base: u64, size: u64, rkey: u32) -> RemoteRegion {
        RemoteRegion { base, size, rkey, ..RemoteRegion::default() }
    }

    #[test]
    fn what_is_in_both_regions_has_the_key_of_the_second() {
        let key = KeyOnRail::new(&region(1000, 100, 1), &region(1050, 100, 2));
        assert_eq!(key.of(1, 1050, 50), Some(2));
        assert_eq!(key.of(1, 1100, 0), Some(2));
        let others = [(2, 1050, 50), (1, 1049, 1), (1, 1050, 51), (1, 1099, 2), (1, u64::MAX, 2)];
        assert!(others.iter().all(|&(first, address, length)| key.of(first, address, length).is_none()));
    }

    #[test]
    fn nothing_is_known_at_first_and_of_regions_apart() {
        assert_eq!(KeyOnRail::default().of(0, 0, 0), None);
        let apart = KeyOnRail::new(&region(0, 10, 1), &region(20, 10, 2));
        assert_eq!([5, 20].map(|address| apart.of(1, address, 1)), [None, None]);
        let last = KeyOnRail::new(&region(u64::MAX - 9, 10, 1), &region(u64::MAX - 9, 10, 2));
        assert_eq!(last.of(1, u64::MAX - 9, 8), Some(2));
    }

    #[test]
    fn what_is_named_by_it_is_of_that_region_on_the_rail() {
        let key = KeyOnRail::new(&region(1000, 100, 1), &region(1050, 100, 2));
        assert_eq!(key.named(&region(1050, 100, 2)), region(1050, 50, 1));
        assert_eq!(
            key.named(&region(1060, 10, 2)),
            region(1060, 10, 1),
            "a region there that is known since"
        );
        let others = [key.named(&region(1050, 100, 3)), key.named(&region(1200, 10, 2))];
        let unknown = KeyOnRail::default().named(&region(0, 10, 0));
        assert!(others.iter().chain([&unknown]).all(|named| named.size == 0));
    }
}

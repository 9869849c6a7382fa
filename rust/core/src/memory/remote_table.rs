//! What a peer has announced of its memory.

use super::range_index::{RangeIndex, holds};

/// One region of a peer. The default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoteRegion {
    /// Start, in the peer's address space.
    pub base: u64,
    /// Bytes.
    pub size: u64,
    /// Key.
    pub rkey: u32,
}

impl RemoteRegion {
    /// Whether `address..address + length` is in it, and `rkey` names it.
    #[inline(always)]
    pub fn holds(&self, rkey: u32, address: u64, length: u64) -> bool {
        rkey == self.rkey && holds(self.base, self.size, address, length)
    }
}

/// The peer's regions as announced at the handshake. Later ones are not in it; the fabric checks those.
#[derive(Debug, Default)]
pub struct RemoteTable {
    regions: Vec<RemoteRegion>,
    by_address: RangeIndex,
    /// (key, position), sorted. An original peer may announce two regions under one key.
    by_key: Vec<(u32, u32)>,
}

/// What the table says of a remote range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteCheck {
    /// Inside this region.
    Inside(RemoteRegion),
    /// The key is not in the table: left to the fabric.
    UnknownKey,
    /// The key's regions do not hold it.
    Outside,
}

impl RemoteTable {
    /// A table of `regions`.
    pub fn new(regions: Vec<RemoteRegion>) -> Self {
        let by_address = RangeIndex::new(regions.iter().map(|region| (region.base, region.size)));
        let mut by_key: Vec<_> =
            regions.iter().enumerate().map(|(position, region)| (region.rkey, position as u32)).collect();
        by_key.sort_unstable();
        Self { regions, by_address, by_key }
    }

    /// A region that holds the range whole.
    pub fn find(&self, address: u64, length: u64) -> Option<&RemoteRegion> {
        self.regions.get(self.by_address.find(address, length)?)
    }

    /// Checks a range against the regions of its key, in 64 bits.
    pub fn check(&self, rkey: u32, address: u64, length: u64) -> RemoteCheck {
        let first = self.by_key.partition_point(|(key, _)| *key < rkey);
        let mut same_key = self.by_key.iter().skip(first).take_while(|(key, _)| *key == rkey).peekable();
        if same_key.peek().is_none() {
            return RemoteCheck::UnknownKey;
        }
        same_key
            .filter_map(|(_, position)| self.regions.get(*position as usize))
            .find(|region| holds(region.base, region.size, address, length))
            .map_or(RemoteCheck::Outside, |region| RemoteCheck::Inside(*region))
    }

    /// Number of regions.
    pub fn len(&self) -> usize {
        self.regions.len()
    }

    /// Whether the peer announced nothing.
    pub fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_by_key_in_64_bits() {
        let region = RemoteRegion { base: 0x1000, size: 0x1000, rkey: 7 };
        let table = RemoteTable::new(vec![region, RemoteRegion { base: 0x9000, size: 0x1000, rkey: 7 }]);
        assert_eq!(table.check(7, 0x1800, 0x800), RemoteCheck::Inside(region));
        assert_eq!(table.check(7, 0x1800, 0x801), RemoteCheck::Outside);
        assert_eq!(table.check(7, u64::MAX, 2), RemoteCheck::Outside);
        assert_eq!(table.check(8, 0x1800, 1), RemoteCheck::UnknownKey);
        assert_eq!(table.find(0x9000, 0x1000).map(|region| region.base), Some(0x9000));
        assert_eq!(table.find(u64::MAX - 1, 64), None);
    }
}

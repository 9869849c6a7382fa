//! The segments of a region: ranges in a row, each with keys of its own.
//!
//! A region has more than one where the device cannot register all of it at once, or where its memory is of several dma-bufs.

use std::sync::Arc;
use std::time::Instant;

use super::range_index::holds;
use crate::fabric::{FabricError, MemoryRegion};

/// A part of a region, as the device has registered it.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Start.
    pub address: u64,
    /// Bytes, more than zero.
    pub length: u64,
    /// Local key.
    pub lkey: u32,
    /// Key for peers.
    pub rkey: u32,
    memory: Arc<dyn MemoryRegion>,
}

impl Segment {
    pub(super) fn new(address: u64, length: u64, memory: Arc<dyn MemoryRegion>) -> Self {
        Self { address, length, lkey: memory.lkey(), rkey: memory.rkey(), memory }
    }

    /// Where it ends.
    pub fn end(&self) -> u64 {
        self.address.saturating_add(self.length)
    }

    /// See [`MemoryRegion::close`].
    pub(crate) fn close(&self) {
        self.memory.close();
    }

    /// See [`MemoryRegion::revoke`].
    pub(crate) fn revoke(&self, deadline: Instant) -> Result<(), FabricError> {
        self.memory.revoke(deadline)
    }
}

/// The segments of one region: at least one, without a gap, in the order of their addresses.
#[derive(Debug)]
pub(super) struct Segments {
    first: Segment,
    /// Those behind it; none of most regions.
    further: Box<[Segment]>,
}

impl Segments {
    /// Of segments that follow each other without a gap; `None` of none.
    pub(super) fn new(segments: Vec<Segment>) -> Option<Self> {
        let mut segments = segments.into_iter();
        let first = segments.next()?;
        Some(Self { first, further: segments.collect() })
    }

    pub(super) fn of_one(segment: Segment) -> Self {
        Self { first: segment, further: Box::default() }
    }

    pub(super) fn first(&self) -> &Segment {
        &self.first
    }

    pub(super) fn count(&self) -> usize {
        1 + self.further.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Segment> {
        std::iter::once(&self.first).chain(&self.further)
    }

    /// The segment that holds the range whole; `None` if it crosses a boundary, or is not in the region.
    pub(super) fn holding(&self, address: u64, length: u64) -> Option<&Segment> {
        let of = |segment: &Segment| holds(segment.address, segment.length, address, length);
        if of(&self.first) {
            return Some(&self.first);
        }
        self.at(address).filter(|segment| of(segment))
    }

    /// The segment with this byte.
    pub(super) fn at(&self, address: u64) -> Option<&Segment> {
        let behind = self.further.partition_point(|segment| segment.address <= address);
        let found = match behind.checked_sub(1) {
            Some(at) => self.further.get(at)?,
            None => &self.first,
        };
        holds(found.address, found.length, address, 1).then_some(found)
    }
}

#[cfg(test)]
#[cfg(not(flagcx_p2p_loom))]
mod tests {
    use super::*;
    use crate::memory::unreachable::UnreachableMemory;

    fn segments(ranges: &[(u64, u64)]) -> Segments {
        let segment =
            |(address, length): &(u64, u64)| Segment::new(*address, *length, Arc::new(UnreachableMemory));
        Segments::new(ranges.iter().map(segment).collect()).unwrap()
    }

    #[test]
    fn a_range_is_in_one_segment_or_crosses_a_boundary() {
        let all = segments(&[(100, 10), (110, 1), (111, 89)]);
        let start = |address, length| all.holding(address, length).map(|segment| segment.address);
        assert_eq!(start(100, 10), Some(100));
        assert_eq!(start(100, 11), None);
        assert_eq!(start(110, 1), Some(110));
        assert_eq!(start(109, 3), None);
        assert_eq!(start(111, 89), Some(111));
        assert_eq!((start(111, 90), start(99, 1), start(u64::MAX, 2)), (None, None, None));
        for address in 100..200 {
            let at = all.at(address).unwrap();
            assert!(at.address <= address && address < at.end());
        }
        assert!(all.at(99).is_none() && all.at(200).is_none());
    }
}

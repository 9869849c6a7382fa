//! A part of what is known of a peer's regions, which never changes.

use super::range_index::{RangeIndex, holds};
use super::remote_table::RemoteRegion;

/// A region of a peer, with its id in the peer's changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// 0: changes do not name it.
    pub(super) id: u64,
    /// The id of the first segment of the region that it is a segment of; its own id, if that has no others before it.
    pub(super) first: u64,
    pub(super) region: RemoteRegion,
    /// On a further rail: the key of the same memory on the first one.
    pub(super) first_rkey: Option<u32>,
    /// It was gone already when this part was made.
    pub(super) gone: bool,
}

/// Regions, with indexes over them.
#[derive(Debug, Default)]
pub(super) struct Level {
    entries: Vec<Entry>,
    by_address: RangeIndex,
    /// (key, position), sorted. An original peer may announce two regions under one key.
    by_key: Vec<(u32, u32)>,
    /// Positions, sorted by region and then by place: see [`Level::segment`].
    by_first: Vec<u32>,
    /// Whether any entry is a further segment of a region.
    has_segments: bool,
}

impl Level {
    /// Of `entries`, the oldest first.
    pub(super) fn new(entries: Vec<Entry>) -> Self {
        // A range that wraps holds nothing.
        let range = |entry: &Entry| match entry.gone {
            true => (u64::MAX, 1),
            false => (entry.region.base, entry.region.size),
        };
        let by_address = RangeIndex::new(entries.iter().map(range));
        let mut by_key: Vec<_> = (0..).zip(&entries).map(|(at, entry)| (entry.region.rkey, at)).collect();
        by_key.sort_unstable();
        let has_segments = entries.iter().any(|entry| entry.first != entry.id);
        let mut by_first: Vec<_> = (0..).zip(&entries).map(|(at, entry)| (entry.order(), at)).collect();
        by_first.sort_unstable();
        let by_first = by_first.into_iter().map(|(_, at)| at).collect();
        Self { entries, by_address, by_key, by_first, has_segments }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether any entry is a further segment of a region.
    pub(super) fn has_segments(&self) -> bool {
        self.has_segments
    }

    /// The entry with the highest base that holds the range whole, then the newest, of those that `counts`.
    pub(super) fn find(&self, address: u64, length: u64, counts: impl Fn(&Entry) -> bool) -> Option<&Entry> {
        let counts = |at: usize| self.entries.get(at).is_some_and(&counts);
        let position = self.by_address.find_where(address, length, counts)?;
        self.entries.get(position)
    }

    /// The newest entry that holds the range whole, of those that `counts`.
    pub(super) fn newest(
        &self,
        address: u64,
        length: u64,
        counts: impl Fn(&Entry) -> bool,
    ) -> Option<&Entry> {
        let counts = |at: usize| self.entries.get(at).is_some_and(&counts);
        let position = self.by_address.newest_where(address, length, counts)?;
        self.entries.get(position)
    }

    /// The last of those segments of the region with this first one that begin at `address` or before it. Ids may be used again
    /// by peers that err: of equal ones the newest.
    pub(super) fn segment(&self, first: u64, address: u64) -> Option<&Entry> {
        let entry = |at: &u32| self.entries.get(*at as usize);
        let is_before = |at: &u32| entry(at).is_some_and(|entry| entry.order() <= (first, address, u64::MAX));
        let behind = self.by_first.partition_point(is_before);
        let found = entry(self.by_first.get(behind.checked_sub(1)?)?)?;
        (found.first == first).then_some(found)
    }

    /// The regions that have had this key.
    pub(super) fn of_key(&self, rkey: u32) -> impl Iterator<Item = &Entry> {
        let first = self.by_key.partition_point(|(key, _)| *key < rkey);
        let same_key = self.by_key.iter().skip(first).take_while(move |(key, _)| *key == rkey);
        same_key.filter_map(|(_, position)| self.entries.get(*position as usize))
    }
}

impl Entry {
    /// What [`Level::segment`] sorts by: the region, where the segment begins, and its length.
    fn order(&self) -> (u64, u64, u64) {
        (self.first, self.region.base, self.region.size)
    }

    /// Where it ends.
    pub(super) fn end(&self) -> Option<u64> {
        self.region.base.checked_add(self.region.size)
    }

    pub(super) fn holds(&self, address: u64, length: u64) -> bool {
        holds(self.region.base, self.region.size, address, length)
    }
}

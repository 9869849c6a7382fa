//! A part of what is known of a peer's regions, which never changes.

use super::range_index::{RangeIndex, holds};
use super::remote_table::RemoteRegion;

/// A region of a peer, with its id in the peer's changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// 0: changes do not name it.
    pub(super) id: u64,
    pub(super) region: RemoteRegion,
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
        Self { entries, by_address, by_key }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The region with the highest base that holds the range whole, then the newest, of those that are not `gone` by now.
    pub(super) fn find(
        &self,
        address: u64,
        length: u64,
        gone: impl Fn(&Entry) -> bool,
    ) -> Option<&RemoteRegion> {
        let counts = |at: usize| self.entries.get(at).is_some_and(|entry| !gone(entry));
        let position = self.by_address.find_where(address, length, counts)?;
        self.entries.get(position).map(|entry| &entry.region)
    }

    /// The regions that have had this key.
    pub(super) fn of_key(&self, rkey: u32) -> impl Iterator<Item = &Entry> {
        let first = self.by_key.partition_point(|(key, _)| *key < rkey);
        let same_key = self.by_key.iter().skip(first).take_while(move |(key, _)| *key == rkey);
        same_key.filter_map(|(_, position)| self.entries.get(*position as usize))
    }
}

impl Entry {
    pub(super) fn holds(&self, address: u64, length: u64) -> bool {
        holds(self.region.base, self.region.size, address, length)
    }
}

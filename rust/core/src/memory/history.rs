//! The history of the announced regions of one engine, by version: so a peer gets the changes that it does not have,
//! and no more.
//!
//! Each change gives the history its next version. A region is stored under the version that added it, which is its
//! id as well; a removed one under the version that removed it. So the history holds one entry per region, and the
//! last [`Limits::removed`] removals. A peer that lacks an older removal gets a reset and all regions.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::control::wire::{AnnouncedRegion, Change, MAX_ANNOUNCED, MAX_REGIONS, RegionChanges, RegionEntry};
use crate::memory::RemoteRegion;

/// The history of the announced regions of one engine.
#[derive(Debug)]
pub struct History {
    limits: Limits,
    version: u64,
    /// By id. Segments of one region have ids in a row.
    regions: BTreeMap<u64, Segment>,
    /// By version.
    removed: BTreeMap<u64, Removed>,
    /// Versions in `removed` by key: several regions may have had the same one.
    removed_keys: BTreeSet<(u32, u64)>,
    /// The version of the last removal that is no longer among `removed`.
    pruned: u64,
}

/// Limits of a history.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Regions that are announced.
    pub announced: usize,
    /// Regions of the table of the handshake.
    pub table: usize,
    /// Removed regions.
    pub removed: usize,
    /// Entries of one frame.
    pub entries: usize,
}

/// The changes that one peer has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// It has all additions up to this version.
    since: u64,
    /// It has no region that was removed up to this version.
    removals: u64,
}

/// A region, or one segment of it.
#[derive(Clone, Copy, Debug)]
struct Segment {
    region: RemoteRegion,
    /// It is of the same region as the one with the id before.
    continues: bool,
    /// Of a further rail: the key of the same memory on the first one.
    first_rkey: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Removed {
    id: u64,
    region: RemoteRegion,
    flags: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            announced: MAX_ANNOUNCED,
            table: MAX_REGIONS,
            removed: 65_536,
            entries: RegionChanges::MAX_ENTRIES,
        }
    }
}

impl Default for History {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl History {
    /// An empty history.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            version: 0,
            regions: BTreeMap::new(),
            removed: BTreeMap::new(),
            removed_keys: BTreeSet::new(),
            pruned: 0,
        }
    }

    /// A region is new, with these segments: contiguous, in the order of their addresses. Answers their ids, which are in a
    /// row; none if there are too many to announce them.
    pub fn add(&mut self, segments: &[RemoteRegion]) -> Range<u64> {
        self.add_all(segments.len(), segments.iter().map(|region| (*region, None)))
    }

    /// The same for a further rail: each segment comes with the key that the same memory has on the first one.
    pub fn add_of_rail(&mut self, segments: &[(RemoteRegion, u32)]) -> Range<u64> {
        // All entries of a further rail are longer.
        self.limits.entries = self.limits.entries.min(RegionChanges::MAX_ENTRIES_OF_RAIL);
        self.add_all(segments.len(), segments.iter().map(|(region, first_rkey)| (*region, Some(*first_rkey))))
    }

    fn add_all(
        &mut self,
        count: usize,
        segments: impl Iterator<Item = (RemoteRegion, Option<u32>)>,
    ) -> Range<u64> {
        let first = self.version + 1;
        if self.regions.len().saturating_add(count) > self.limits.announced {
            return first..first;
        }
        for (at, (region, first_rkey)) in segments.enumerate() {
            self.version += 1;
            self.regions.insert(self.version, Segment { region, continues: at > 0, first_rkey });
        }
        first..self.version + 1
    }

    /// The region, or segment, with this id is gone.
    pub fn remove(&mut self, id: u64) {
        if let Some(Segment { region, .. }) = self.regions.remove(&id) {
            self.record_removed(Removed { id, region, flags: 0 });
        }
    }

    /// Records that memory which is not announced has this key; true if peers need the change, because they may hold
    /// it as the key of removed regions.
    pub fn key_in_use(&mut self, rkey: u32) -> bool {
        let of_key = (rkey, 0)..=(rkey, u64::MAX);
        let versions: Vec<_> = self.removed_keys.range(of_key).map(|(_, version)| *version).collect();
        for version in &versions {
            self.removed_keys.remove(&(rkey, *version));
            if let Some(removed) = self.removed.remove(version) {
                self.record_removed(Removed { flags: AnnouncedRegion::KEY_IN_USE, ..removed });
            }
        }
        !versions.is_empty()
    }

    /// The version now.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The regions for the table of a handshake, oldest first, and the cursor of a peer that gets it. Regions that do
    /// not fit are announced afterwards. An id of more than 29 bits does not fit: its entry has the id 0, and is for
    /// peers that get no ids.
    pub fn table(&self) -> (Vec<RegionEntry>, Cursor) {
        let entries: Vec<_> = self
            .regions
            .iter()
            .take(self.limits.table)
            .map(|(id, Segment { region, continues, .. })| RegionEntry {
                base: region.base,
                size: region.size,
                rkey: region.rkey,
                id: u32::try_from(*id).ok().filter(|id| *id < RegionEntry::ID_LIMIT).unwrap_or(0),
                read_only: region.read_only,
                continues: *continues,
                gpu_flush: region.gpu_flush,
            })
            .collect();
        let named = entries.iter().take_while(|entry| entry.id != 0);
        let since = match named.clone().count() == self.regions.len() {
            true => self.version,
            false => named.last().map_or(0, |last| u64::from(last.id)),
        };
        (entries, Cursor { since, removals: self.version })
    }

    /// The next changes for a peer; advances the cursor. `None` if it has all.
    pub fn next(&self, cursor: &mut Cursor) -> Option<RegionChanges> {
        if cursor.since == self.version {
            return None;
        }
        let Cursor { since, removals } = *cursor;
        let told = since.max(removals);
        if told < self.pruned {
            *cursor = Cursor { since: 0, removals: self.version };
            return Some(RegionChanges {
                version: self.version,
                rail: 0,
                change: Change::Reset,
                entries: Vec::new(),
            });
        }
        let mut added = self.regions.range(since + 1..).peekable();
        // A region that was added after `since` and removed was never announced.
        let mut removed =
            self.removed.range(told + 1..).filter(|(_, removed)| removed.id <= since).peekable();
        let (mut entries, mut change, mut version) = (Vec::new(), Change::Add, self.version);
        loop {
            let next = match (added.peek(), removed.peek()) {
                (None, None) => break,
                (Some((new, _)), Some((gone, _))) if gone < new => Change::Remove,
                (None, Some(_)) => Change::Remove,
                _ => Change::Add,
            };
            if entries.is_empty() {
                change = next;
            } else if next != change || entries.len() >= self.limits.entries {
                // The rest comes with the next call.
                cursor.since = version;
                return Some(RegionChanges { version, rail: 0, change, entries });
            }
            let taken = match next {
                Change::Add => added.next().map(|(id, segment)| (*id, segment.announced(*id))),
                _ => removed.next().map(|(at, gone)| (*at, announced(gone.id, gone.region, gone.flags))),
            };
            let Some((at, entry)) = taken else { break };
            version = at;
            entries.push(entry);
        }
        cursor.since = self.version;
        Some(RegionChanges { version: self.version, rail: 0, change, entries })
    }

    fn record_removed(&mut self, removed: Removed) {
        self.version += 1;
        if removed.flags & AnnouncedRegion::KEY_IN_USE == 0 {
            self.removed_keys.insert((removed.region.rkey, self.version));
        }
        self.removed.insert(self.version, removed);
        if self.removed.len() > self.limits.removed
            && let Some((version, removed)) = self.removed.pop_first()
        {
            self.pruned = version;
            self.removed_keys.remove(&(removed.region.rkey, version));
        }
    }
}

impl Cursor {
    /// The version up to which the peer has all changes.
    pub fn version(&self) -> u64 {
        self.since
    }
}

impl Segment {
    fn announced(&self, id: u64) -> AnnouncedRegion {
        AnnouncedRegion { first_rkey: self.first_rkey, ..announced(id, self.region, self.flags()) }
    }

    fn flags(&self) -> u32 {
        if self.continues { AnnouncedRegion::CONTINUES } else { 0 }
    }
}

fn announced(id: u64, region: RemoteRegion, flags: u32) -> AnnouncedRegion {
    let given = |is: bool, flag: u32| if is { flag } else { 0 };
    let flags = flags
        | given(region.read_only, AnnouncedRegion::READ_ONLY)
        | given(region.gpu_flush, AnnouncedRegion::GPU_FLUSH);
    AnnouncedRegion {
        id,
        base: region.base,
        size: region.size,
        flags,
        rkey: Some(region.rkey),
        first_rkey: None,
    }
}

#[cfg(test)]
#[cfg(not(flagcx_p2p_loom))]
mod tests;

//! What is known of a peer's memory at one moment.

use std::sync::Arc;

use super::range_index::holds;
use super::remote_level::{Entry, Level};

/// One region of a peer. The default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoteRegion {
    /// Start, in the peer's address space.
    pub base: u64,
    /// Bytes.
    pub size: u64,
    /// Key.
    pub rkey: u32,
    /// It is registered for reading only: a WRITE to it would fail.
    pub read_only: bool,
}

impl RemoteRegion {
    /// Whether `address..address + length` is in it, and `rkey` names it.
    #[inline(always)]
    pub fn holds(&self, rkey: u32, address: u64, length: u64) -> bool {
        rkey == self.rkey && holds(self.base, self.size, address, length)
    }
}

/// The regions that a peer has announced. The fabric checks those that it has not.
#[derive(Debug, Default)]
pub struct RemoteTable {
    /// The oldest first, mostly one; see [`super::RemoteRegions`].
    pub(super) levels: Vec<Arc<Level>>,
    /// Ids of regions of `levels` that are gone since these were made, sorted.
    pub(super) gone: Vec<u64>,
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
    /// It lies in a region of that key which the peer has deregistered.
    Removed,
}

impl RemoteTable {
    /// A region that holds the range whole.
    pub fn find(&self, address: u64, length: u64) -> Option<&RemoteRegion> {
        let found =
            self.levels.iter().filter_map(|level| level.find(address, length, |entry| self.is_gone(entry)));
        // The last of equal ones, which is the newest.
        found.max_by_key(|region| region.base)
    }

    /// Checks a range against the regions of its key, in 64 bits.
    pub fn check(&self, rkey: u32, address: u64, length: u64) -> RemoteCheck {
        let mut answer = RemoteCheck::UnknownKey;
        for entry in self.levels.iter().flat_map(|level| level.of_key(rkey)) {
            answer = match (self.is_gone(entry), entry.holds(address, length)) {
                (false, true) => return RemoteCheck::Inside(entry.region),
                (false, false) => RemoteCheck::Outside,
                (true, true) if answer == RemoteCheck::UnknownKey => RemoteCheck::Removed,
                (true, _) => answer,
            };
        }
        answer
    }

    /// The region that was registered before all others.
    pub fn oldest(&self) -> Option<&RemoteRegion> {
        let mut entries = self.levels.iter().flat_map(|level| level.entries());
        entries.find(|entry| !self.is_gone(entry)).map(|entry| &entry.region)
    }

    /// Number of regions.
    pub fn len(&self) -> usize {
        let entries = self.levels.iter().flat_map(|level| level.entries());
        entries.filter(|entry| !self.is_gone(entry)).count()
    }

    /// Whether the peer has announced nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn is_gone(&self, entry: &Entry) -> bool {
        entry.gone || !self.gone.is_empty() && self.gone.binary_search(&entry.id).is_ok()
    }
}

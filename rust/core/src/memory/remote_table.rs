//! What is known of a peer's memory at one moment.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::range_index::holds;
use super::remote_level::{Entry, Level};

/// One region of a peer, or one segment of it. The default is none.
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
    /// A WRITE to it is done only once a byte behind it has been read, see
    /// [`AnnouncedRegion::GPU_FLUSH`](crate::control::wire::AnnouncedRegion::GPU_FLUSH).
    pub gpu_flush: bool,
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
    /// The peer has said that it may have regions with [`RemoteRegion::gpu_flush`], or has announced one at some time: memory of a key
    /// that is not known may be such, and its announcement under way.
    pub(super) has_gpu_flush: bool,
}

/// Regions that [`RemoteTable::writable`] looks at.
const MOST_LOOKED_AT: usize = 64;

/// What the table says of a remote range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteCheck {
    /// Inside this region, or this segment.
    Inside(RemoteRegion),
    /// Inside the region of that key, but not inside the segment of that key: see [`RemoteTable::segments`]. Is the region for
    /// reading only?
    InSegments {
        /// See [`RemoteRegion::read_only`].
        read_only: bool,
    },
    /// The key is not in the table: left to the fabric.
    UnknownKey,
    /// The key's regions do not hold it.
    Outside,
    /// It lies in a region of that key which the peer has deregistered.
    Removed,
}

impl RemoteTable {
    /// A region that holds the range whole; of one that holds it in several segments the first of these.
    pub fn find(&self, address: u64, length: u64) -> Option<&RemoteRegion> {
        let in_segments = || {
            let holds =
                |entry: &Entry| entry.id != 0 && self.entries_of(entry.first, address, length).is_some();
            self.has_segments().then(|| self.find_where(address, 1, holds)).flatten()
        };
        self.find_where(address, length, |_| true).or_else(in_segments).map(|entry| &entry.region)
    }

    /// Checks a range against the regions of its key, in 64 bits.
    pub fn check(&self, rkey: u32, address: u64, length: u64) -> RemoteCheck {
        let mut answer = RemoteCheck::UnknownKey;
        for entry in self.levels.iter().flat_map(|level| level.of_key(rkey)) {
            answer = match (self.is_gone(entry), entry.holds(address, length)) {
                (false, true) => return RemoteCheck::Inside(entry.region),
                (false, false) => RemoteCheck::Outside,
                (true, held)
                    if answer == RemoteCheck::UnknownKey
                        // A range that begins in one segment may end in another.
                        && (held || self.has_segments() && entry.holds(address, 0)) =>
                {
                    RemoteCheck::Removed
                }
                (true, _) => answer,
            };
        }
        match answer == RemoteCheck::Outside && self.has_segments() {
            true => self.check_segments(rkey, address, length),
            false => answer,
        }
    }

    /// The segments of a range that is inside the region which `rkey` is the key of a segment of, in the order of their addresses;
    /// one of an empty range. `None` if that region does not hold it.
    pub fn segments(&self, rkey: u32, address: u64, length: u64) -> Option<Vec<RemoteRegion>> {
        let entries = self.entries_across(rkey, address, length)?;
        Some(entries.into_iter().map(|entry| entry.region).collect())
    }

    /// The entries of [`RemoteTable::segments`].
    pub(super) fn entries_across(&self, rkey: u32, address: u64, length: u64) -> Option<Vec<&Entry>> {
        // Each region once, however many segments have the key: peers choose keys.
        let entries = self.levels.iter().flat_map(|level| level.of_key(rkey));
        let entries = entries.filter(|entry| entry.id != 0 && !self.is_gone(entry));
        let firsts: BTreeSet<_> = entries.map(|entry| entry.first).collect();
        firsts.into_iter().find_map(|first| self.entries_of(first, address, length))
    }

    /// Where the region, or segment, with the first byte of a range ends, and another one begins: the reason why none holds the
    /// range whole.
    pub fn boundary_in(&self, address: u64, length: u64) -> Option<u64> {
        let first = self.find_where(address, 1, |_| true)?;
        let end = first.end().filter(|end| *end - address < length)?;
        self.find_where(end, 1, |_| true).map(|_| end)
    }

    /// [`RemoteTable::check`] of a range that is not in the segments of that key.
    #[cold]
    fn check_segments(&self, rkey: u32, address: u64, length: u64) -> RemoteCheck {
        let segments = self.segments(rkey, address, length).unwrap_or_default();
        // All have the same rights.
        segments
            .first()
            .map_or(RemoteCheck::Outside, |segment| RemoteCheck::InSegments { read_only: segment.read_only })
    }

    /// The segments of a range, of the region with this first one. `None` if that does not hold it.
    fn entries_of(&self, first: u64, address: u64, length: u64) -> Option<Vec<&Entry>> {
        let (mut at, end, mut segments) = (address, address.checked_add(length)?, Vec::new());
        if at == end {
            return self.segment(first, at, 0).map(|segment| vec![segment]);
        }
        while at < end {
            let segment = self.segment(first, at, 1)?;
            // Behind `at`, for the segment has that byte.
            at = segment.end()?;
            segments.push(segment);
        }
        Some(segments)
    }

    /// The segment with these bytes, of the region with this first one.
    fn segment(&self, first: u64, address: u64, length: u64) -> Option<&Entry> {
        let mut found = self.levels.iter().filter_map(|level| level.segment(first, address));
        found.find(|entry| !self.is_gone(entry) && entry.holds(address, length))
    }

    fn find_where(&self, address: u64, length: u64, counts: impl Fn(&Entry) -> bool) -> Option<&Entry> {
        let counts = |entry: &Entry| !self.is_gone(entry) && counts(entry);
        let found = self.levels.iter().filter_map(|level| level.find(address, length, counts));
        // The last of equal ones, which is the newest.
        found.max_by_key(|entry| entry.region.base)
    }

    fn has_segments(&self) -> bool {
        self.levels.iter().any(|level| level.has_segments())
    }

    /// The region that was registered before all others.
    pub fn oldest(&self) -> Option<&RemoteRegion> {
        let mut entries = self.levels.iter().flat_map(|level| level.entries());
        entries.find(|entry| !self.is_gone(entry)).map(|entry| &entry.region)
    }

    /// A region that may be written to, if one is found at once: of the last ones, for a look at all that are gone takes long.
    pub fn writable(&self) -> Option<&RemoteRegion> {
        let newest_first = self.levels.iter().rev().flat_map(|level| level.entries().iter().rev());
        let mut looked_at = newest_first.take(MOST_LOOKED_AT);
        looked_at.find(|entry| !self.is_gone(entry) && !entry.region.read_only).map(|entry| &entry.region)
    }

    /// Whether WRITEs to memory of an unknown key are to be flushed.
    pub fn flushes_unknown(&self) -> bool {
        self.has_gpu_flush
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

    pub(super) fn is_gone(&self, entry: &Entry) -> bool {
        entry.gone || !self.gone.is_empty() && self.gone.binary_search(&entry.id).is_ok()
    }
}

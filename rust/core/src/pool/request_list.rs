//! What a worker is given to move: work requests, cut and checked, and what must stay alive until they are done.

use crate::fabric::{Batch, Opcode, Sge, WorkRequest};
use crate::memory::{Hold, Lease, RegionId};

mod rekey;
#[cfg(all(test, not(flagcx_p2p_loom)))]
mod rekey_tests;

pub use rekey::NotOnRail;

/// The work requests of one part of a transfer, in posting order. Made once, when the transfer is checked; posting takes
/// the next so many of them, and a repetition takes them again. A slice costs the 40 bytes of a request with one entry.
#[derive(Debug, Default)]
pub struct RequestList {
    /// What all of them do.
    pub(crate) opcode: Opcode,
    // Both vectors are longer than what is in use of them: writing over what is there spares the test for room with each
    // request, and emptying is to forget how much was in use.
    requests: Vec<WorkRequest>,
    len: usize,
    /// Their scatter/gather entries.
    entries: Vec<Sge>,
    entry_count: usize,
    /// How many of the requests, the last ones, are READs behind WRITEs, see [`RequestList::append_gpu_flush`]. Such a list has
    /// a hold, by which emptying it knows.
    gpu_flushes: u32,
    /// Bytes of all requests.
    pub(crate) bytes: u64,
    /// Keeps the lane's recent region registered until the part has ended, if the part uses it. A list that is empty may have
    /// one left, for the next part.
    pub lease: Option<Lease>,
    /// Keeps the other local regions registered until the part has ended.
    pub holds: Vec<Hold>,
}

impl RequestList {
    /// Most requests of one list: what indices of 32 bits name, and 2.5 GiB of memory.
    pub const LONGEST: usize = 1 << 26;
    /// Largest capacity that is kept for reuse: 1.25 MiB of requests and entries.
    const KEEP: usize = 1 << 15;
    /// Room is made for at least so many: no list is grown twice for a short transfer.
    const SHORTEST: usize = 16;

    /// Whether it keeps this region registered.
    pub(super) fn uses(&self, region: RegionId) -> bool {
        self.lease.as_deref().into_iter().chain(&self.holds).any(|hold| hold.region().id == region)
    }

    /// Whether READs that flush GPU memory stand behind its WRITEs.
    pub(crate) fn flushes_gpu(&self) -> bool {
        self.gpu_flushes > 0
    }

    /// Number of requests.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Empties the list for reuse, giving back the memory of an unusually long one.
    #[inline]
    pub fn clear(&mut self) {
        self.lease = None;
        self.clear_but_lease();
    }

    /// As [`RequestList::clear`], but keeps the lease on the lane's recent region, which the next part most likely uses too.
    #[inline]
    pub(super) fn clear_but_lease(&mut self) {
        self.len = 0;
        self.entry_count = 0;
        self.bytes = 0;
        if !self.holds.is_empty() {
            self.holds.clear();
            self.gpu_flushes = 0;
        }
        if self.requests.len() > Self::KEEP || self.entries.len() > Self::KEEP {
            self.shrink();
        }
    }

    #[cold]
    fn shrink(&mut self) {
        self.requests.truncate(Self::KEEP);
        self.requests.shrink_to_fit();
        self.entries.truncate(Self::KEEP);
        self.entries.shrink_to_fit();
    }

    /// Makes room for so many more requests and entries.
    #[inline]
    pub(crate) fn reserve(&mut self, requests: usize, entries: usize) {
        if self.requests.len() - self.len < requests || self.entries.len() - self.entry_count < entries {
            self.grow(requests, entries);
        }
    }

    #[cold]
    fn grow(&mut self, requests: usize, entries: usize) {
        let grown = |present: usize, used: usize, more: usize| {
            if present - used >= more {
                present
            } else {
                (used + more).max(present + present / 2).max(Self::SHORTEST)
            }
        };
        self.requests.resize(grown(self.requests.len(), self.len, requests), BLANK);
        self.entries.resize(grown(self.entries.len(), self.entry_count, entries), Sge::default());
    }

    /// Everything that it would have posted, to compare.
    #[cfg(all(test, not(flagcx_p2p_loom)))]
    pub(crate) fn contents(&self) -> (String, Vec<Sge>, u64) {
        (format!("{:?} {:?}", self.opcode, self.requests()), self.entries().to_vec(), self.bytes)
    }

    /// The requests.
    pub(crate) fn requests(&self) -> &[WorkRequest] {
        self.requests.get(..self.len).unwrap_or_default()
    }

    /// Their entries.
    #[cfg(all(test, not(flagcx_p2p_loom)))]
    pub(crate) fn entries(&self) -> &[Sge] {
        self.entries.get(..self.entry_count).unwrap_or_default()
    }

    /// The last request and its last entry.
    #[inline]
    pub(crate) fn last_mut(&mut self) -> Option<(&mut WorkRequest, &mut Sge)> {
        let request = self.requests.get_mut(self.len.checked_sub(1)?)?;
        let entry = self.entries.get_mut(self.entry_count.checked_sub(1)?)?;
        Some((request, entry))
    }

    /// Unused requests and entries, as far as there is room, and the index of the first entry. What is written there counts
    /// once [`RequestList::append`] says so.
    #[inline]
    pub(crate) fn unused(&mut self) -> (&mut [WorkRequest], &mut [Sge], u32) {
        let end = self.requests.len().min(Self::LONGEST);
        let requests = self.requests.get_mut(self.len..end).unwrap_or_default();
        let entries = self.entries.get_mut(self.entry_count..).unwrap_or_default();
        (requests, entries, self.entry_count as u32)
    }

    /// Makes an empty list one of one request with one entry; false, and nothing is done, if the list never had room.
    #[inline(always)]
    pub(crate) fn set_only(&mut self, opcode: Opcode, (request, entry): (WorkRequest, Sge)) -> bool {
        let (Some(first), Some(first_entry)) = (self.requests.first_mut(), self.entries.first_mut()) else {
            return false;
        };
        self.bytes = u64::from(entry.length);
        (*first, *first_entry) = (request, entry);
        (self.opcode, self.len, self.entry_count) = (opcode, 1, 1);
        true
    }

    /// Counts requests that were written to unused ones, and their entries.
    #[inline]
    pub(crate) fn append(&mut self, requests: usize, entries: usize) {
        self.len = (self.len + requests).min(self.requests.len());
        self.entry_count = (self.entry_count + entries).min(self.entries.len());
    }

    /// Appends a READ of the byte at `remote_address` behind WRITEs, into `landing`, which `hold` keeps registered. It is
    /// posted after all WRITEs of the list; `iov` is the one that it is for. Nothing else is appended after it. False, and
    /// nothing is done, if the list is full.
    pub(crate) fn append_gpu_flush(
        &mut self,
        (remote_address, rkey): (u64, u32),
        iov: u32,
        landing: Sge,
        hold: Hold,
    ) -> bool {
        if self.len >= Self::LONGEST {
            return false;
        }
        self.reserve(1, 1);
        let first_sge = self.entry_count;
        if let (Some(request), Some(entry)) =
            (self.requests.get_mut(self.len), self.entries.get_mut(first_sge))
        {
            let first_sge = first_sge as u32;
            *request =
                WorkRequest { remote_address, rkey, first_sge, origin: iov, sge_count: 1, inline: false };
            *entry = landing;
        }
        self.len += 1;
        self.entry_count += 1;
        self.gpu_flushes += 1;
        self.holds.push(hold);
        true
    }

    /// At most `most` requests from index `start` on, to be posted under ids from `first_id` on. Every `signal_every`-th
    /// is signaled, and the last one.
    #[inline(always)]
    pub(crate) fn batch(&self, start: usize, most: usize, first_id: u64, signal_every: u32) -> Batch<'_> {
        // Without a branch for the rare case: with one, and a call behind it, a WRITE cost three instructions more.
        let first_gpu_flush = self.len - self.gpu_flushes as usize;
        let is_gpu_flush = start >= first_gpu_flush;
        let end = if is_gpu_flush { self.len } else { first_gpu_flush }.min(start.saturating_add(most));
        Batch {
            opcode: if is_gpu_flush { Opcode::Read } else { self.opcode },
            first_id,
            signal_every,
            requests: self.requests.get(start..end).unwrap_or_default(),
            entries: self.entries.get(..self.entry_count).unwrap_or_default(),
            // No request is without an entry.
            one_each: self.entry_count == self.len,
        }
    }

    /// The caller's iov that request `index` came from (the first one, if several were joined).
    pub(super) fn iov(&self, index: usize) -> u32 {
        self.requests().get(index).map_or(0, |request| request.origin)
    }
}

/// What requests are that are not in use.
const BLANK: WorkRequest =
    WorkRequest { remote_address: 0, rkey: 0, first_sge: 0, origin: 0, sge_count: 0, inline: false };

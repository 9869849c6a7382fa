//! The same requests with the keys of another NIC, cut where memory has another key there.

use super::{BLANK, RequestList};
use crate::fabric::{Sge, WorkRequest};
use crate::memory::{Hold, RemoteRegion};

/// The memory of a list is not known on the NIC that is to move it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the memory of iov {iov} has no keys on that rail")]
pub struct NotOnRail {
    /// The caller's iov, the first one for which that is so.
    pub iov: u32,
}

impl RequestList {
    /// Gives the requests from `from` on the keys of another NIC: `local` answers an entry with its key there, `remote` the region or segment
    /// there of the peer's memory at an address, which has this key now and of which the request reaches so many bytes. Those before `from` are
    /// done: what keeps their memory registered is released, and `holds`, which keep that of the others, take its place.
    ///
    /// An answer may be for fewer bytes than were asked for, but for one at least: then another segment begins behind them, and the request
    /// becomes several. Without an answer for one of them the list stays as it is, and `holds` are released.
    pub fn rekey(
        &mut self,
        from: usize,
        mut local: impl FnMut(Sge) -> Option<Sge>,
        mut remote: impl FnMut(u64, u32, u64) -> Option<(RemoteRegion, u64)>,
        holds: Vec<Hold>,
    ) -> Result<(), NotOnRail> {
        let requests = self.requests.get(from..self.len).unwrap_or_default();
        let entry_count = requests.first().map_or(self.entry_count, |request| request.first_sge as usize);
        let mut made = Rekeyed::behind(entry_count, requests.len());
        let flushes = self.gpu_flushes as usize;
        let flushed = if flushes > 0 { requests.len().saturating_sub(flushes) } else { 0 };
        for (at, request) in requests.iter().enumerate() {
            let first = request.first_sge as usize;
            let own = self.entries.get(first..first + usize::from(request.sge_count)).unwrap_or_default();
            let added = made.add(request, own, at < flushed, &mut local, &mut remote);
            added.ok_or(NotOnRail { iov: request.origin })?;
        }
        let further_flushes = made.flush_all(flushes);
        // Emptying the list knows of READs behind WRITEs by the hold on their landing.
        let is_unheld = flushes > 0 && holds.is_empty();
        if is_unheld || from + made.requests.len() > Self::LONGEST {
            return Err(NotOnRail { iov: self.iov(self.len.saturating_sub(1)) });
        }
        let Rekeyed { requests, entries, .. } = made;
        (self.len, self.entry_count) = (from, entry_count);
        self.reserve(requests.len(), entries.len());
        let (unused, unused_entries, _) = self.unused();
        unused.iter_mut().zip(&requests).for_each(|(place, request)| *place = *request);
        unused_entries.iter_mut().zip(&entries).for_each(|(place, entry)| *place = *entry);
        self.append(requests.len(), entries.len());
        self.gpu_flushes += further_flushes;
        (self.lease, self.holds) = (None, holds);
        Ok(())
    }
}

/// Requests with their new keys, as they are made.
struct Rekeyed {
    requests: Vec<WorkRequest>,
    entries: Vec<Sge>,
    /// Entries of the list before these.
    before: usize,
    /// What WRITEs reach that is to be flushed behind them: address, key and iov, of each key once.
    to_flush: Vec<(u64, u32, u32)>,
}

impl Rekeyed {
    fn behind(before: usize, count: usize) -> Self {
        let (requests, entries) = (Vec::with_capacity(count), Vec::with_capacity(count));
        Self { requests, entries, before, to_flush: Vec::new() }
    }

    /// Adds a request, or several that move the same bytes, none of them by more entries.
    fn add(
        &mut self,
        request: &WorkRequest,
        own: &[Sge],
        is_flushed: bool,
        local: &mut impl FnMut(Sge) -> Option<Sge>,
        remote: &mut impl FnMut(u64, u32, u64) -> Option<(RemoteRegion, u64)>,
    ) -> Option<()> {
        let mut address = request.remote_address;
        let mut left: u64 = own.iter().map(|entry| u64::from(entry.length)).sum();
        // Bytes from `address` on that have `rkey`, and how many entries the request before may still get.
        let (mut rkey, mut of_key, mut room) = (0, 0, 0);
        for entry in own {
            let mut entry = *entry;
            while entry.length > 0 {
                if of_key == 0 {
                    let (region, bytes) = remote(address, request.rkey, left)?;
                    (rkey, of_key, room) = (region.rkey, bytes.min(left), 0);
                    let is_new = || self.to_flush.iter().all(|(_, flushed, _)| *flushed != rkey);
                    if is_flushed && region.gpu_flush && is_new() {
                        self.to_flush.push((address, rkey, request.origin));
                    }
                }
                if room == 0 {
                    self.begin(WorkRequest { remote_address: address, rkey, ..*request });
                    room = request.sge_count;
                }
                let here = local(entry)?;
                let length = u64::from(here.length.min(entry.length)).min(of_key);
                if length == 0 {
                    return None;
                }
                self.gather(Sge { length: length as u32, ..here });
                room -= 1;
                (address, left, of_key) = (address.wrapping_add(length), left - length, of_key - length);
                (entry.address, entry.length) =
                    (entry.address.wrapping_add(length), entry.length - length as u32);
            }
        }
        // One without bytes is none of those that lists have.
        (address != request.remote_address).then_some(())
    }

    fn begin(&mut self, request: WorkRequest) {
        let first_sge = (self.before + self.entries.len()) as u32;
        self.requests.push(WorkRequest { first_sge, sge_count: 0, ..request });
    }

    fn gather(&mut self, entry: Sge) {
        self.entries.push(entry);
        if let Some(request) = self.requests.last_mut() {
            request.sge_count += 1;
        }
    }

    /// Behind the last ones, which are so many READs that flush: one for each segment that is to be flushed and that none of them reads. Answers
    /// how many were added.
    fn flush_all(&mut self, present: usize) -> u32 {
        let Some(landing) = self.entries.last().copied() else { return 0 };
        let reads = self.requests.len().saturating_sub(present);
        let flushed: Vec<_> = self.requests.iter().skip(reads).map(|request| request.rkey).collect();
        let mut added = 0;
        for (remote_address, rkey, origin) in std::mem::take(&mut self.to_flush) {
            if !flushed.contains(&rkey) {
                self.begin(WorkRequest { remote_address, rkey, origin, ..BLANK });
                self.gather(landing);
                added += 1;
            }
        }
        added
    }
}

//! Cutting a transfer into work requests: long ranges into slices, neighbours joined into one request.

use super::slice_policy::SlicePolicy;
use crate::fabric::{Opcode, Sge, WorkRequest};
use crate::pool::RequestList;

/// Chunks longer than this are not joined: the cost of a request is nothing beside their bytes, and joining only loses. A
/// stand-in NIC that copies moved 64 KiB chunks a third slower when they were joined to 1 MiB.
const JOIN_BELOW: u64 = 32 << 10;

/// A contiguous range on both sides.
#[derive(Clone, Copy, Debug)]
pub struct CheckedIov {
    /// Local address.
    pub local: u64,
    /// Remote address.
    pub remote: u64,
    /// Bytes.
    pub length: u64,
    /// Local key.
    pub lkey: u32,
    /// Remote key.
    pub rkey: u32,
    /// Whether the CPU may read the local memory at any time, so that a small WRITE may go inline.
    pub readable: bool,
    /// Index of the caller's iov that it is of.
    pub iov: u32,
}

impl CheckedIov {
    /// Its request, with one entry: it is not longer than a request may be.
    #[inline(always)]
    pub(super) fn request(&self, first_sge: u32, inline_limit: u32) -> (WorkRequest, Sge) {
        let request = WorkRequest {
            remote_address: self.remote,
            rkey: self.rkey,
            first_sge,
            origin: self.iov,
            sge_count: 1,
            inline: self.length <= u64::from(inline_limit),
        };
        (request, Sge { address: self.local, length: self.length as u32, lkey: self.lkey })
    }
}

/// Pieces of a caller that are in the same memory. Not a closure: that would be a call for each piece, which passes
/// everything through memory.
pub trait Run<P> {
    /// What [`CheckedIov::readable`] is of all of them.
    fn is_readable(&self) -> bool;
    /// The chunk of the caller's iov with index `iov`; none if it is in other memory, or not valid.
    fn chunk(&self, piece: &P, iov: u32) -> Option<CheckedIov>;
}

/// The list has [`RequestList::LONGEST`] requests and needs more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyRequests;

/// What became of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It began a request of its own.
    Apart,
    /// It was joined to the request before.
    Joined,
}

/// Makes an empty list one of a single chunk, which [takes one request](SlicePolicy::takes_whole); false, and nothing is
/// done, if the list never had room.
#[inline(always)]
pub(super) fn set_only(
    list: &mut RequestList,
    policy: &SlicePolicy,
    opcode: Opcode,
    chunk: &CheckedIov,
) -> bool {
    list.set_only(opcode, chunk.request(0, policy.inline_limit(opcode, chunk.readable)))
}

/// Appends chunks to a list as work requests.
#[derive(Debug)]
pub struct Cutter<'a> {
    list: &'a mut RequestList,
    policy: SlicePolicy,
    /// Where the last request ends on the remote side. No range ends at 0, so the first chunk joins nothing.
    remote_end: u64,
    /// Bytes of the last request.
    length: u32,
}

impl<'a> Cutter<'a> {
    /// Appends to `list`, which is empty, with room for `chunks` of the usual length.
    #[inline]
    pub fn new(list: &'a mut RequestList, policy: SlicePolicy, opcode: Opcode, chunks: usize) -> Self {
        list.reserve(chunks, chunks);
        list.opcode = opcode;
        Self { list, policy, remote_end: 0, length: 0 }
    }

    /// What the list's requests do.
    #[inline(always)]
    pub fn opcode(&self) -> Opcode {
        self.list.opcode
    }

    /// Appends a chunk of at least one byte, whatever it is like.
    #[inline]
    pub fn push(&mut self, chunk: &CheckedIov) -> Result<Placed, TooManyRequests> {
        if chunk.remote == self.remote_end && chunk.length <= JOIN_BELOW && self.join(chunk) {
            return Ok(Placed::Joined);
        }
        if chunk.length > u64::from(self.policy.longest) {
            self.cut(*chunk)?;
        } else {
            self.append(chunk)?;
        }
        Ok(Placed::Apart)
    }

    /// Appends pieces of `run`, of which the first is iov `iov`, that are a request each, and says how many: up to the first
    /// one that is of another run, empty, longer than a request may be, or right behind another on the remote side, or that
    /// finds no room. This and [`Cutter::push_joined`] are where the time of large transfers goes; whatever else a chunk may
    /// be is left to [`Cutter::push`].
    ///
    /// A function of its own: with all that its caller has at hand, what a piece needs would not fit the registers, and each
    /// would cost eight instructions more.
    #[inline(never)]
    pub fn push_apart<P>(&mut self, run: &impl Run<P>, pieces: impl Iterator<Item = P>, iov: u32) -> usize {
        let policy = self.policy;
        let inline_limit = policy.inline_limit(self.list.opcode, run.is_readable());
        let (mut remote_end, mut bytes) = (self.remote_end, 0);
        let (requests, entries, first_entry) = self.list.unused();
        // The next iov and the next entry, in a word of both that counts both up: one addition and one store.
        let mut next = u64::from(iov) << 32 | u64::from(first_entry);
        // All zipped: one test for the end, and one count.
        for (piece, (request, entry)) in pieces.zip(requests.iter_mut().zip(entries)) {
            let Some(chunk) = run.chunk(&piece, (next >> 32) as u32) else { break };
            if chunk.remote == remote_end || !policy.takes_whole(chunk.length) {
                break;
            }
            remote_end = chunk.remote.wrapping_add(chunk.length);
            (*request, *entry) = chunk.request(next as u32, inline_limit);
            bytes += chunk.length;
            next = next.wrapping_add(1 << 32 | 1);
        }
        let count = (next as u32).wrapping_sub(first_entry) as usize;
        self.list.append(count, count);
        self.list.bytes += bytes;
        if let Some((_, entry)) = self.list.last_mut().filter(|_| count > 0) {
            (self.remote_end, self.length) = (remote_end, entry.length);
        }
        count
    }

    /// Appends pieces of `run` that only lengthen the last request, because they lie right behind it on both sides, and says
    /// how many.
    #[inline(always)]
    pub fn push_joined<P>(&mut self, run: &impl Run<P>, pieces: impl Iterator<Item = P>) -> usize {
        let Some((request, entry)) = self.list.last_mut().filter(|(request, _)| !request.inline) else {
            return 0;
        };
        let mut local_end = entry.address.wrapping_add(u64::from(entry.length));
        let mut remote_end = self.remote_end;
        let mut room = u64::from(self.policy.join.saturating_sub(self.length));
        let (before, mut count) = (room, 0);
        for piece in pieces {
            let Some(chunk) = run.chunk(&piece, 0) else { break };
            let behind = chunk.remote == remote_end && chunk.local == local_end;
            let same = chunk.rkey == request.rkey && chunk.lkey == entry.lkey;
            if !behind || !same || chunk.length > JOIN_BELOW || chunk.length > room {
                break;
            }
            room -= chunk.length;
            local_end = local_end.wrapping_add(chunk.length);
            remote_end = remote_end.wrapping_add(chunk.length);
            count += 1;
        }
        let joined = before - room;
        entry.length += joined as u32;
        self.length += joined as u32;
        self.remote_end = remote_end;
        self.list.bytes += joined;
        count
    }

    #[inline]
    fn append(&mut self, chunk: &CheckedIov) -> Result<(), TooManyRequests> {
        if self.list.len() >= RequestList::LONGEST {
            return Err(TooManyRequests);
        }
        self.list.reserve(1, 1);
        let opcode = self.list.opcode;
        if let ([request, ..], [entry, ..], first_sge) = self.list.unused() {
            let inline_limit = self.policy.inline_limit(opcode, chunk.readable);
            (*request, *entry) = chunk.request(first_sge, inline_limit);
            self.list.append(1, 1);
        }
        self.length = 0;
        self.extend(chunk);
        Ok(())
    }

    /// Counts a chunk as part of the last request.
    #[inline]
    fn extend(&mut self, chunk: &CheckedIov) {
        self.list.bytes += chunk.length;
        self.length += chunk.length as u32;
        self.remote_end = chunk.remote.wrapping_add(chunk.length);
    }

    /// Makes the chunk part of the last request, behind which it lies on the remote side, if it may be.
    fn join(&mut self, chunk: &CheckedIov) -> bool {
        let total = u64::from(self.length) + chunk.length;
        let Some((request, entry)) = self.list.last_mut() else { return false };
        if total > u64::from(self.policy.join) || chunk.rkey != request.rkey {
            return false;
        }
        let local_end = entry.address.wrapping_add(u64::from(entry.length));
        let apart = chunk.local != local_end || chunk.lkey != entry.lkey;
        if apart && request.sge_count >= self.policy.max_sge {
            return false;
        }
        request.inline = request.inline && chunk.readable && total <= u64::from(self.policy.max_inline);
        if apart {
            request.sge_count += 1;
            self.gather(chunk);
        } else {
            entry.length += chunk.length as u32;
        }
        self.extend(chunk);
        true
    }

    /// Adds an entry of its own to the last request.
    fn gather(&mut self, chunk: &CheckedIov) {
        self.list.reserve(0, 1);
        if let (_, [entry, ..], _) = self.list.unused() {
            *entry = Sge { address: chunk.local, length: chunk.length as u32, lkey: chunk.lkey };
            self.list.append(0, 1);
        }
    }

    /// Appends a chunk that is longer than one request may be.
    #[cold]
    fn cut(&mut self, mut chunk: CheckedIov) -> Result<(), TooManyRequests> {
        while chunk.length > u64::from(self.policy.longest) {
            let slice = u64::from(self.policy.slice);
            self.append(&CheckedIov { length: slice, ..chunk })?;
            chunk.local += slice;
            chunk.remote += slice;
            chunk.length -= slice;
        }
        self.append(&chunk)
    }
}

#[cfg(test)]
#[cfg(not(flagcx_p2p_loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fabric::Batch;

    fn chunk(local: u64, remote: u64, length: u64, iov: u32) -> CheckedIov {
        CheckedIov { local, remote, length, lkey: 1, rkey: 2, readable: true, iov }
    }

    fn cut(policy: SlicePolicy, chunks: &[CheckedIov]) -> RequestList {
        let mut list = RequestList::default();
        let mut cutter = Cutter::new(&mut list, policy, Opcode::Write, chunks.len());
        for chunk in chunks {
            cutter.push(chunk).unwrap();
        }
        list
    }

    fn lengths(policy: SlicePolicy, length: u64) -> Vec<u32> {
        cut(policy, &[chunk(1 << 40, 1 << 41, length, 0)])
            .entries()
            .iter()
            .map(|entry| entry.length)
            .collect()
    }

    #[test]
    fn a_slice_takes_a_small_remainder_along() {
        let policy = SlicePolicy::new(1000, 100, 1 << 30, 1, 0);
        assert_eq!(lengths(policy, 1100), [1100]);
        assert_eq!(lengths(policy, 1101), [1000, 101]);
        assert_eq!(lengths(policy, 2100), [1000, 1100]);
        assert_eq!(lengths(policy, 1000), [1000]);
        assert_eq!(lengths(policy, 3), [3]);
    }

    #[test]
    fn no_request_exceeds_the_message_limit() {
        let policy = SlicePolicy::new(1 << 30, 4096, 1 << 20, 1, 0);
        assert_eq!(lengths(policy, (1 << 20) + 1), [1 << 20, 1]);
        let unlimited = SlicePolicy::new(0, 0, 1 << 20, 1, 0);
        assert_eq!(lengths(unlimited, 3 << 20), [1 << 20; 3]);
        assert_eq!(lengths(SlicePolicy::new(0, 0, u32::MAX, 1, 0), 1 << 33), [1 << 31; 4]);
    }

    #[test]
    fn only_short_neighbours_are_joined() {
        let policy = SlicePolicy::new(0, 0, 1 << 30, 4, 0);
        let row = |length: u64| {
            let chunks = (0..64).map(|n| chunk((1 << 30) + n * length, (1 << 40) + n * length, length, 0));
            cut(policy, &chunks.collect::<Vec<_>>())
                .entries()
                .iter()
                .map(|entry| entry.length)
                .collect::<Vec<_>>()
        };
        assert_eq!(row(32 << 10), [1 << 20; 2]);
        assert_eq!(row(64 << 10), [64 << 10; 64]);
    }

    #[test]
    fn a_request_goes_inline_only_from_host_memory_and_whole() {
        let policy = SlicePolicy::new(1000, 0, 1000, 2, 64);
        let host = |local, remote, length| chunk(local, remote, length, 0);
        let device = |local, remote, length| CheckedIov { readable: false, ..host(local, remote, length) };
        let inline = |chunks: &[CheckedIov]| {
            cut(policy, chunks).requests().iter().map(|request| request.inline).collect::<Vec<_>>()
        };
        assert_eq!(inline(&[host(100, 5000, 64), host(1000, 6000, 65)]), [true, false]);
        assert_eq!(inline(&[host(100, 5000, 32), host(132, 5032, 33)]), [false]);
        assert_eq!(inline(&[host(100, 5000, 32), device(500, 5032, 8)]), [false]);
        assert_eq!(inline(&[device(100, 5000, 8), host(500, 5008, 8)]), [false]);
    }

    #[test]
    fn a_list_is_posted_batch_by_batch() {
        let policy = SlicePolicy::new(1000, 0, 1000, 1, 0);
        let list = cut(policy, &[chunk(1 << 20, 1 << 30, 10_000, 0)]);
        let remote = |batch: &Batch<'_>| {
            batch.requests.iter().map(|request| request.remote_address - (1 << 30)).collect::<Vec<_>>()
        };
        let first = list.batch(0, 7, 5, 3);
        assert_eq!(remote(&first), [0, 1000, 2000, 3000, 4000, 5000, 6000]);
        assert_eq!((first.opcode, first.first_id, first.signal_every), (Opcode::Write, 5, 3));
        // As of a batch that was taken up to its second request.
        let rest = list.batch(2, usize::MAX, 7, 3);
        assert_eq!(remote(&rest), [2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000]);
        assert_eq!((rest.first_id, rest.entries.len()), (7, 10));
        assert!(list.batch(10, 5, 0, 1).requests.is_empty() && list.batch(11, 5, 0, 1).requests.is_empty());
    }

    proptest! {
        /// Every byte is covered once, in order, on both sides; limits hold; each request names an iov of its own.
        #[test]
        fn requests_cover_the_chunks(
            lengths in prop::collection::vec(1u64..5000, 1..40),
            touching in prop::collection::vec((any::<bool>(), any::<bool>(), any::<bool>()), 40),
            slice in 1usize..3000, fragment in 0usize..500, limit in 1u32..4000, max_sge in 1u32..6,
        ) {
            let mut chunks = Vec::new();
            let (mut local, mut remote, mut lkey, mut rkey) = (1 << 20, 1 << 30, 1, 1);
            for (index, (length, (near, far, other))) in lengths.iter().zip(&touching).enumerate() {
                chunks.push(CheckedIov { lkey, rkey, ..chunk(local, remote, *length, index as u32) });
                local += length + if *near { 0 } else { 64 };
                remote += length + if *far { 0 } else { 64 };
                if *other && *near { lkey += 1 } else if *other { rkey += 1 }
            }
            let policy = SlicePolicy::new(slice, fragment, limit, max_sge, 32);
            let list = cut(policy, &chunks);
            let mut covered = Vec::new();
            for request in list.requests() {
                let first = request.first_sge as usize;
                let entries = &list.entries()[first..first + usize::from(request.sge_count)];
                prop_assert!(entries.len() <= max_sge as usize && !entries.is_empty());
                let total: u32 = entries.iter().map(|e| e.length).sum();
                prop_assert!(total <= limit && total as usize <= slice + fragment);
                prop_assert_eq!(request.inline, total <= 32);
                let mut at = request.remote_address;
                let origin = &chunks[request.origin as usize];
                prop_assert!(at >= origin.remote && at < origin.remote + origin.length);
                for entry in entries {
                    for byte in 0..u64::from(entry.length) {
                        covered.push((entry.address + byte, entry.lkey, at, request.rkey));
                        at += 1;
                    }
                }
            }
            let bytes = |c: &CheckedIov| {
                let c = *c;
                (0..c.length).map(move |byte| (c.local + byte, c.lkey, c.remote + byte, c.rkey))
            };
            prop_assert_eq!(list.bytes, covered.len() as u64);
            prop_assert!(chunks.iter().flat_map(bytes).eq(covered));
        }
    }
}

//! Cutting a transfer into work requests: long ranges into slices, neighbours joined into one request.

use super::request_list::RequestList;
use crate::fabric::{MAX_SGE, Opcode, Sge, WorkRequest};

/// How ranges are cut and joined.
#[derive(Clone, Copy, Debug)]
pub struct SlicePolicy {
    /// Bytes of one slice, at least 1.
    slice: u32,
    /// Longest request: a slice with a small remainder, within the port's message limit.
    longest: u32,
    /// Neighbours are joined up to this length.
    join: u32,
    /// Scatter/gather entries that one request may carry.
    max_sge: u8,
    /// Payloads up to this many bytes go inline.
    max_inline: u32,
}

/// Requests longer than this gain nothing by joining, and leave nothing to spread.
const JOIN_LIMIT: u32 = 1 << 20;

/// Chunks longer than this are not joined: the cost of a request is nothing beside their bytes, and joining only loses. A
/// stand-in NIC that copies moved 64 KiB chunks a third slower when they were joined to 1 MiB.
const JOIN_BELOW: u64 = 32 << 10;

/// The longest message of the InfiniBand architecture.
const LONGEST: u32 = 1 << 31;

impl SlicePolicy {
    /// `slice_size` 0 cuts only at `max_message`, the port's limit. A last slice takes a remainder of up to
    /// `fragment_limit` bytes along.
    pub fn new(
        slice_size: usize,
        fragment_limit: usize,
        max_message: u32,
        max_sge: u32,
        max_inline: u32,
    ) -> Self {
        let limit = max_message.clamp(1, LONGEST);
        let wanted = u32::try_from(slice_size).unwrap_or(u32::MAX);
        let slice = if wanted == 0 { limit } else { wanted.min(limit) };
        let fragment = u32::try_from(fragment_limit).unwrap_or(u32::MAX);
        Self {
            slice,
            longest: slice.saturating_add(fragment).min(limit),
            join: slice.min(JOIN_LIMIT),
            max_sge: max_sge.clamp(1, MAX_SGE as u32) as u8,
            max_inline,
        }
    }

    /// The same policy on a queue pair that was granted less.
    pub fn granted(self, max_sge: u32, max_inline: u32) -> Self {
        Self {
            max_sge: u32::from(self.max_sge).min(max_sge).max(1) as u8,
            max_inline: self.max_inline.min(max_inline),
            ..self
        }
    }
}

/// A contiguous range on both sides.
#[derive(Clone, Copy, Debug)]
pub struct Chunk {
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
    /// Whether the CPU may read the local memory, so that a small WRITE may go inline.
    pub host: bool,
    /// Index of the caller's iov that it is of.
    pub iov: u32,
}

/// The list has [`RequestList::LONGEST`] requests and needs more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyRequests;

/// Appends chunks to a list as work requests. Complete only after [`Cutter::finish`].
#[derive(Debug)]
pub struct Cutter<'a> {
    list: &'a mut RequestList,
    policy: SlicePolicy,
    opcode: Opcode,
    bytes: u64,
    // Of the last request, kept here so that joining reads no memory.
    remote_end: u64,
    rkey: u32,
    length: u32,
    inline: bool,
    // Of its last entry.
    local_end: u64,
    lkey: u32,
    entry_length: u32,
}

impl<'a> Cutter<'a> {
    /// Appends to `list`, which is empty, with room for `chunks` of the usual length.
    #[inline]
    pub fn new(list: &'a mut RequestList, policy: SlicePolicy, opcode: Opcode, chunks: usize) -> Self {
        list.requests.reserve(chunks);
        list.entries.reserve(chunks);
        Self {
            list,
            policy,
            opcode,
            bytes: 0,
            // No range ends at 0, so the first chunk joins nothing.
            remote_end: 0,
            rkey: 0,
            length: 0,
            inline: false,
            local_end: 0,
            lkey: 0,
            entry_length: 0,
        }
    }

    /// Appends a chunk of at least one byte. Inlined by force: as a call it cost a third of all that is spent per chunk.
    #[inline(always)]
    pub fn push(&mut self, chunk: Chunk) -> Result<(), TooManyRequests> {
        if chunk.remote == self.remote_end && chunk.length <= JOIN_BELOW && self.join(&chunk) {
            return Ok(());
        }
        if chunk.length > u64::from(self.policy.longest) {
            return self.cut(
                chunk.local,
                chunk.remote,
                chunk.length,
                (chunk.lkey, chunk.rkey),
                chunk.host,
                chunk.iov,
            );
        }
        self.append(&chunk)
    }

    /// Notes what is known of the list as a whole.
    #[inline]
    pub fn finish(self) {
        self.list.bytes = self.bytes;
    }

    #[inline(always)]
    fn append(&mut self, chunk: &Chunk) -> Result<(), TooManyRequests> {
        if self.list.requests.len() >= RequestList::LONGEST {
            return Err(TooManyRequests);
        }
        let length = chunk.length as u32;
        self.inline = length <= self.policy.max_inline && chunk.host && self.opcode == Opcode::Write;
        self.list.requests.push(WorkRequest {
            id: 0,
            remote_address: chunk.remote,
            rkey: chunk.rkey,
            first_sge: self.list.entries.len() as u32,
            origin: chunk.iov,
            sge_count: 1,
            opcode: self.opcode,
            signaled: false,
            inline: self.inline,
        });
        self.list.entries.push(Sge { address: chunk.local, length, lkey: chunk.lkey });
        self.length = length;
        self.rkey = chunk.rkey;
        self.entry_length = length;
        self.lkey = chunk.lkey;
        self.extend(chunk);
        Ok(())
    }

    #[inline(always)]
    fn extend(&mut self, chunk: &Chunk) {
        self.bytes += chunk.length;
        self.local_end = chunk.local.wrapping_add(chunk.length);
        self.remote_end = chunk.remote.wrapping_add(chunk.length);
    }

    /// Makes the chunk part of the last request, behind which it lies on the remote side, if it may be.
    #[inline(always)]
    fn join(&mut self, chunk: &Chunk) -> bool {
        let total = u64::from(self.length) + chunk.length;
        if total > u64::from(self.policy.join) || chunk.rkey != self.rkey {
            return false;
        }
        if chunk.local == self.local_end && chunk.lkey == self.lkey {
            self.entry_length += chunk.length as u32;
            if let Some(entry) = self.list.entries.last_mut() {
                entry.length = self.entry_length;
            }
        } else if !self.gather(chunk.local, chunk.length as u32, chunk.lkey) {
            return false;
        }
        self.length = total as u32;
        self.extend(chunk);
        if self.inline {
            self.keep_inline(chunk.host);
        }
        true
    }

    // The rare ways out take single values: a reference to the chunk would have all of it written to memory each time.

    /// Adds an entry of its own to the last request.
    #[inline(never)]
    fn gather(&mut self, address: u64, length: u32, lkey: u32) -> bool {
        let Some(request) = self.list.requests.last_mut() else { return false };
        if request.sge_count >= self.policy.max_sge {
            return false;
        }
        request.sge_count += 1;
        self.list.entries.push(Sge { address, length, lkey });
        self.lkey = lkey;
        self.entry_length = length;
        true
    }

    /// The last request, inline so far, has grown, by host memory or not.
    #[inline(never)]
    fn keep_inline(&mut self, host: bool) {
        self.inline = self.length <= self.policy.max_inline && host;
        if let Some(request) = self.list.requests.last_mut() {
            request.inline = self.inline;
        }
    }

    /// Appends a chunk that is longer than one request may be.
    #[inline(never)]
    fn cut(
        &mut self,
        mut local: u64,
        mut remote: u64,
        mut length: u64,
        (lkey, rkey): (u32, u32),
        host: bool,
        iov: u32,
    ) -> Result<(), TooManyRequests> {
        while length > u64::from(self.policy.longest) {
            let slice = u64::from(self.policy.slice);
            self.append(&Chunk { local, remote, length: slice, lkey, rkey, host, iov })?;
            local += slice;
            remote += slice;
            length -= slice;
        }
        self.append(&Chunk { local, remote, length, lkey, rkey, host, iov })
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunk(local: u64, remote: u64, length: u64, iov: u32) -> Chunk {
        Chunk { local, remote, length, lkey: 1, rkey: 2, host: true, iov }
    }

    fn cut(policy: SlicePolicy, chunks: &[Chunk]) -> RequestList {
        let mut list = RequestList::default();
        let mut cutter = Cutter::new(&mut list, policy, Opcode::Write, chunks.len());
        for chunk in chunks {
            cutter.push(*chunk).unwrap();
        }
        cutter.finish();
        list
    }

    fn lengths(policy: SlicePolicy, length: u64) -> Vec<u32> {
        cut(policy, &[chunk(1 << 40, 1 << 41, length, 0)]).entries.iter().map(|entry| entry.length).collect()
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
                .entries
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
        let device = |local, remote, length| Chunk { host: false, ..host(local, remote, length) };
        let inline = |chunks: &[Chunk]| {
            cut(policy, chunks).requests.iter().map(|request| request.inline).collect::<Vec<_>>()
        };
        assert_eq!(inline(&[host(100, 5000, 64), host(1000, 6000, 65)]), [true, false]);
        assert_eq!(inline(&[host(100, 5000, 32), host(132, 5032, 33)]), [false]);
        assert_eq!(inline(&[host(100, 5000, 32), device(500, 5032, 8)]), [false]);
        assert_eq!(inline(&[device(100, 5000, 8), host(500, 5008, 8)]), [false]);
    }

    #[test]
    fn signals_are_set_anew_with_each_post() {
        let policy = SlicePolicy::new(1000, 0, 1000, 1, 0);
        let mut list = cut(policy, &[chunk(1 << 20, 1 << 30, 10_000, 0)]);
        let lane = LaneKey { index: 3, generation: 9 };
        let signaled = |run: &[WorkRequest]| run.iter().map(|request| request.signaled).collect::<Vec<_>>();
        assert_eq!(
            signaled(list.next_run(0, 7, lane, u32::MAX - 1, 3).0),
            [false, false, true, false, false, true, true]
        );
        let again = list.next_run(2, 100, lane, 5, 100).0;
        assert_eq!(signaled(again), [false, false, false, false, false, false, false, true]);
        assert_eq!(again[7].id, lane.request_id(12));
        assert!(
            list.next_run(10, 5, lane, 0, 1).0.is_empty() && list.next_run(11, 5, lane, 0, 1).0.is_empty()
        );
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
                chunks.push(Chunk { lkey, rkey, ..chunk(local, remote, *length, index as u32) });
                local += length + if *near { 0 } else { 64 };
                remote += length + if *far { 0 } else { 64 };
                if *other && *near { lkey += 1 } else if *other { rkey += 1 }
            }
            let policy = SlicePolicy::new(slice, fragment, limit, max_sge, 32);
            let list = cut(policy, &chunks);
            let mut covered = Vec::new();
            for request in &list.requests {
                let first = request.first_sge as usize;
                let entries = &list.entries[first..first + usize::from(request.sge_count)];
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
            let bytes = |c: &Chunk| {
                let c = *c;
                (0..c.length).map(move |byte| (c.local + byte, c.lkey, c.remote + byte, c.rkey))
            };
            prop_assert_eq!(list.bytes, covered.len() as u64);
            prop_assert!(chunks.iter().flat_map(bytes).eq(covered));
        }
    }

    use super::super::lane::LaneKey;
}

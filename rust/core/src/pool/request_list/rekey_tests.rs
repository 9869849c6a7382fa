//! Lists that get the keys of another NIC.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::fabric::{Access, SoftwareOptions, software};
use crate::memory::{MemoryKind, Region, Registry, RemoteRegion};

fn region(memory: &[u8]) -> (Registry, Arc<Region>) {
    let registry = Registry::new(software::open(&SoftwareOptions::default()).unwrap().remove(0));
    let range = (memory.as_ptr() as u64, memory.len() as u64);
    let id = registry.register(range, MemoryKind::Host, Access::FULL, true, None, None).unwrap();
    let region = Arc::clone(registry.snapshot().by_id(id).unwrap());
    (registry, region)
}

/// Requests of so many entries each, with keys and addresses that tell them apart.
fn list(counts: &[u8]) -> RequestList {
    let mut list = RequestList::default();
    list.reserve(counts.len(), counts.iter().map(|count| usize::from(*count)).sum());
    for (at, count) in (0_u32..).zip(counts) {
        let (requests, entries, first_sge) = list.unused();
        requests[0] = WorkRequest {
            remote_address: u64::from(at) << 20,
            rkey: 1000 + at,
            first_sge,
            origin: at,
            sge_count: *count,
            inline: at % 3 == 0,
        };
        for (number, entry) in entries.iter_mut().enumerate().take(usize::from(*count)) {
            let lkey = 100 * (at + 1) + number as u32;
            *entry = Sge { address: u64::from(lkey) << 12, length: 1 + lkey % 7, lkey };
        }
        list.append(1, usize::from(*count));
    }
    list
}

const OTHER: u32 = 1 << 20;

fn there(entry: Sge) -> Option<Sge> {
    Some(Sge { lkey: entry.lkey ^ OTHER, ..entry })
}

/// All of what was asked for has this key.
fn all_of(rkey: u32, length: u64) -> Option<(RemoteRegion, u64)> {
    Some((RemoteRegion { rkey, ..RemoteRegion::default() }, length))
}

proptest! {
    /// There and back is where it was; what is done, addresses and lengths stay; each request's length is told with its address.
    #[test]
    fn there_and_back_is_the_same(counts in prop::collection::vec(1_u8..5, 1..40), from: prop::sample::Index) {
        let mut list = list(&counts);
        let from = from.index(counts.len() + 1);
        let before = list.contents();
        let lengths: Vec<_> = list.requests().iter().map(|request| {
            let first = request.first_sge as usize;
            let own = &list.entries()[first..first + usize::from(request.sge_count)];
            (request.remote_address, request.rkey, own.iter().map(|entry| u64::from(entry.length)).sum::<u64>())
        }).collect();
        let mut asked = Vec::new();
        let ask = |address, rkey: u32, length| {
            asked.push((address, rkey, length));
            all_of(rkey ^ OTHER, length)
        };
        prop_assert_eq!(list.rekey(from, there, ask, Vec::new()), Ok(()));
        prop_assert_eq!(&asked[..], &lengths[from..]);
        for (at, request) in list.requests().iter().enumerate() {
            let is_there = |key: u32| (key & OTHER != 0) == (at >= from);
            let first = request.first_sge as usize;
            prop_assert!(is_there(request.rkey));
            prop_assert!(list.entries()[first..first + usize::from(request.sge_count)].iter().all(|entry| is_there(entry.lkey)));
        }
        prop_assert_eq!(list.rekey(from, there, |_, rkey, length| all_of(rkey ^ OTHER, length), Vec::new()), Ok(()));
        prop_assert_eq!(list.contents(), before);
    }

    /// If a key is missing, whichever, nothing has changed, and the iov is named. What is done needs none.
    #[test]
    fn all_or_nothing(
        counts in prop::collection::vec(1_u8..5, 1..40),
        from: prop::sample::Index,
        missing: prop::sample::Index,
        local: bool,
    ) {
        let mut list = list(&counts);
        let (from, missing) = (from.index(counts.len()), missing.index(counts.len()) as u32);
        let before = list.contents();
        let own = |entry: Sge| there(entry).filter(|_| !local || entry.lkey / 100 != missing + 1);
        let theirs = |address: u64, rkey: u32, length| {
            all_of(rkey ^ OTHER, length).filter(|_| local || address >> 20 != u64::from(missing))
        };
        let answer = list.rekey(from, own, theirs, Vec::new());
        if (missing as usize) < from {
            prop_assert_eq!(answer, Ok(()));
        } else {
            prop_assert_eq!(answer, Err(NotOnRail { iov: missing }));
            prop_assert_eq!(list.contents(), before);
        }
    }
}

/// Where segments end on a NIC: every so many bytes, and where a range begins. The key of a byte is that of its segment.
#[derive(Clone, Copy, Debug)]
struct Segments {
    every: u64,
    base: u32,
}

impl Segments {
    fn key(self, address: u64) -> u32 {
        self.base + (address / self.every) as u32
    }

    /// Bytes from here to the end of the segment.
    fn left(self, address: u64) -> u64 {
        self.every - address % self.every
    }
}

/// Each byte that the requests from `from` on move: where it is here and at the peer, by which keys, and of which iov.
fn bytes(list: &RequestList, from: usize) -> Vec<(u64, u64, u32, u32, u32)> {
    let mut bytes = Vec::new();
    for request in &list.requests()[from..] {
        let first = request.first_sge as usize;
        let mut at = request.remote_address;
        for entry in &list.entries()[first..first + usize::from(request.sge_count)] {
            for byte in 0..u64::from(entry.length) {
                bytes.push((entry.address + byte, at, entry.lkey, request.rkey, request.origin));
                at += 1;
            }
        }
    }
    bytes
}

proptest! {
    /// Wherever segments end on the other NIC, each byte goes where it went, in the same order, by the keys of its segments, and no request
    /// has more entries than the one that it was a part of. What is done stays as it was.
    #[test]
    fn requests_are_cut_where_segments_end(
        counts in prop::collection::vec(1_u8..5, 1..30),
        from: prop::sample::Index,
        (near, far) in (1_u64..40, 1_u64..40),
    ) {
        let mut list = list(&counts);
        let from = from.index(counts.len());
        let (near, far) = (Segments { every: near, base: 1 << 30 }, Segments { every: far, base: 1 << 31 });
        let (before, done) = (bytes(&list, from), list.requests()[..from].iter().map(|request| format!("{request:?}")).collect::<Vec<_>>());
        let (total, entries_done) = (list.bytes, list.requests()[from].first_sge as usize);
        let kept = list.entries()[..entries_done].to_vec();
        let local = |entry: Sge| {
            let length = near.left(entry.address).min(entry.length.into()) as u32;
            Some(Sge { length, lkey: near.key(entry.address), ..entry })
        };
        let remote = |address, _, length: u64| all_of(far.key(address), length.min(far.left(address)));
        prop_assert_eq!(list.rekey(from, local, remote, Vec::new()), Ok(()));
        let expected: Vec<_> = before.into_iter()
            .map(|(here, there, _, _, origin)| (here, there, near.key(here), far.key(there), origin)).collect();
        prop_assert_eq!(bytes(&list, from), expected);
        let done_now: Vec<_> = list.requests()[..from].iter().map(|request| format!("{request:?}")).collect();
        prop_assert_eq!((done, kept, total), (done_now, list.entries()[..entries_done].to_vec(), list.bytes));
        for request in list.requests() {
            prop_assert!(request.sge_count >= 1 && request.sge_count <= counts[request.origin as usize]);
        }
        prop_assert_eq!(list.requests().iter().map(|request| usize::from(request.sge_count)).sum::<usize>(), list.entries().len());
    }
}

#[test]
fn holds_are_those_of_the_new_rail() {
    let memory = vec![0_u8; 8192];
    let ((_registry, old), (_other, new)) = (region(&memory[..4096]), region(&memory[4096..]));
    let mut list = list(&[1, 2]);
    list.holds.extend(old.hold());
    list.lease = old.hold().map(Arc::new);
    assert!(
        list.rekey(0, |_| None, |_, _, length| all_of(1, length), new.hold().into_iter().collect()).is_err()
    );
    assert!(list.uses(old.id) && !new.in_use(), "as it was");
    list.rekey(0, there, |_, _, length| all_of(1, length), new.hold().into_iter().collect()).unwrap();
    assert!(!old.in_use() && list.uses(new.id));
    list.clear();
    assert!(!new.in_use());
}

/// A WRITE that reaches two segments there is flushed in both; what was flushed already is not read twice.
#[test]
fn each_segment_that_is_written_is_flushed_on_the_other_nic() {
    let memory = vec![0_u8; 4096];
    let (_registry, region) = region(&memory);
    let mut list = list(&[1, 1]);
    let landing = Sge { address: region.address, length: 1, lkey: 77 };
    assert!(list.append_gpu_flush((0, 1000), 0, landing, region.hold().unwrap()));
    // The first segment ends behind the first byte that is written by the second request.
    let end = (1 << 20) + 1;
    let remote = |address: u64, _, length: u64| {
        let (rkey, left) = if address < end { (5, end - address) } else { (6, u64::MAX) };
        Some((RemoteRegion { rkey, gpu_flush: true, ..RemoteRegion::default() }, left.min(length)))
    };
    list.rekey(0, there, remote, region.hold().into_iter().collect()).unwrap();
    let requests: Vec<_> =
        list.requests().iter().map(|request| (request.remote_address, request.rkey)).collect();
    assert_eq!(requests, [(0, 5), (1 << 20, 5), (end, 6), (0, 5), (end, 6)]);
    assert_eq!(list.batch(0, 9, 0, 1).requests.len(), 3, "the WRITEs");
    let flushes = list.batch(3, 9, 0, 1);
    assert_eq!((flushes.opcode, flushes.requests.len()), (Opcode::Read, 2));
    assert!(list.entries()[3..].iter().all(|entry| entry.lkey == 77 ^ OTHER && entry.length == 1));
}

/// READs behind WRITEs, which make them visible to a GPU, get keys as well, and so do the places where they land.
#[test]
fn gpu_flushes_are_rekeyed_with_their_landing() {
    let memory = vec![0_u8; 4096];
    let (_registry, region) = region(&memory);
    let mut list = list(&[1, 1]);
    let landing = Sge { address: region.address, length: 1, lkey: 77 };
    assert!(list.append_gpu_flush((0x9000, 55), 1, landing, region.hold().unwrap()));
    let before = list.contents();
    let remote = |_, rkey: u32, length| all_of(rkey ^ OTHER, length);
    assert_eq!(
        list.rekey(0, there, remote, Vec::new()),
        Err(NotOnRail { iov: 1 }),
        "nothing would hold the landing"
    );
    assert_eq!(list.contents(), before);
    list.rekey(1, there, remote, region.hold().into_iter().collect()).unwrap();
    let keys: Vec<_> = list.requests().iter().map(|request| request.rkey & OTHER != 0).collect();
    assert_eq!((keys, list.entries()[2].lkey), (vec![false, true, true], 77 ^ OTHER));
    assert_eq!(list.batch(2, 9, 0, 1).opcode, Opcode::Read);
    list.clear();
    assert!(!region.in_use());
    list.reserve(1, 1);
    list.append(1, 1);
    assert_eq!(list.batch(0, 9, 0, 1).opcode, Opcode::Write, "nothing is left of the READ");
}

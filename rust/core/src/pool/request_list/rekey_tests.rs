//! Lists that get the keys of another NIC.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::fabric::{Access, SoftwareOptions, software};
use crate::memory::{MemoryKind, Region, Registry};

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
            Some(rkey ^ OTHER)
        };
        prop_assert_eq!(list.rekey(from, there, ask, Vec::new()), Ok(()));
        prop_assert_eq!(&asked[..], &lengths[from..]);
        for (at, request) in list.requests().iter().enumerate() {
            let is_there = |key: u32| (key & OTHER != 0) == (at >= from);
            let first = request.first_sge as usize;
            prop_assert!(is_there(request.rkey));
            prop_assert!(list.entries()[first..first + usize::from(request.sge_count)].iter().all(|entry| is_there(entry.lkey)));
        }
        prop_assert_eq!(list.rekey(from, there, |_, rkey, _| Some(rkey ^ OTHER), Vec::new()), Ok(()));
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
        let theirs = |address: u64, rkey: u32, _| Some(rkey ^ OTHER).filter(|_| local || address >> 20 != u64::from(missing));
        let answer = list.rekey(from, own, theirs, Vec::new());
        if (missing as usize) < from {
            prop_assert_eq!(answer, Ok(()));
        } else {
            prop_assert_eq!(answer, Err(NotOnRail { iov: missing }));
            prop_assert_eq!(list.contents(), before);
        }
    }
}

#[test]
fn holds_are_those_of_the_new_rail() {
    let memory = vec![0_u8; 8192];
    let ((_registry, old), (_other, new)) = (region(&memory[..4096]), region(&memory[4096..]));
    let mut list = list(&[1, 2]);
    list.holds.extend(old.hold());
    list.lease = old.hold().map(Arc::new);
    assert!(list.rekey(0, |_| None, |_, _, _| Some(1), new.hold().into_iter().collect()).is_err());
    assert!(list.uses(old.id) && !new.in_use(), "as it was");
    list.rekey(0, there, |_, _, _| Some(1), new.hold().into_iter().collect()).unwrap();
    assert!(!old.in_use() && list.uses(new.id));
    list.clear();
    assert!(!new.in_use());
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
    let remote = |_, rkey: u32, _| Some(rkey ^ OTHER);
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

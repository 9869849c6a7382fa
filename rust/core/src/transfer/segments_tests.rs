//! Iovs over regions of several segments, on both sides.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::control::wire::RegionEntry;
use crate::fabric::Access;
use crate::memory::limited_device::LimitedDevice;
use crate::memory::{MemoryKind, Recent, RegionId, Registry, RemoteRegions};
use crate::pool::RequestList;

const PAGE: u64 = 4096;
const LENGTH: u64 = 24 * PAGE;
const BASE: u64 = 1 << 40;
/// The key of the first remote segment; those behind it count up.
const KEY: u32 = 70;

/// A region of ours, and one of a peer, each in segments.
struct Scene {
    _memory: Vec<u8>,
    address: u64,
    region: RegionId,
    registry: Registry,
    remote: RemoteRegions,
    /// Where the remote segments begin, and where the last one ends.
    bounds: Vec<u64>,
}

impl Scene {
    /// Ours in pieces of so many pages; the peer's cut at these offsets.
    fn new(pages: u64, cuts: &[u64], read_only: bool) -> Self {
        let memory = vec![0_u8; (LENGTH + PAGE) as usize];
        let address = memory.as_ptr().expose_provenance() as u64;
        let registry = Registry::new(Arc::new(LimitedDevice::new(pages * PAGE)));
        let register = registry.register((address, LENGTH), MemoryKind::Host, Access::FULL, true, None, None);
        // Behind the first segment they are pages apart, as those of a peer are.
        let shift = cuts.first().map_or(0, |cut| cut % PAGE);
        let cuts = cuts.iter().map(|cut| cut - cut % PAGE + shift).filter(|cut| *cut < LENGTH);
        let mut bounds: Vec<_> = cuts.chain([0, LENGTH]).collect();
        bounds.sort_unstable();
        bounds.dedup();
        let entry = |at: usize| RegionEntry {
            base: BASE + bounds[at],
            size: bounds[at + 1] - bounds[at],
            rkey: KEY + at as u32,
            id: 10 + at as u32,
            read_only,
            gpu_flush: false,
            continues: at > 0,
        };
        // Behind the region another one begins, which is not a part of it.
        let next = RegionEntry {
            base: BASE + LENGTH,
            size: PAGE,
            rkey: 7,
            id: 99,
            read_only,
            gpu_flush: false,
            continues: false,
        };
        let entries: Vec<_> = (0..bounds.len() - 1).map(entry).chain([next]).collect();
        let remote = RemoteRegions::new(&entries);
        Self { _memory: memory, address, region: register.unwrap(), registry, remote, bounds }
    }

    /// The key of the peer's byte.
    fn rkey(&self, offset: u64) -> u32 {
        KEY + self.bounds.partition_point(|bound| *bound <= offset) as u32 - 1
    }

    fn iov(&self, local: u64, remote: u64, length: u64, named: bool) -> Iov {
        Iov {
            local: self.address + local,
            length,
            region: named.then_some(self.region),
            remote: RemoteRange { address: BASE + remote, size: length as u32, rkey: self.rkey(remote) },
        }
    }

    fn build(
        &self,
        iovs: &[Iov],
        share: Share,
        opcode: Opcode,
        recent: Option<&mut Recent>,
    ) -> Result<RequestList, SubmitError> {
        let policy = SlicePolicy::new(10_000, 100, 1 << 30, 4, 100);
        let scope = Scope { local: &self.registry, remote: &self.remote, policy: &policy, carries_gpu: true };
        let mut list = RequestList::default();
        build(iovs, share, scope, opcode, &mut list, recent).map(|()| list)
    }

    /// Each byte that the list moves: our offset and the peer's, and the iov of the request. Each request and entry is in one
    /// segment, with its key.
    fn bytes(&self, list: &RequestList) -> Vec<(u64, u64, u32)> {
        let snapshot = self.registry.snapshot();
        let region = snapshot.by_id(self.region).unwrap();
        let (mut bytes, (requests, entries)) = (Vec::new(), (list.requests(), list.entries()));
        for request in requests {
            let first = request.first_sge as usize;
            let entries = &entries[first..first + usize::from(request.sge_count)];
            let mut at = request.remote_address - BASE;
            let length: u64 = entries.iter().map(|entry| u64::from(entry.length)).sum();
            assert_eq!((self.rkey(at), self.rkey(at + length - 1)), (request.rkey, request.rkey));
            for entry in entries {
                let segment = region.segment_holding(entry.address, entry.length.into()).unwrap();
                assert_eq!(entry.lkey, segment.lkey);
                for byte in 0..u64::from(entry.length) {
                    bytes.push((entry.address - self.address + byte, at, request.origin));
                    at += 1;
                }
            }
        }
        bytes
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Wherever the boundaries are on both sides, each byte of each iov is moved once, to its place, by the keys of its segments.
    #[test]
    fn each_byte_has_the_keys_of_its_segments(
        pages in 1u64..26, cuts in prop::collection::vec(1..LENGTH, 0..6), write: bool, shared: bool, named: bool,
        spots in prop::collection::vec((0..LENGTH, 0..LENGTH, prop_oneof![0..200u64, 0..3 * PAGE, 0..LENGTH]), 1..12),
        of in 1usize..4,
    ) {
        let scene = Scene::new(pages, &cuts, false);
        let iovs: Vec<_> = spots.iter().map(|(local, remote, length)| {
            let length = (*length).min(LENGTH - local).min(LENGTH - remote);
            scene.iov(*local, *remote, length, named)
        }).collect();
        let opcode = if write { Opcode::Write } else { Opcode::Read };
        let mut recent = Recent::default();
        let shares = match of {
            1 => vec![Share::all(&iovs[..])],
            of => (0..of).map(|part| Share::Stripe { part, of }).collect(),
        };
        let mut moved = Vec::new();
        for share in shares {
            let list = scene.build(&iovs, share, opcode, shared.then_some(&mut recent)).unwrap();
            let bytes = scene.bytes(&list);
            prop_assert_eq!(list.bytes, bytes.len() as u64);
            moved.extend(bytes);
            let snapshot = scene.registry.snapshot();
            prop_assert!(moved.is_empty() || snapshot.by_id(scene.region).unwrap().in_use());
        }
        // Joined requests name the first of the iovs that they carry: here only places are compared.
        let mut moved: Vec<_> = moved.into_iter().map(|(local, remote, _)| (local, remote)).collect();
        let mut expected: Vec<_> = spots.iter().zip(&iovs)
            .flat_map(|((local, remote, _), iov)| (0..iov.length).map(move |byte| (local + byte, remote + byte)))
            .collect();
        moved.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(moved, expected);
    }
}

/// A request names the iov of the caller that it is of, however many pieces there are before it.
#[test]
fn a_piece_names_the_iov_of_the_caller() {
    let scene = Scene::new(1, &[PAGE + 1], false);
    let iovs = [
        scene.iov(0, 0, 5 * PAGE, true),
        scene.iov(6 * PAGE, 6 * PAGE, 100, true),
        scene.iov(8 * PAGE - 1, 8 * PAGE, 2, false),
    ];
    let list = scene.build(&iovs, Share::all(&iovs), Opcode::Write, None).unwrap();
    let mut origins: Vec<_> = scene.bytes(&list).into_iter().map(|(_, _, origin)| origin).collect();
    let counts: Vec<_> = (0..3).map(|iov| origins.iter().filter(|origin| **origin == iov).count()).collect();
    assert_eq!(counts, [5 * PAGE as usize, 100, 2]);
    origins.dedup();
    assert_eq!(origins, [0, 1, 2]);
}

/// The key of any segment of the peer's region stands for all of it: a pool is named by its first key.
#[test]
fn the_key_of_another_segment_is_replaced() {
    let scene = Scene::new(24, &[PAGE, 2 * PAGE], false);
    for key in KEY..KEY + 3 {
        let iov = scene.iov(0, 3 * PAGE, 100, true);
        let iov = Iov { remote: RemoteRange { rkey: key, ..iov.remote }, ..iov };
        let list = scene.build(&[iov], Share::Range { start: 0, end: 1 }, Opcode::Write, None).unwrap();
        assert_eq!(scene.bytes(&list).len(), 100);
    }
}

/// All or nothing: what is wrong with one iov is said, under its index, wherever boundaries are.
#[test]
fn bad_iovs_are_refused_across_boundaries() {
    let scene = Scene::new(2, &[PAGE, 9 * PAGE], false);
    let good = scene.iov(PAGE, PAGE - 1, 8 * PAGE, true);
    let longer = |local, remote, length| Iov { length, ..scene.iov(local, remote, length, true) };
    let bad = [
        // Behind the end of ours, of the peer's, and of the descriptor.
        longer(LENGTH - 3 * PAGE, 0, 3 * PAGE + 1),
        longer(0, LENGTH - 3 * PAGE, 3 * PAGE + 1),
        Iov { length: 8 * PAGE + 1, ..good },
        // The region behind the peer's is not a part of it.
        longer(0, LENGTH - 16 * PAGE, 17 * PAGE),
        Iov { local: u64::MAX - PAGE, ..good },
        Iov { remote: RemoteRange { address: u64::MAX - PAGE, ..good.remote }, ..good },
        Iov { region: Some(RegionId(u64::MAX)), ..good },
    ];
    for (at, bad) in bad.into_iter().enumerate() {
        let iovs = [good, good, bad, good];
        for share in [Share::all(&iovs), Share::Stripe { part: 1, of: 2 }] {
            let error = scene.build(&iovs, share, Opcode::Read, None).unwrap_err();
            let (SubmitError::Local { iov, .. } | SubmitError::Remote { iov, .. }) = error else {
                panic!("{at}: {error}")
            };
            assert_eq!(iov, 2, "{at}: {error}");
        }
    }
    let read_only = Scene::new(2, &[PAGE], true);
    let iovs = [read_only.iov(0, 0, 3 * PAGE, true)];
    let error = read_only.build(&iovs, Share::all(&iovs), Opcode::Write, None).unwrap_err().to_string();
    assert!(error.contains("for reading only"), "{error}");
    assert!(read_only.build(&iovs, Share::all(&iovs), Opcode::Read, None).is_ok());
}

#[test]
fn a_region_that_is_gone_is_refused_across_boundaries() {
    let scene = Scene::new(2, &[], false);
    let iovs = [scene.iov(PAGE, 0, 4 * PAGE, true)];
    let region = scene.registry.remove(scene.region).unwrap().unwrap();
    let error = scene.build(&iovs, Share::all(&iovs), Opcode::Read, None).unwrap_err();
    assert!(matches!(error, SubmitError::Local { iov: 0, .. }), "{error}");
    assert!(!region.in_use());
}

#[test]
fn each_segment_that_is_written_is_flushed() {
    let cuts = [3 * PAGE, 10 * PAGE];
    let entry = |at: u64, (start, end): (u64, u64)| RegionEntry {
        base: BASE + start,
        size: end - start,
        rkey: KEY + at as u32,
        id: 10 + at as u32,
        read_only: false,
        gpu_flush: true,
        continues: at > 0,
    };
    let entries = [(0, cuts[0]), (cuts[0], cuts[1]), (cuts[1], LENGTH)];
    let entries: Vec<_> = (0..).zip(entries).map(|(at, range)| entry(at, range)).collect();
    let scene = Scene { remote: RemoteRegions::new(&entries), ..Scene::new(100, &cuts, false) };
    let all = Share::Range { start: 0, end: 1 };
    let flushed = |from: u64, length: u64, opcode| {
        let list = scene.build(&[scene.iov(0, from, length, true)], all, opcode, None).unwrap();
        let writes =
            (0..list.len()).take_while(|at| list.batch(*at, 1, 0, 1).opcode == Opcode::Write).count();
        list.requests()[writes..]
            .iter()
            .map(|request| (request.rkey, request.remote_address))
            .collect::<Vec<_>>()
    };
    assert_eq!(flushed(PAGE, PAGE, Opcode::Write), [(KEY, BASE + PAGE)]);
    assert_eq!(
        flushed(PAGE, 5 * PAGE, Opcode::Write),
        [(KEY, BASE + PAGE), (KEY + 1, BASE + cuts[0])],
        "of each segment, by its key"
    );
}

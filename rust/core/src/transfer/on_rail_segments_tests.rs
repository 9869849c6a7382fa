//! Iovs over a further rail, of which the NICs at both ends have registered the memory in other segments than those of the first one.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::control::wire::{AnnouncedRegion, Change, RegionChanges};
use crate::fabric::Access;
use crate::memory::limited_device::LimitedDevice;
use crate::memory::{MemoryKind, RegionId, Registry, RemoteRegions};
use crate::pool::RequestList;

const PAGE: u64 = 4096;
const LENGTH: u64 = 24 * PAGE;
const BASE: u64 = 1 << 40;
/// Keys of segments count up from these, on the first rail and on the further one.
const ON_FIRST: u32 = 70;
const ON_RAIL: u32 = 900;

/// Where segments of the peer's region begin, and where the last one ends.
struct Bounds(Vec<u64>);

impl Bounds {
    fn at_pages(pages: &[u64]) -> Self {
        let mut bounds: Vec<_> = pages.iter().map(|page| page * PAGE).chain([0, LENGTH]).collect();
        bounds.sort_unstable();
        bounds.dedup();
        Self(bounds)
    }

    /// Which segment has a byte.
    fn segment(&self, offset: u64) -> u32 {
        self.0.partition_point(|bound| *bound <= offset) as u32 - 1
    }
}

/// Memory here on the NIC of the further rail, and the peer's region on both rails.
struct Scene {
    _memory: Vec<u8>,
    address: u64,
    region: RegionId,
    registry: Registry,
    first: Bounds,
    rail: Bounds,
    first_table: RemoteRegions,
    rail_table: RemoteRegions,
}

impl Scene {
    fn new(pages: u64, first: &[u64], rail: &[u64], read_only: bool) -> Self {
        let memory = vec![0_u8; (LENGTH + PAGE) as usize];
        let address = memory.as_ptr().expose_provenance() as u64;
        let registry = Registry::new(Arc::new(LimitedDevice::new(pages * PAGE)));
        let region = registry.register((address, LENGTH), MemoryKind::Host, Access::FULL, true, None, None);
        let (first, rail) = (Bounds::at_pages(first), Bounds::at_pages(rail));
        // What a peer announces of a further rail is cut where the first one has another key.
        let cuts = [&first.0[..], &rail.0].concat();
        let cuts = Bounds::at_pages(&cuts.iter().map(|cut| cut / PAGE).collect::<Vec<_>>());
        let first_table = told(&first, read_only, |offset| (ON_FIRST + first.segment(offset), None));
        let rail_table = told(&cuts, read_only, |offset| {
            (ON_RAIL + rail.segment(offset), Some(ON_FIRST + first.segment(offset)))
        });
        let region = region.unwrap();
        Self { _memory: memory, address, region, registry, first, rail, first_table, rail_table }
    }

    fn iov(&self, local: u64, remote: u64, length: u64) -> Iov {
        let rkey = ON_FIRST + self.first.segment(remote.min(LENGTH - 1));
        let remote = RemoteRange { address: BASE + remote, size: length as u32, rkey };
        Iov { local: self.address + local, length, region: Some(self.region), remote }
    }

    /// The requests of a share, if all of it fits on the rail.
    fn build(&self, iovs: &[Iov], share: Share, opcode: Opcode) -> Option<RequestList> {
        let policy = SlicePolicy::new(10_000, 100, 1 << 30, 4, 100);
        let scope =
            Scope { local: &self.registry, remote: &self.rail_table, policy: &policy, carries_gpu: true };
        let (first, rail) = (self.first_table.table(), self.rail_table.table());
        let source = OnRail::new(iovs, &first, &rail, opcode);
        let mut list = RequestList::default();
        let built = build(&source, share, scope, opcode, &mut list, None);
        (built.is_ok() && source.fits()).then_some(list)
    }

    /// Each byte that the list moves: our offset and the peer's. Each has the keys of its segments on this rail.
    fn bytes(&self, list: &RequestList) -> Vec<(u64, u64)> {
        let snapshot = self.registry.snapshot();
        let region = snapshot.by_id(self.region).unwrap();
        let mut bytes = Vec::new();
        for request in list.requests() {
            let first = request.first_sge as usize;
            let mut at = request.remote_address - BASE;
            for entry in &list.entries()[first..first + usize::from(request.sge_count)] {
                let segment = region.segment_holding(entry.address, entry.length.into()).unwrap();
                assert_eq!(entry.lkey, segment.lkey);
                for byte in 0..u64::from(entry.length) {
                    assert_eq!(request.rkey, ON_RAIL + self.rail.segment(at));
                    bytes.push((entry.address - self.address + byte, at));
                    at += 1;
                }
            }
        }
        bytes
    }
}

/// A region that the peer has told in these segments, each with the keys that its first byte gets.
fn told(bounds: &Bounds, read_only: bool, keys: impl Fn(u64) -> (u32, Option<u32>)) -> RemoteRegions {
    let entry = |(at, ends): (usize, &[u64])| {
        let (rkey, first_rkey) = keys(ends[0]);
        let continues = if at > 0 { AnnouncedRegion::CONTINUES } else { 0 };
        let flags = continues | if read_only { AnnouncedRegion::READ_ONLY } else { 0 };
        let (base, size) = (BASE + ends[0], ends[1] - ends[0]);
        AnnouncedRegion { id: 1 + at as u64, base, size, flags, rkey: Some(rkey), first_rkey }
    };
    let entries: Vec<_> = bounds.0.windows(2).enumerate().map(entry).collect();
    let regions = RemoteRegions::of_rail();
    let (version, change) = (entries.len() as u64, Change::Add);
    regions.apply(&RegionChanges { version, rail: 1, change, entries }).unwrap();
    regions
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Wherever segments end on both rails, here and at the peer, each byte of each iov is moved once, to its place, by the keys that it
    /// has on the further one.
    #[test]
    fn each_byte_has_the_keys_of_the_rail(
        pages in 1_u64..26,
        first in prop::collection::vec(1_u64..24, 0..5), rail in prop::collection::vec(1_u64..24, 0..5),
        spots in prop::collection::vec((0..LENGTH, 0..LENGTH, prop_oneof![0..200_u64, 0..3 * PAGE, 0..LENGTH]), 1..12),
        write: bool, of in 1_u32..4,
    ) {
        let scene = Scene::new(pages, &first, &rail, false);
        let iovs: Vec<_> = spots.iter().map(|(local, remote, length)| {
            scene.iov(*local, *remote, (*length).min(LENGTH - local).min(LENGTH - remote))
        }).collect();
        let opcode = if write { Opcode::Write } else { Opcode::Read };
        let bound = |part: u32| (u64::from(Share::WHOLE) * u64::from(part) / u64::from(of)) as u32;
        let mut moved = Vec::new();
        for part in 0..of {
            let share = match of {
                1 => Share::all(&iovs[..]),
                _ => Share::Fraction { start: bound(part), end: bound(part + 1) },
            };
            let list = scene.build(&iovs, share, opcode).unwrap();
            moved.extend(scene.bytes(&list));
        }
        let mut expected: Vec<_> = spots.iter().zip(&iovs)
            .flat_map(|((local, remote, _), iov)| (0..iov.length).map(move |byte| (local + byte, remote + byte)))
            .collect();
        moved.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(moved, expected);
    }
}

/// The first rail says what is wrong with it.
#[test]
fn what_is_in_no_region_or_not_to_be_written_does_not_fit() {
    let scene = Scene::new(2, &[3, 9], &[5], false);
    let good = scene.iov(0, PAGE, 12 * PAGE);
    let longer = |remote, length| Iov { length, ..scene.iov(0, remote, length) };
    let other_key = Iov { remote: RemoteRange { rkey: 5, ..good.remote }, ..good };
    for bad in [longer(PAGE, 24 * PAGE), longer(20 * PAGE, 5 * PAGE), other_key] {
        let iovs = [good, bad, good];
        assert!(scene.build(&iovs, Share::all(&iovs), Opcode::Read).is_none(), "{bad:?}");
    }
    let read_only = Scene::new(2, &[3, 9], &[5], true);
    let iovs = [read_only.iov(0, PAGE, 12 * PAGE)];
    assert!(read_only.build(&iovs, Share::all(&iovs), Opcode::Write).is_none());
    assert!(read_only.build(&iovs, Share::all(&iovs), Opcode::Read).is_some());
}

/// A part of the region that the peer has registered anew, or not yet, on the NIC of the further rail.
#[test]
fn what_is_not_known_in_full_does_not_fit() {
    let scene = Scene::new(24, &[3, 9], &[5], false);
    let iovs = [scene.iov(0, PAGE, 12 * PAGE)];
    assert!(scene.build(&iovs, Share::all(&iovs), Opcode::Write).is_some());
    // Of the entries of the further rail one, from page 5 to 9.
    let gone = AnnouncedRegion { id: 3, base: 0, size: 0, flags: 0, rkey: None, first_rkey: None };
    let changes = RegionChanges { version: 5, rail: 1, change: Change::Remove, entries: vec![gone] };
    scene.rail_table.apply(&changes).unwrap();
    assert!(scene.build(&iovs, Share::all(&iovs), Opcode::Write).is_none());
    let iovs = [scene.iov(0, PAGE, 4 * PAGE)];
    assert!(scene.build(&iovs, Share::all(&iovs), Opcode::Write).is_some(), "what lies before it");
}

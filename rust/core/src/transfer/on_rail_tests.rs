//! Iovs of a further rail: whatever way they take, runs or one by one, each has the key that its memory has there, or none is moved there.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use proptest::prelude::*;

use super::*;
use crate::control::wire::{AnnouncedRegion, Change, RegionChanges, RegionEntry};
use crate::fabric::{Access, SoftwareOptions, software};
use crate::memory::{MemoryKind, RegionId, Registry, RemoteRegions};
use crate::pool::RequestList;

/// Of each of the peer's two regions, which touch, and of ours.
const REGION: u64 = 1 << 16;
const BASE: u64 = 1 << 40;

/// Keys of the peer's regions on the first rail.
const FIRST: [u32; 2] = [7, 8];

/// What the peer has announced of one of its regions for the further rail.
#[derive(Clone, Copy, Debug)]
struct OnThatRail {
    rkey: u32,
    /// Bytes at its begin and its end that are in no region there.
    missing: (u64, u64),
}

impl OnThatRail {
    fn range(self, region: u64) -> (u64, u64) {
        let (before, behind) = self.missing;
        (BASE + region * REGION + before, REGION - before - behind)
    }
}

/// Some iovs in a row.
#[derive(Clone, Copy, Debug)]
struct Row {
    region: u64,
    count: u64,
    offset: u64,
    length: u64,
    gap: u64,
    /// They have the key of the other region.
    is_mistaken: bool,
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let gap = prop_oneof![Just(0u64), Just(64)];
    let mistake = prop::sample::select(vec![false, false, false, false, false, false, false, true]);
    let row = (0u64..2, 1u64..9, 0u64..4000, 1u64..300, gap, mistake).prop_map(
        |(region, count, offset, length, gap, is_mistaken)| Row {
            region,
            count,
            offset: offset * 16,
            length,
            gap,
            is_mistaken,
        },
    );
    prop::collection::vec(row, 1..6)
}

fn regions_there() -> impl Strategy<Value = [OnThatRail; 2]> {
    let missing = || prop_oneof![4 => Just(0u64), 1 => 0..REGION / 2];
    // Also the keys that the regions have on the first rail, in turn or exchanged.
    let keys = prop::sample::select(vec![[17u32, 18], [7, 8], [8, 7]]);
    (keys, (missing(), missing()), (missing(), missing())).prop_map(|(keys, one, other)| {
        [OnThatRail { rkey: keys[0], missing: one }, OnThatRail { rkey: keys[1], missing: other }]
    })
}

fn announced(there: [OnThatRail; 2]) -> RemoteRegions {
    let entries = there.iter().enumerate().map(|(region, on)| {
        let (base, size) = on.range(region as u64);
        let first_rkey = Some(FIRST[region]);
        AnnouncedRegion { id: 1 + region as u64, base, size, flags: 0, first_rkey, rkey: Some(on.rkey) }
    });
    let regions = RemoteRegions::of_rail();
    let changes = RegionChanges { version: 2, rail: 1, change: Change::Add, entries: entries.collect() };
    regions.apply(&changes).unwrap();
    regions
}

fn first_rail(read_only: bool) -> RemoteRegions {
    let entry = |region: u64| RegionEntry {
        base: BASE + region * REGION,
        size: REGION,
        rkey: FIRST[region as usize],
        id: 0,
        read_only: region == 1 && read_only,
        continues: false,
        gpu_flush: false,
    };
    RemoteRegions::new(&[entry(0), entry(1)])
}

proptest! {
    #[test]
    fn iovs_have_the_keys_of_the_rail(
        rows in rows(), there in regions_there(), write: bool, read_only: bool, max_sge in 1u32..5,
    ) {
        let device = software::open(&SoftwareOptions::default()).unwrap().remove(0);
        let registry = Registry::new(device);
        let memory = vec![0_u8; REGION as usize];
        let local = memory.as_ptr().expose_provenance() as u64;
        let own: RegionId =
            registry.register((local, REGION), MemoryKind::Host, Access::FULL, true, None, None).unwrap();
        let (first, rail) = (first_rail(read_only), announced(there));
        let policy = SlicePolicy::new(0, 0, 1 << 30, max_sge, 0);
        let scope = Scope { local: &registry, remote: &rail, policy: &policy, carries_gpu: true };
        let opcode = if write { Opcode::Write } else { Opcode::Read };

        let (mut iovs, mut expected) = (Vec::new(), Some(Vec::new()));
        for row in rows {
            for n in 0..row.count {
                let at = row.offset + n * (row.length + row.gap);
                if at + row.length > REGION {
                    break;
                }
                let address = BASE + row.region * REGION + at;
                let named = FIRST[if row.is_mistaken { 1 - row.region } else { row.region } as usize];
                let remote = RemoteRange { address, size: row.length as u32, rkey: named };
                let iov = Iov { local: local + at, length: row.length, region: Some(own), remote };
                iovs.push(iov);
                let on = there[row.region as usize];
                let (base, size) = on.range(row.region);
                let is_there = address >= base && address + row.length <= base + size;
                let may_be_written = !(write && read_only && row.region == 1);
                if row.is_mistaken || !is_there || !may_be_written {
                    expected = None;
                }
                let key_there = RemoteRange { rkey: on.rkey, ..remote };
                expected.iter_mut().for_each(|expected| expected.push(Iov { remote: key_there, ..iov }));
            }
        }
        let (table, there) = (first.table(), rail.table());
        let source = OnRail::new(&iovs[..], &table, &there, opcode);
        let mut list = RequestList::default();
        let built = build(&source, Share::all(&source), scope, opcode, &mut list, None);
        match expected {
            None => prop_assert!(built.is_err() || !source.fits()),
            Some(iovs) => {
                built.unwrap();
                prop_assert!(source.fits());
                let mut plain = RequestList::default();
                build(&iovs[..], Share::all(&iovs[..]), scope, opcode, &mut plain, None).unwrap();
                prop_assert_eq!(list.contents(), plain.contents());
            }
        }
    }
}

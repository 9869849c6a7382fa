//! The peer's regions on a further rail, and the keys there.

use super::*;
use crate::fabric::Opcode;

/// The key of all memory here on the first rail, but where a test says otherwise.
const FIRST: u32 = 70;

fn named(id: u64) -> AnnouncedRegion {
    AnnouncedRegion { first_rkey: Some(FIRST), ..super::named(id) }
}

fn key(regions: &RemoteRegions, address: u64, length: u64, opcode: Opcode) -> Option<u32> {
    regions.table().key_for(FIRST, address, length, opcode).map(|region| region.rkey)
}

#[test]
fn a_rail_has_no_keys_until_they_are_told() {
    let regions = RemoteRegions::of_rail();
    assert_eq!(key(&regions, 0x1000, 16, Opcode::Read), None);
    assert_eq!((regions.known(), regions.table().flushes_unknown()), ((0, 0), false));
    regions.apply(&changes(1, Change::Add, &[named(1)])).unwrap();
    assert_eq!(key(&regions, 0x1000, 0x1000, Opcode::Write), Some(1));
    assert_eq!(key(&regions, 0x1000, 0x1001, Opcode::Write), None);
    assert_eq!(key(&regions, u64::MAX, 2, Opcode::Write), None);
    regions.apply(&changes(2, Change::Remove, &[named(1)])).unwrap();
    assert_eq!(key(&regions, 0x1000, 16, Opcode::Read), None, "gone");
}

/// The peer's NIC is the one of the first rail, so it names no other key.
#[test]
fn over_the_first_nic_keys_are_those_of_the_first_rail() {
    let regions = RemoteRegions::of_rail_over_first_nic();
    let entry = AnnouncedRegion { first_rkey: None, ..named(7) };
    regions.apply(&changes(7, Change::Add, &[entry])).unwrap();
    let of = |first| regions.table().key_for(first, 0x7000, 16, Opcode::Write).map(|region| region.rkey);
    assert_eq!((of(7), of(FIRST)), (Some(7), None));
    assert_eq!(regions.table().first_key_at(7, 0x7000, 16), Some((7, 16)));
}

/// The key of a probe: one without bytes, which an adapter may check none the less.
#[test]
fn a_region_to_probe_with_is_writable_and_found_at_once() {
    let regions = RemoteRegions::of_rail();
    let writable = || regions.table().writable().map(|region| region.rkey);
    let for_reading = AnnouncedRegion { flags: AnnouncedRegion::READ_ONLY, ..named(3) };
    assert_eq!(writable(), None);
    regions.apply(&changes(3, Change::Add, &[named(1), named(2), for_reading])).unwrap();
    assert_eq!(writable(), Some(2));
    regions.apply(&changes(4, Change::Remove, &[named(2)])).unwrap();
    assert_eq!(writable(), Some(1));
    regions.apply(&changes(5, Change::Remove, &[named(1)])).unwrap();
    assert_eq!(writable(), None);
}

/// What the first rail knows by another key is other memory, or was registered again: its key here may still be on its way.
#[test]
fn a_key_is_that_of_the_memory_that_the_first_rail_names() {
    let regions = RemoteRegions::of_rail();
    let known_as = |id, first_rkey| AnnouncedRegion { first_rkey, id, rkey: Some(id as u32), ..named(1) };
    regions.apply(&changes(2, Change::Add, &[known_as(1, Some(8)), known_as(2, None)])).unwrap();
    let of = |first| regions.table().key_for(first, 0x1000, 16, Opcode::Write).map(|region| region.rkey);
    assert_eq!((of(8), of(9)), (Some(1), None));
    regions.apply(&changes(3, Change::Add, &[known_as(3, Some(9))])).unwrap();
    assert_eq!((of(8), of(9)), (Some(1), Some(3)));
    let first_of = |rkey, length| regions.table().first_key_at(rkey, 0x1000, length);
    assert_eq!(
        (first_of(1, 16), first_of(3, 16), first_of(3, 0x1001), first_of(2, 16)),
        (Some((8, 16)), Some((9, 16)), Some((9, 0x1000)), None)
    );
    regions.apply(&changes(4, Change::Remove, &[known_as(1, Some(8))])).unwrap();
    assert_eq!((of(8), of(9), first_of(1, 16)), (None, Some(3), None));
}

/// A program may have mapped other memory at the addresses of an older registration, which still reaches the memory of then.
#[test]
fn the_key_is_that_of_the_newest_region() {
    let regions = RemoteRegions::of_rail();
    let around = AnnouncedRegion { base: 0, size: 1 << 20, ..named(9) };
    regions.apply(&changes(3, Change::Add, &[named(1), named(2), named(3)])).unwrap();
    assert_eq!(key(&regions, 0x2000, 16, Opcode::Write), Some(2));
    regions.apply(&changes(9, Change::Add, &[around])).unwrap();
    assert_eq!(key(&regions, 0x2000, 16, Opcode::Write), Some(9), "though another one is smaller");
    let again = AnnouncedRegion { id: 10, rkey: Some(10), ..named(2) };
    regions.apply(&changes(10, Change::Add, &[again])).unwrap();
    assert_eq!(key(&regions, 0x2000, 16, Opcode::Write), Some(10));
    regions.apply(&changes(11, Change::Remove, &[again, around])).unwrap();
    assert_eq!(key(&regions, 0x2000, 16, Opcode::Write), Some(2));
}

#[test]
fn the_key_allows_the_operation_and_says_whether_to_flush() {
    let regions = RemoteRegions::of_rail();
    let flushed = AnnouncedRegion { flags: AnnouncedRegion::GPU_FLUSH, ..named(1) };
    let read_only = AnnouncedRegion { id: 2, rkey: Some(2), flags: AnnouncedRegion::READ_ONLY, ..named(1) };
    regions.apply(&changes(2, Change::Add, &[flushed, read_only])).unwrap();
    let of = |opcode| regions.table().key_for(FIRST, 0x1000, 16, opcode).unwrap();
    assert_eq!((of(Opcode::Write).rkey, of(Opcode::Write).gpu_flush), (1, true));
    assert_eq!((of(Opcode::Read).rkey, of(Opcode::Read).gpu_flush), (2, false));
    regions.apply(&changes(3, Change::Remove, &[flushed])).unwrap();
    assert_eq!(key(&regions, 0x1000, 16, Opcode::Write), None);
}

/// A NIC may register in other pieces than that of the first rail.
#[test]
fn a_range_over_two_segments_has_no_key() {
    let regions = RemoteRegions::of_rail();
    let further = AnnouncedRegion { flags: AnnouncedRegion::CONTINUES, ..named(2) };
    regions.apply(&changes(2, Change::Add, &[named(1), further])).unwrap();
    assert_eq!(key(&regions, 0x1800, 0x1000, Opcode::Read), None);
    assert_eq!(regions.table().boundary_in(0x1800, 0x1000), Some(0x2000));
    let [first, second] = [(0x1800, 0x800), (0x2000, 0x800)]
        .map(|(address, length)| key(&regions, address, length, Opcode::Read));
    assert_eq!((first, second), (Some(1), Some(2)));
    let part = |address, length| {
        let (region, part) = regions.table().key_at(FIRST, address, length, Opcode::Read)?;
        Some((region.rkey, part))
    };
    assert_eq!(part(0x1800, 0x1000), Some((1, 0x800)), "as far as the first of them");
    assert_eq!((part(0x2000, 0x1000), part(0x2fff, 2)), (Some((2, 0x1000)), Some((2, 1))));
    assert_eq!((part(0xfff, 2), part(u64::MAX, 2)), (None, None));
}

/// What the first rail knows in segments, with ids from 1 on, each behind the one before, with these keys.
fn in_segments(segments: &[(u64, u64, u32)]) -> RemoteRegions {
    let regions = RemoteRegions::of_rail();
    regions.apply(&changes(segments.len() as u64, Change::Add, &in_a_row(segments, 1, None))).unwrap();
    regions
}

fn in_a_row(segments: &[(u64, u64, u32)], id: u64, first_rkey: Option<u32>) -> Vec<AnnouncedRegion> {
    let entry = |(at, (base, size, rkey)): (u64, &(u64, u64, u32))| AnnouncedRegion {
        id: id + at,
        base: *base,
        size: *size,
        flags: if at > 0 { AnnouncedRegion::CONTINUES } else { 0 },
        rkey: Some(*rkey),
        first_rkey,
    };
    (0..).zip(segments).map(entry).collect()
}

#[test]
fn a_range_over_segments_has_a_key_where_all_of_it_is_the_same_memory() {
    let first = in_segments(&[(0x1000, 0x1000, 71), (0x2000, 0x2000, 72), (0x4000, 0x1000, 73)]);
    let of_rail =
        [(0x1000, 0x1000, 1, 71), (0x2000, 0x1000, 1, 72), (0x3000, 0x1000, 2, 72), (0x4000, 0x1000, 2, 73)];
    let entries = |edit: &dyn Fn(usize, &mut AnnouncedRegion)| {
        let rail = RemoteRegions::of_rail();
        let mut entries: Vec<_> = of_rail
            .iter()
            .flat_map(|(base, size, rkey, first)| in_a_row(&[(*base, *size, *rkey)], 1, Some(*first)))
            .collect();
        for (at, entry) in entries.iter_mut().enumerate() {
            entry.id = 1 + at as u64;
            entry.flags = if at > 0 { AnnouncedRegion::CONTINUES } else { 0 };
            edit(at, entry);
        }
        rail.apply(&changes(4, Change::Add, &entries)).unwrap();
        rail
    };
    let across = |rail: &RemoteRegions, key, address, length, opcode| {
        rail.table().key_across(&first.table(), key, address, length, opcode)
    };
    let rail = entries(&|_, _| {});
    // By whichever key of the first rail's, and in one segment there.
    for key in [71, 72, 73] {
        assert_eq!(across(&rail, key, 0x1000, 0x4000, Opcode::Write), Some(1), "{key}");
        assert_eq!(across(&rail, key, 0x3001, 0x1fff, Opcode::Write), Some(2), "{key}");
        assert_eq!(across(&rail, key, 0x2fff, 2, Opcode::Read), Some(1), "{key}");
    }
    let segments = rail.table().segments(1, 0x1800, 0x3000).unwrap();
    assert_eq!(segments.iter().map(|segment| segment.rkey).collect::<Vec<_>>(), [1, 1, 2, 2]);
    let others =
        [(71, 0xfff, 0x1001), (71, 0x1000, 0x4001), (70, 0x1000, 0x2000), (71, u64::MAX, 2), (71, 0x4fff, 2)];
    for (key, address, length) in others {
        assert_eq!(across(&rail, key, address, length, Opcode::Read), None, "{key} {address:#x}+{length:#x}");
    }
    // A part that the first rail knows by another key by now, that is not told yet, or that is only to be read.
    let stale = entries(&|at, entry| entry.first_rkey = if at == 2 { Some(79) } else { entry.first_rkey });
    assert_eq!(across(&stale, 71, 0x1800, 0x2000, Opcode::Read), None);
    assert_eq!(across(&stale, 71, 0x1800, 0x1800, Opcode::Read), Some(1), "what is before it");
    let missing = entries(&|at, entry| entry.rkey = if at == 2 { None } else { entry.rkey });
    assert_eq!(across(&missing, 71, 0x1000, 0x4000, Opcode::Read), None);
    let read_only = entries(&|_, entry| entry.flags |= AnnouncedRegion::READ_ONLY);
    let of = |opcode| across(&read_only, 71, 0x1000, 0x4000, opcode);
    assert_eq!((of(Opcode::Write), of(Opcode::Read)), (None, Some(1)));
    // A peer that has not cut one of them where the first rail's are: its second part has another key there.
    let uncut = RemoteRegions::of_rail();
    let mut two = in_a_row(&[(0x1000, 0x2800, 1), (0x3800, 0x1800, 2)], 1, Some(71));
    two[1].first_rkey = Some(72);
    uncut.apply(&changes(2, Change::Add, &two)).unwrap();
    assert_eq!(across(&uncut, 71, 0x1000, 0x2000, Opcode::Read), None);
    assert_eq!(across(&uncut, 71, 0x1000, 0x1000, Opcode::Read), Some(1), "what is in one there");
    assert_eq!(across(&uncut, 72, 0x3800, 0x1000, Opcode::Read), None, "up to the next segment there");
    assert_eq!(across(&uncut, 72, 0x3800, 0x800, Opcode::Read), Some(2), "before it");
}

proptest! {
    /// However changes are cut into frames, and whatever begins anew.
    #[test]
    fn agrees_with_a_list_that_is_searched_from_its_end(
        steps in prop::collection::vec((0u8..8, prop::collection::vec(any::<prop::sample::Index>(), 1..40)), 0..60),
        asked in prop::collection::vec((0u64..400, 0u64..60), 20),
    ) {
        let of = |id: u64| AnnouncedRegion {
            id,
            base: id * 37 % 300,
            size: id * 11 % 70,
            flags: if id.is_multiple_of(3) { AnnouncedRegion::READ_ONLY } else { 0 }
                | if id.is_multiple_of(5) { AnnouncedRegion::GPU_FLUSH } else { 0 },
            rkey: Some((id % 50) as u32),
            first_rkey: Some(FIRST),
        };
        let regions = RemoteRegions::of_rail();
        let (mut live, mut version): (Vec<u64>, u64) = (Vec::new(), 0);
        for (step, which) in steps {
            let chosen: Vec<u64> = which.iter().filter(|_| !live.is_empty()).map(|index| *index.get(&live)).collect();
            match step {
                0..4 => {
                    let ids: Vec<_> = (version + 1..).take(which.len()).collect();
                    version += ids.len() as u64;
                    let entries: Vec<_> = ids.iter().map(|id| of(*id)).collect();
                    regions.apply(&changes(version, Change::Add, &entries)).unwrap();
                    live.extend(ids);
                }
                4..7 => {
                    version += 1;
                    let entries: Vec<_> = chosen.iter().map(|id| of(*id)).collect();
                    regions.apply(&changes(version, Change::Remove, &entries)).unwrap();
                    live.retain(|id| !chosen.contains(id));
                }
                // The peer has forgotten what was removed, and names what is left.
                _ => {
                    live.retain(|id| !chosen.contains(id));
                    version += 1;
                    regions.apply(&changes(version, Change::Reset, &[])).unwrap();
                    let entries: Vec<_> = live.iter().map(|id| of(*id)).collect();
                    regions.apply(&changes(version, Change::Add, &entries)).unwrap();
                }
            }
        }
        let table = regions.table();
        for (address, length) in asked {
            for opcode in [Opcode::Write, Opcode::Read] {
                let expected = live.iter().rev().map(|id| of(*id)).find(|region| {
                    crate::memory::holds(region.base, region.size, address, length)
                        && (opcode == Opcode::Read || region.flags & AnnouncedRegion::READ_ONLY == 0)
                });
                let expected = expected.map(|region| region_of(&region, region.rkey.unwrap()));
                prop_assert_eq!(table.key_for(FIRST, address, length, opcode), expected);
            }
        }
    }
}

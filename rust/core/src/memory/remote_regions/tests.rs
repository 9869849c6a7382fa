mod rail;

use proptest::prelude::*;

use super::*;
use crate::memory::RemoteCheck;

fn entry(id: u32) -> RegionEntry {
    RegionEntry {
        base: u64::from(id) << 12,
        size: 1 << 12,
        rkey: id,
        id,
        read_only: false,
        gpu_flush: false,
        continues: false,
    }
}

fn named(id: u64) -> AnnouncedRegion {
    AnnouncedRegion { id, base: id << 12, size: 1 << 12, flags: 0, rkey: Some(id as u32), first_rkey: None }
}

fn changes(version: u64, change: Change, entries: &[AnnouncedRegion]) -> RegionChanges {
    RegionChanges { version, rail: 0, change, entries: entries.to_vec() }
}

#[test]
fn checks_by_key_in_64_bits() {
    let region = RemoteRegion { base: 0x1000, size: 0x1000, rkey: 7, read_only: false, gpu_flush: false };
    let of = |base| RegionEntry {
        base,
        size: 0x1000,
        rkey: 7,
        id: 0,
        read_only: false,
        gpu_flush: false,
        continues: false,
    };
    let table = RemoteRegions::new(&[of(0x1000), of(0x9000)]).table();
    assert_eq!(table.check(7, 0x1800, 0x800), RemoteCheck::Inside(region));
    assert_eq!(table.check(7, 0x1800, 0x801), RemoteCheck::Outside);
    assert_eq!(table.check(7, u64::MAX, 2), RemoteCheck::Outside);
    assert_eq!(table.check(8, 0x1800, 1), RemoteCheck::UnknownKey);
    assert_eq!(table.find(0x9000, 0x1000).map(|region| region.base), Some(0x9000));
    assert_eq!(table.find(u64::MAX - 1, 64), None);
}

#[test]
fn flushed_regions_are_known_and_make_unknown_keys_suspect() {
    let regions = RemoteRegions::new(&[entry(1)]);
    assert!(!regions.table().flushes_unknown());
    let flagged = AnnouncedRegion { flags: AnnouncedRegion::GPU_FLUSH, ..named(3) };
    regions.apply(&changes(4, Change::Add, &[flagged, named(4)])).unwrap();
    let gpu_flush = |id: u32| match regions.table().check(id, u64::from(id) << 12, 16) {
        RemoteCheck::Inside(region) => region.gpu_flush,
        other => panic!("{other:?}"),
    };
    assert_eq!([1, 3, 4].map(gpu_flush), [false, true, false]);
    regions.apply(&changes(5, Change::Remove, &[flagged])).unwrap();
    assert!(regions.table().flushes_unknown());
    assert!(RemoteRegions::new(&[RegionEntry { gpu_flush: true, ..entry(1) }]).table().flushes_unknown());
    // Or it has said so before it announced any.
    let said = RemoteRegions::of_peer(&[entry(1)], true);
    assert!(said.table().flushes_unknown() && said.table().len() == 1);
    said.apply(&changes(2, Change::Add, &[named(2)])).unwrap();
    assert!(said.table().flushes_unknown() && said.table().len() == 2, "also after changes");
    assert!(!RemoteRegions::of_peer(&[entry(1)], false).table().flushes_unknown());
}

#[test]
fn read_only_regions_are_known_from_the_handshake_and_from_changes() {
    let regions = RemoteRegions::new(&[entry(1), RegionEntry { read_only: true, ..entry(2) }]);
    let flagged = AnnouncedRegion { flags: AnnouncedRegion::READ_ONLY, ..named(3) };
    regions.apply(&changes(4, Change::Add, &[flagged, named(4)])).unwrap();
    let read_only = |id: u32| match regions.table().check(id, u64::from(id) << 12, 16) {
        RemoteCheck::Inside(region) => region.read_only,
        other => panic!("{other:?}"),
    };
    assert_eq!([1, 2, 3, 4].map(read_only), [false, true, true, false]);
    regions.apply(&changes(5, Change::Update, &[named(2), named(3)])).unwrap();
    assert_eq!([1, 2, 3, 4].map(read_only), [false; 4]);
}

#[test]
fn the_oldest_region_is_the_first_that_is_left() {
    // The first has the highest address.
    let regions = RemoteRegions::new(&[RegionEntry { base: 9 << 12, ..entry(1) }, entry(2)]);
    let oldest = || regions.table().oldest().map(|region| region.base >> 12);
    assert_eq!(oldest(), Some(9));
    regions.apply(&changes(3, Change::Add, &[named(3)])).unwrap();
    assert_eq!(oldest(), Some(9));
    regions.apply(&changes(4, Change::Remove, &[named(1), named(2)])).unwrap();
    assert_eq!(oldest(), Some(3));
    regions.apply(&changes(5, Change::Remove, &[named(3)])).unwrap();
    assert_eq!(oldest(), None);
}

#[test]
fn a_key_of_a_region_that_is_gone_is_known_as_such() {
    let regions = RemoteRegions::new(&[entry(1), entry(2)]);
    assert!(!regions.apply(&changes(3, Change::Add, &[named(3)])).unwrap());
    assert!(regions.apply(&changes(4, Change::Remove, &[named(1), named(77)])).unwrap());
    let table = regions.table();
    assert_eq!(table.check(1, 0x1000, 16), RemoteCheck::Removed);
    assert_eq!(table.check(1, 0x9000, 16), RemoteCheck::UnknownKey, "other memory that has this key now");
    assert_eq!(table.find(0x1000, 16), None);
    assert_eq!(table.find(0x3000, 16).map(|region| region.rkey), Some(3));
    // The same key again, announced.
    let again = AnnouncedRegion { id: 5, ..named(1) };
    regions.apply(&changes(5, Change::Add, &[again])).unwrap();
    assert!(matches!(regions.table().check(1, 0x1000, 16), RemoteCheck::Inside(_)));
    // The same again, not announced: left to the fabric.
    regions.apply(&changes(6, Change::Remove, &[again])).unwrap();
    assert_eq!(regions.table().check(1, 0x1000, 16), RemoteCheck::Removed);
    let flagged = |id| AnnouncedRegion { id, flags: AnnouncedRegion::KEY_IN_USE, ..named(1) };
    regions.apply(&changes(7, Change::Remove, &[flagged(1), flagged(5)])).unwrap();
    assert_eq!(regions.table().check(1, 0x1000, 16), RemoteCheck::UnknownKey);
    assert_eq!(regions.table().len(), 2);
}

#[test]
fn an_unknown_id_changes_no_table() {
    let regions = RemoteRegions::new(&[entry(1)]);
    let before = regions.table().levels[0].clone();
    let flagged = AnnouncedRegion { flags: AnnouncedRegion::KEY_IN_USE, ..named(77) };
    assert!(!regions.apply(&changes(2, Change::Remove, &[flagged])).unwrap());
    assert!(Arc::ptr_eq(&before, &regions.table().levels[0]), "nothing was made anew");
}

#[test]
fn what_makes_the_table_anew_is_no_quick_change() {
    let regions = RemoteRegions::new(&[entry(1)]);
    let flagged = AnnouncedRegion { flags: AnnouncedRegion::KEY_IN_USE, ..named(1) };
    let moved = AnnouncedRegion { base: 0x8000, ..named(1) };
    assert!(!regions.is_quick(&changes(2, Change::Remove, &[flagged])));
    assert!(!regions.is_quick(&changes(2, Change::Update, &[moved])));
    assert!(regions.is_quick(&changes(2, Change::Add, &[named(1)])), "as it is already");
    assert!(regions.is_quick(&changes(2, Change::Remove, &[named(1)])));
}

#[test]
fn a_changed_region_is_what_it_was_changed_to() {
    let regions = RemoteRegions::new(&[entry(1), entry(2)]);
    let moved = AnnouncedRegion { base: 0x8000, rkey: Some(9), ..named(1) };
    assert!(regions.apply(&changes(3, Change::Update, &[moved])).unwrap());
    let table = regions.table();
    assert_eq!(table.find(0x1000, 16), None);
    assert_eq!(table.find(0x8000, 16).map(|region| region.rkey), Some(9));
    assert_eq!(table.check(1, 0x1000, 16), RemoteCheck::UnknownKey);
    let keyless = AnnouncedRegion { rkey: None, ..named(6) };
    regions.apply(&changes(6, Change::Add, &[keyless])).unwrap();
    assert_eq!(regions.table().find(0x6000, 16), None);
}

/// Nothing that stays is missing meanwhile.
#[test]
fn a_reset_takes_away_what_is_not_named_again() {
    let regions = RemoteRegions::new(&[entry(1), entry(2), entry(3)]);
    assert!(!regions.apply(&changes(9, Change::Reset, &[])).unwrap());
    assert_eq!(regions.table().len(), 3);
    assert!(!regions.apply(&changes(2, Change::Add, &[named(2)])).unwrap());
    assert_eq!(regions.table().len(), 3);
    assert!(regions.apply(&changes(9, Change::Add, &[named(8)])).unwrap());
    let table = regions.table();
    assert_eq!((table.len(), regions.known()), (2, (2, 9)));
    assert!([2, 8].iter().all(|id| table.find(id << 12, 16).is_some()));
    assert_eq!(table.check(1, 0x1000, 16), RemoteCheck::Removed);
}

#[test]
fn what_makes_no_sense_is_an_error() {
    let regions = RemoteRegions::with_limits(&[entry(1), entry(9)], 3, 9);
    let error = regions.apply(&changes(8, Change::Add, &[named(8)])).unwrap_err();
    assert_eq!(error.to_string(), "malformed region changes of the peer: version 8 after version 9");
    regions.apply(&changes(10, Change::Add, &[named(10)])).unwrap();
    let error = regions.apply(&changes(11, Change::Add, &[named(11)])).unwrap_err();
    assert!(error.to_string().contains("more than 3 regions"), "{error}");
}

/// A peer may say anything: what is kept is bounded all the same.
#[test]
fn regions_that_come_and_go_leave_little_behind() {
    let regions = RemoteRegions::with_limits(&[], 100, 100);
    for version in 1..10_000_u64 {
        // Ids that are used again, and others.
        let entry = named(if version % 4 < 2 { 1 } else { version / 2 + 1 });
        let change = if version % 2 == 0 { Change::Add } else { Change::Remove };
        regions.apply(&changes(version, change, &[entry])).unwrap();
    }
    let state = lock(&regions.state);
    assert!(state.entries < 300, "{}", state.entries);
    assert!(regions.table().levels.len() < 20);
}

/// Segments of one region are known as such, whichever way they come; what merely lies behind it is another region.
#[test]
fn segments_of_a_region_hold_what_none_of_them_holds() {
    let further = |id: u32| RegionEntry { continues: true, ..entry(id) };
    let named = |id: u64| AnnouncedRegion { flags: AnnouncedRegion::CONTINUES, ..named(id) };
    // 1 to 4 are one region, told in part by the table; 5 is another one. 7 says that it continues 6, which is not there.
    let regions = RemoteRegions::new(&[entry(1), further(2)]);
    regions.apply(&changes(4, Change::Add, &[named(3), named(4)])).unwrap();
    regions.apply(&changes(5, Change::Add, &[AnnouncedRegion { flags: 0, ..named(5) }])).unwrap();
    regions.apply(&changes(7, Change::Add, &[named(7)])).unwrap();
    let table = regions.table();
    let key = |table: &RemoteTable, address, length| table.find(address, length).map(|region| region.rkey);
    assert_eq!(key(&table, 0x1000, 0x4000), Some(1));
    assert_eq!(key(&table, 0x2fff, 2), Some(2));
    assert_eq!(key(&table, 0x3000, 0x1000), Some(3));
    assert_eq!(
        (key(&table, 0x4fff, 2), key(&table, 0x1000, 0x4001), key(&table, 0xfff, 2)),
        (None, None, None)
    );
    assert_eq!(table.boundary_in(0x4fff, 2), Some(0x5000));
    assert_eq!(table.boundary_in(0x7fff, 2), None, "nothing begins there");
    let across = RemoteCheck::InSegments { read_only: false };
    for rkey in 1..=4 {
        assert_eq!(table.check(rkey, 0x1800, 0x2000), across, "the key of any of them");
        let keys = |address, length| {
            let segments = table.segments(rkey, address, length)?;
            Some(segments.iter().map(|region| region.rkey).collect::<Vec<_>>())
        };
        assert_eq!(keys(0x2fff, 0x1002), Some(vec![2, 3, 4]));
        assert_eq!((keys(0x3001, 1), keys(0x3001, 0), keys(0x4fff, 2)), (Some(vec![3]), Some(vec![3]), None));
        assert_eq!(table.check(rkey, 0x1800, 0x4000), RemoteCheck::Outside);
    }
    assert_eq!(table.check(5, 0x4fff, 2), RemoteCheck::Outside);
    assert_eq!(table.check(7, 0x6fff, 2), RemoteCheck::Outside);
    // Gone together: across a boundary, too.
    let gone = [1, 2, 3, 4].map(|id| AnnouncedRegion { flags: 0, ..named(id) });
    regions.apply(&changes(12, Change::Remove, &gone)).unwrap();
    let table = regions.table();
    assert_eq!(table.check(2, 0x2fff, 2), RemoteCheck::Removed);
    assert_eq!(
        (key(&table, 0x2fff, 2), key(&table, 0x2000, 1), key(&table, 0x5000, 1)),
        (None, None, Some(5))
    );
}

/// The first and the last segment may be of any length. Those between are pages at least, so that a transfer has not as many work
/// requests as bytes, whatever the peer says.
#[test]
fn segments_between_the_first_and_the_last_are_not_short() {
    let further = |id: u32, base, size| RegionEntry { base, size, continues: true, ..entry(id) };
    let first = RegionEntry { base: 0x1fff, size: 1, ..entry(1) };
    let of = |within| {
        RemoteRegions::new(&[first, further(2, 0x2000, within), further(3, 0x2000 + within, 1)])
            .table()
            .check(1, 0x1fff, within + 2)
    };
    assert_eq!(of(0x1000), RemoteCheck::InSegments { read_only: false });
    assert_eq!((of(0xfff), of(0)), (RemoteCheck::Outside, RemoteCheck::Outside));
}

/// As in a region of one segment, an empty piece may stand at the end.
#[test]
fn an_empty_piece_is_inside_a_region_of_segments() {
    let regions = RemoteRegions::new(&[entry(1), RegionEntry { continues: true, ..entry(2) }]);
    let table = regions.table();
    for (address, inside) in [(0x1000, true), (0x2fff, true), (0x3000, true), (0x3001, false), (0xfff, false)]
    {
        let answer = table.check(1, address, 0);
        let accepted = matches!(answer, RemoteCheck::Inside(_) | RemoteCheck::InSegments { .. });
        assert_eq!(accepted, inside, "{address:#x}: {answer:?}");
    }
}

/// Regions without an id are none of them a part of another one, though they touch, and others have segments.
#[test]
fn regions_without_an_id_are_no_segments() {
    let unnamed = |id| RegionEntry { id: 0, ..entry(id) };
    let regions =
        RemoteRegions::new(&[entry(1), RegionEntry { continues: true, ..entry(2) }, unnamed(8), unnamed(9)]);
    assert_eq!(regions.table().find(0x8000, 0x2000), None);
}

/// A peer chooses ranges and keys: many with one key, many over one address. No look-up takes time by the square of their number.
#[test]
fn many_segments_with_one_key_are_looked_up_quickly() {
    let count = 8192_u32;
    let one_key = |id| RegionEntry { rkey: 7, continues: id > 1, ..entry(id) };
    let over_all = |id| RegionEntry { base: 0x1000, size: 0x1800, ..entry(id) };
    let entries: Vec<_> = (1..=count).map(one_key).chain((2 * count..3 * count).map(over_all)).collect();
    let regions = RemoteRegions::new(&entries);
    let begun = std::time::Instant::now();
    let length = u64::from(count) * 0x1000;
    assert_eq!(regions.table().check(7, 0x1001, length), RemoteCheck::Outside);
    assert_eq!(regions.table().check(7, 0x1000, length), RemoteCheck::InSegments { read_only: false });
    assert!(regions.table().find(0x1000, length).is_some());
    assert!(begun.elapsed() < std::time::Duration::from_secs(1), "{:?}", begun.elapsed());
}

/// A peer that lies about what continues what gets regions of their own.
#[test]
fn what_does_not_lie_behind_is_no_segment() {
    let first = entry(1);
    for second in [
        RegionEntry { base: 0x2001, ..entry(2) },
        RegionEntry { base: 0x1000, ..entry(2) },
        RegionEntry { read_only: true, ..entry(2) },
        RegionEntry { id: 3, ..entry(2) },
        RegionEntry { id: 0, ..entry(2) },
    ] {
        let regions = RemoteRegions::new(&[first, RegionEntry { continues: true, ..second }]);
        assert_eq!(regions.table().check(1, 0x1fff, 2), RemoteCheck::Outside, "{second:?}");
        assert!(regions.table().find(0x1fff, 2).is_none_or(|region| region.rkey == 2), "{second:?}");
    }
}

proptest! {
    /// However changes are cut into frames, the table answers as a list does that is searched from end to end.
    #[test]
    fn agrees_with_a_list(
        first in 0..40_u64,
        steps in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<prop::sample::Index>(), 1..20)), 0..40),
        address in 0u64..400, length in 0u64..60,
    ) {
        let place = |id: u64| (id * 37 % 300, id * 11 % 70);
        let of = |id: u64| AnnouncedRegion { id, base: place(id).0, size: place(id).1, flags: 0, rkey: Some((id % 50) as u32), first_rkey: None };
        let table: Vec<_> = (1..=first)
            .map(|id| RegionEntry { base: of(id).base, size: of(id).size, rkey: of(id).rkey.unwrap(), id: id as u32, read_only: false, gpu_flush: false, continues: false })
            .collect();
        let regions = RemoteRegions::new(&table);
        let (mut live, mut next): (Vec<u64>, u64) = ((1..=first).collect(), first);
        for (add, which) in steps {
            let ids: Vec<u64> = match add {
                true => (0..which.len() as u64).map(|more| next + 1 + more).collect(),
                false => which.iter().filter(|_| !live.is_empty()).map(|index| *index.get(&live)).collect(),
            };
            next += which.len() as u64;
            let entries: Vec<_> = ids.iter().map(|id| of(*id)).collect();
            let change = if add { Change::Add } else { Change::Remove };
            regions.apply(&changes(next, change, &entries)).unwrap();
            match add {
                true => live.extend(ids),
                false => live.retain(|id| !ids.contains(id)),
            }
        }
        let table = regions.table();
        let holds = |id: &&u64| crate::memory::holds(of(**id).base, of(**id).size, address, length);
        let expected = live.iter().filter(holds).max_by_key(|id| (of(**id).base, **id)).map(|id| of(*id));
        let found = table.find(address, length).map(|region| (region.base, region.size, region.rkey));
        prop_assert_eq!(found, expected.map(|region| (region.base, region.size, region.rkey.unwrap())));
        for key in 0..50 {
            let inside = live.iter().filter(|id| *id % 50 == key).any(|id| holds(&id));
            prop_assert_eq!(matches!(table.check(key as u32, address, length), RemoteCheck::Inside(_)), inside);
        }
        prop_assert_eq!(table.len(), live.len());
    }
}

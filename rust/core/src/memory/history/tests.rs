use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::memory::RemoteRegions;

fn region(number: u64) -> RemoteRegion {
    RemoteRegion {
        base: number << 12,
        size: 1 << 12,
        rkey: number as u32,
        read_only: false,
        gpu_flush: false,
    }
}

/// A region of one segment: its id, if there is room for it.
fn add(history: &mut History, region: RemoteRegion) -> Option<u64> {
    history.add(&[region]).next()
}

fn ids(changes: &RegionChanges) -> Vec<u64> {
    changes.entries.iter().map(|entry| entry.id).collect()
}

/// All changes for a peer, until it has all.
fn tell(history: &History, cursor: &mut Cursor) -> Vec<RegionChanges> {
    std::iter::from_fn(|| history.next(cursor)).collect()
}

#[test]
fn a_peer_gets_the_changes_that_are_new_to_it() {
    let mut history = History::default();
    for number in 1..=3 {
        add(&mut history, region(number));
    }
    let (table, mut cursor) = history.table();
    assert_eq!(
        table.iter().map(|entry| (entry.id, entry.rkey)).collect::<Vec<_>>(),
        [(1, 1), (2, 2), (3, 3)]
    );
    assert_eq!(history.next(&mut cursor), None, "the table has all");
    history.remove(2);
    add(&mut history, region(9));
    let told = tell(&history, &mut cursor);
    let [gone, new] = &told[..] else { panic!("{told:?}") };
    assert_eq!((gone.change, ids(gone), gone.version), (Change::Remove, vec![2], 4));
    assert_eq!((new.change, ids(new), new.version), (Change::Add, vec![5], 5));
    // A region that is added and removed between two reads is not announced.
    add(&mut history, region(10));
    history.remove(6);
    let told = tell(&history, &mut cursor);
    assert_eq!(told.len(), 1);
    assert!(told[0].entries.is_empty() && told[0].version == 7);
}

/// The segments of a region have ids in a row, wherever a table or a frame ends between them.
#[test]
fn segments_are_told_one_by_one() {
    let limits = Limits { announced: 6, table: 2, removed: 10, entries: 2 };
    let mut history = History::new(limits);
    let segments: Vec<_> = (1..=5).map(region).collect();
    assert_eq!(history.add(&segments), 1..6);
    assert!(history.add(&segments[..2]).is_empty(), "there is no room for both");
    assert_eq!(history.version(), 5);
    let (table, mut cursor) = history.table();
    assert_eq!(
        table.iter().map(|entry| (entry.id, entry.continues)).collect::<Vec<_>>(),
        [(1, false), (2, true)]
    );
    let told = tell(&history, &mut cursor);
    let flags: Vec<_> =
        told.iter().flat_map(|changes| &changes.entries).map(|entry| (entry.id, entry.flags)).collect();
    assert_eq!(flags, [3, 4, 5].map(|id| (id, AnnouncedRegion::CONTINUES)));
    (1..6).for_each(|id| history.remove(id));
    let gone: Vec<_> = tell(&history, &mut cursor).iter().flat_map(ids).collect();
    assert_eq!(gone, [1, 2, 3, 4, 5]);
}

#[test]
fn regions_beyond_the_table_are_announced_afterwards() {
    let mut history = History::new(Limits { table: 2, ..Limits::default() });
    for number in 1..=5 {
        add(&mut history, region(number));
    }
    let (table, mut cursor) = history.table();
    assert_eq!(table.len(), 2);
    history.remove(1);
    // The peer gets its removal alone, which it ignores.
    history.remove(4);
    let told = tell(&history, &mut cursor);
    assert_eq!(
        told.iter().map(|changes| (changes.change, ids(changes))).collect::<Vec<_>>(),
        [(Change::Add, vec![3, 5]), (Change::Remove, vec![1, 4]),]
    );
}

#[test]
fn a_peer_that_has_missed_too_much_begins_anew() {
    let mut history = History::new(Limits { removed: 2, entries: 2, ..Limits::default() });
    for number in 1..=8 {
        add(&mut history, region(number));
    }
    let (_, mut cursor) = history.table();
    for id in 1..=3 {
        history.remove(id);
    }
    let first = history.next(&mut cursor).unwrap();
    assert_eq!((first.change, first.version), (Change::Reset, 11));
    // Removals continue meanwhile, so many that the history drops some of them.
    assert_eq!(ids(&history.next(&mut cursor).unwrap()), [4, 5]);
    history.remove(4);
    history.remove(6);
    let told = tell(&history, &mut cursor);
    assert_eq!(
        told.iter().map(|changes| (changes.change, ids(changes))).collect::<Vec<_>>(),
        [(Change::Add, vec![7, 8]), (Change::Remove, vec![4, 6]),]
    );
}

#[test]
fn too_many_regions_are_not_announced() {
    let mut history = History::new(Limits { announced: 1, ..Limits::default() });
    assert_eq!(add(&mut history, region(1)), Some(1));
    assert_eq!(add(&mut history, region(2)), None);
    history.remove(1);
    assert_eq!(add(&mut history, region(2)), Some(3));
}

#[test]
fn peers_learn_of_a_key_that_is_in_use_again() {
    let mut history = History::default();
    add(&mut history, region(7));
    let (_, mut cursor) = history.table();
    history.remove(1);
    tell(&history, &mut cursor);
    assert!(history.key_in_use(7) && !history.key_in_use(7) && !history.key_in_use(8));
    let told = tell(&history, &mut cursor);
    assert_eq!((told[0].entries[0].id, told[0].entries[0].flags), (1, AnnouncedRegion::KEY_IN_USE));
}

#[test]
fn peers_learn_what_is_read_only() {
    let mut history = History::default();
    let mut cursor = history.table().1;
    add(&mut history, RemoteRegion { read_only: true, ..region(1) });
    add(&mut history, region(2));
    let flags = |told: &[RegionChanges]| told[0].entries.iter().map(|entry| entry.flags).collect::<Vec<_>>();
    assert_eq!(flags(&tell(&history, &mut cursor)), [AnnouncedRegion::READ_ONLY, 0]);
    let (table, _) = history.table();
    assert_eq!(table.iter().map(|entry| entry.read_only).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn peers_learn_what_is_flushed() {
    let mut history = History::default();
    let mut cursor = history.table().1;
    history.add(&[RemoteRegion { gpu_flush: true, ..region(1) }]);
    assert_eq!(tell(&history, &mut cursor)[0].entries[0].flags, AnnouncedRegion::GPU_FLUSH);
    assert!(history.table().0[0].gpu_flush);
}

/// Events of a history and of the peers of its engine.
#[derive(Clone, Debug)]
enum Event {
    Add,
    Remove(prop::sample::Index),
    Connect,
    /// A peer takes so many frames.
    Tell(prop::sample::Index, usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => Just(Event::Add),
        3 => any::<prop::sample::Index>().prop_map(Event::Remove),
        1 => Just(Event::Connect),
        3 => (any::<prop::sample::Index>(), 1..4_usize).prop_map(|(peer, frames)| Event::Tell(peer, frames)),
    ];
    prop::collection::vec(event, 1..200)
}

proptest! {
    /// Peers connect and read at any time, and the history drops much: in the end each has the current regions.
    #[test]
    fn every_peer_knows_all_in_the_end(events in events(), table in 0..6_usize, removed in 1..6_usize, entries in 1..4_usize) {
        let mut history = History::new(Limits { table, removed, entries, announced: 1000 });
        let mut live = BTreeMap::new();
        let mut peers: Vec<(RemoteRegions, Cursor)> = Vec::new();
        let mut number = 0;
        for event in events {
            match event {
                Event::Add => {
                    number += 1;
                    live.insert(add(&mut history, region(number)).unwrap(), region(number));
                }
                Event::Remove(which) if !live.is_empty() => {
                    let id = *live.keys().nth(which.index(live.len())).unwrap();
                    live.remove(&id);
                    history.remove(id);
                }
                Event::Connect => {
                    let (table, cursor) = history.table();
                    peers.push((RemoteRegions::new(&table), cursor));
                }
                Event::Tell(which, frames) if !peers.is_empty() => {
                    let at = which.index(peers.len());
                    let (peer, cursor) = &mut peers[at];
                    for _ in 0..frames {
                        let Some(changes) = history.next(cursor) else { break };
                        prop_assert!(changes.entries.len() <= entries);
                        let bytes = changes.encode();
                        prop_assert!(peer.apply(&RegionChanges::decode(&bytes).unwrap()).is_ok());
                    }
                }
                Event::Remove(_) | Event::Tell(..) => {}
            }
        }
        for (peer, mut cursor) in peers {
            for changes in tell(&history, &mut cursor) {
                prop_assert!(peer.apply(&changes).is_ok());
            }
            prop_assert_eq!(peer.known(), (live.len(), peer.known().1));
            let table = peer.table();
            prop_assert_eq!(table.len(), live.len());
            for region in (1..=number).map(region) {
                let expected = live.values().any(|live| *live == region).then_some(region);
                prop_assert_eq!(table.find(region.base, region.size).copied(), expected);
            }
        }
    }
}

/// All memory of one kind may have the same key. Each removed region keeps it, also after a later one with the same
/// key.
#[test]
fn a_key_in_use_is_announced_for_every_region_that_had_it() {
    let mut history = History::default();
    let same_key = |number| RemoteRegion { rkey: 0, ..region(number) };
    let ids_of = [1, 2].map(|number| add(&mut history, same_key(number)).unwrap());
    let (_, mut cursor) = history.table();
    history.remove(ids_of[0]);
    let third = add(&mut history, same_key(3)).unwrap();
    history.remove(ids_of[1]);
    assert!(history.key_in_use(0));
    let told = tell(&history, &mut cursor);
    let flagged: Vec<_> =
        told.iter().flat_map(|changes| &changes.entries).filter(|entry| entry.flags != 0).collect();
    assert_eq!(flagged.iter().map(|entry| entry.id).collect::<Vec<_>>(), ids_of);
    assert!(!history.key_in_use(0), "region {third} is still there");
}

/// A peer that gets no ids has all regions in the table, however long ids have become.
#[test]
fn long_ids_are_for_peers_that_get_none() {
    let mut history = History::default();
    let first = add(&mut history, region(1)).unwrap();
    history.version = u64::from(u32::MAX);
    let second = add(&mut history, region(2)).unwrap();
    let (table, mut cursor) = history.table();
    assert_eq!(table.iter().map(|entry| (entry.id, entry.rkey)).collect::<Vec<_>>(), [(1, 1), (0, 2)]);
    assert_eq!((first, cursor.version()), (1, 1));
    let told = tell(&history, &mut cursor);
    assert_eq!(told.iter().flat_map(ids).collect::<Vec<_>>(), [second]);
}

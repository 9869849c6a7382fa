//! Two ends of an exchange with several rails.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::control::wire::Change;
use crate::events::Wakeup;
use crate::memory::{Announced, Cursor, RemoteRegion};

/// One end: its regions on each rail, and its exchange.
struct End {
    rails: BTreeMap<u8, Arc<Announced>>,
    /// Ids of the regions of each rail, the oldest first.
    ids: BTreeMap<u8, Vec<u64>>,
    exchange: Exchange,
}

impl End {
    fn new() -> Self {
        let announced = Arc::new(Announced::default());
        let local = announced.subscribe(Cursor::default(), Arc::default());
        let exchange =
            Exchange::new(local, Arc::new(RemoteRegions::new(&[])), Arc::new(SyncRequests::new(true)));
        Self { rails: BTreeMap::from([(0, announced)]), ids: BTreeMap::new(), exchange }
    }

    fn with_rails(rails: impl IntoIterator<Item = u8>) -> Self {
        let mut end = Self::new();
        rails.into_iter().for_each(|rail| end.add_rail(rail));
        end
    }

    /// A further rail of which the NIC has no regions yet.
    fn add_rail(&mut self, rail: u8) {
        let announced = Arc::clone(self.rails.entry(rail).or_default());
        let local = announced.subscribe(Cursor::default(), Arc::default());
        assert!(self.exchange.add_rail(rail, local, Arc::new(RemoteRegions::of_rail())));
    }

    fn register(&mut self, rail: u8, number: u64) {
        let region = region(rail, number);
        let ids = self.rails.entry(rail).or_default().add(&[region]);
        self.ids.entry(rail).or_default().extend(ids);
    }

    /// The oldest region of a rail is gone, if it has one.
    fn deregister(&mut self, rail: u8) {
        let ids = self.ids.entry(rail).or_default();
        if !ids.is_empty() {
            let id = ids.remove(0);
            self.rails[&rail].remove(id..id + 1);
        }
    }

    fn take(&mut self, frame: RegionFrame) {
        let Some(changes) = self.exchange.receive(frame) else { return };
        if let Some(regions) = self.exchange.remote(changes.rail) {
            regions.apply(&changes).unwrap();
        }
    }

    /// Keys of the peer's regions on a rail, sorted.
    fn known(&self, rail: u8) -> Vec<u32> {
        let table = self.exchange.remote(rail).unwrap().table();
        let pages = (0..PAGES).filter_map(|page| table.find(page << 12, 1 << 12));
        let mut keys: Vec<_> = pages.map(|region| region.rkey).collect();
        keys.sort_unstable();
        assert_eq!(keys.len(), table.len());
        keys
    }

    /// Keys of the own regions on a rail, sorted.
    fn own(&self, rail: u8) -> Vec<u32> {
        let mut keys: Vec<_> = self.rails[&rail].table().0.iter().map(|entry| entry.rkey).collect();
        keys.sort_unstable();
        keys
    }

    /// The next frame, after any pause.
    fn next(&mut self) -> Option<RegionFrame> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let next = self.exchange.next();
            match self.exchange.deadline() {
                None => return next,
                Some(_) if next.is_some() => return next,
                Some(pause) => std::thread::sleep(pause.saturating_duration_since(Instant::now())),
            }
            assert!(Instant::now() < deadline, "it pauses without end");
        }
    }

    fn next_changes(&mut self) -> RegionChanges {
        match self.next() {
            Some(RegionFrame::Changes(changes)) => changes,
            other => panic!("{other:?}"),
        }
    }
}

const PAGES: u64 = 4096;

/// Of that page. Keys of rails differ.
fn region(rail: u8, number: u64) -> RemoteRegion {
    let rkey = u32::from(rail) << 24 | number as u32;
    RemoteRegion { base: number << 12, size: 1 << 12, rkey, ..RemoteRegion::default() }
}

/// Until both have sent all.
fn deliver(here: &mut End, there: &mut End) {
    loop {
        let (from_here, from_there) = (here.next(), there.next());
        if from_here.is_none() && from_there.is_none() {
            return;
        }
        from_here.into_iter().for_each(|frame| there.take(frame));
        from_there.into_iter().for_each(|frame| here.take(frame));
    }
}

/// Frames without a pause between them, as the limits of a frame make them: so many entries each.
fn many(end: &mut End, rail: u8, frames: u64) {
    (0..frames * RegionChanges::MAX_ENTRIES as u64).for_each(|number| end.register(rail, number));
}

#[test]
fn each_rail_has_its_own_keys_in_both_directions() {
    let mut ends = [End::with_rails([1, 7]), End::with_rails([7, 1])];
    for (end, offset) in ends.iter_mut().zip([0, 100]) {
        for rail in [0, 1, 7] {
            (1..=3).for_each(|number| end.register(rail, offset + u64::from(rail) * 10 + number));
        }
    }
    let [here, there] = &mut ends;
    deliver(here, there);
    for rail in [0, 1, 7] {
        assert_eq!((here.known(rail), there.known(rail)), (there.own(rail), here.own(rail)), "rail {rail}");
        assert_eq!(here.known(rail).len(), 3);
    }
    here.deregister(7);
    there.register(1, 9);
    deliver(here, there);
    assert_eq!((there.known(7).len(), here.known(1).len(), there.known(0).len()), (2, 4, 3));
}

/// A NIC may have had its regions for long when it gets a rail, and have lost more than its history holds.
#[test]
fn a_rail_that_comes_late_gets_all() {
    let (mut here, mut there) = (End::new(), End::new());
    here.rails.insert(2, Arc::default());
    for round in 0..70_000 {
        here.register(2, round % PAGES);
        here.deregister(2);
    }
    (1..=5).for_each(|number| here.register(2, number));
    deliver(&mut here, &mut there);
    here.add_rail(2);
    there.add_rail(2);
    let reset = here.next_changes();
    assert_eq!((reset.rail, reset.change), (2, Change::Reset), "older removals are forgotten");
    there.take(RegionFrame::Changes(reset));
    deliver(&mut here, &mut there);
    assert_eq!(there.known(2), here.own(2));
    assert_eq!((there.known(2).len(), there.known(0).len()), (5, 0));
}

/// As a lost peer gets it: the first rail is left as it is.
#[test]
fn a_reset_is_of_its_rail_alone() {
    let mut here = End::with_rails([1]);
    let add = |rail, id: u64| {
        let entry = crate::control::wire::AnnouncedRegion {
            id,
            base: id << 12,
            size: 1 << 12,
            flags: 0,
            rkey: Some(id as u32),
            first_rkey: None,
        };
        RegionChanges { version: id, rail, change: Change::Add, entries: vec![entry] }
    };
    for changes in [add(0, 1), add(0, 2), add(1, 3)] {
        here.take(RegionFrame::Changes(changes));
    }
    let reset = RegionChanges { version: 5, rail: 1, change: Change::Reset, entries: Vec::new() };
    here.take(RegionFrame::Changes(reset));
    here.take(RegionFrame::Changes(add(1, 5)));
    assert_eq!((here.known(0), here.known(1)), (vec![1, 2], vec![5]));
    // Versions are of the rail, too: that of the first is behind.
    here.take(RegionFrame::Changes(add(0, 4)));
    assert_eq!(here.known(0), [1, 2, 4]);
}

#[test]
fn a_rail_with_many_regions_does_not_starve_the_others() {
    for busy in [0, 1] {
        let mut here = End::with_rails([1, 2, 5]);
        many(&mut here, busy, 6);
        for rail in [0, 1, 2, 5].into_iter().filter(|rail| *rail != busy) {
            here.register(rail, 7);
        }
        let rails: Vec<_> = (0..9).map(|_| here.next_changes().rail).collect();
        let first_of = |rail| rails.iter().position(|sent| *sent == rail);
        for rail in [0, 1, 2, 5] {
            assert!(first_of(rail).is_some_and(|at| at < 4), "rail {rail}: {rails:?}");
        }
        assert_eq!(rails.iter().filter(|rail| **rail == busy).count(), 6, "{rails:?}");
        assert_eq!(here.next(), None);
    }
}

/// Two rails with many: each second frame.
#[test]
fn busy_rails_take_turns() {
    let mut here = End::with_rails([3]);
    many(&mut here, 0, 4);
    many(&mut here, 3, 4);
    let rails: Vec<_> = (0..8).map(|_| here.next_changes().rail).collect();
    assert_eq!(rails, [0, 3, 0, 3, 0, 3, 0, 3]);
}

#[test]
fn a_sync_is_answered_once_the_first_rail_is_told() {
    let mut here = End::with_rails([1, 2]);
    many(&mut here, 1, 3);
    many(&mut here, 2, 3);
    assert_eq!(here.next_changes().rail, 1);
    many(&mut here, 0, 2);
    here.take(RegionFrame::Sync(4));
    // After the question.
    here.register(0, 1);
    assert_eq!([here.next_changes().rail, here.next_changes().rail], [0, 0], "before the others");
    assert_eq!(here.next(), Some(RegionFrame::Synced(4)));
    let mut rails = Vec::new();
    while let Some(RegionFrame::Changes(changes)) = here.next() {
        rails.push(changes.rail);
    }
    rails.sort_unstable();
    assert_eq!(rails, [0, 1, 1, 2, 2, 2], "what is left comes behind the answer");
}

/// A question does not end the pauses of further rails.
#[test]
fn a_sync_does_not_wait_for_a_pause_nor_end_that_of_a_rail() {
    let mut here = End::with_rails([1]);
    here.register(0, 1);
    here.register(1, 1);
    assert_eq!([here.next_changes().rail, here.next_changes().rail], [0, 1]);
    here.register(0, 2);
    here.register(1, 2);
    here.exchange.first.pause = Some(Instant::now() + Duration::from_secs(600));
    here.exchange.further[0].as_mut().unwrap().pause = here.exchange.first.pause;
    assert_eq!(here.exchange.next(), None);
    assert_eq!(here.exchange.deadline(), here.exchange.first.pause);
    here.take(RegionFrame::Sync(1));
    assert!(matches!(here.exchange.next(), Some(RegionFrame::Changes(changes)) if changes.rail == 0));
    assert_eq!(here.exchange.next(), Some(RegionFrame::Synced(1)));
    assert_eq!(here.exchange.next(), None);
    let soonest = here.exchange.deadline().unwrap();
    assert!(soonest < Instant::now() + Duration::from_secs(1), "the first of the pauses");
}

/// Whatever changes meanwhile, it is one set of changes once the peer reads: nothing is kept for it but its place in the histories.
#[test]
fn a_peer_that_does_not_read_gets_what_there_is_then() {
    let (mut here, mut there) = (End::with_rails([1]), End::with_rails([1]));
    for round in 0..10_000 {
        for rail in [0, 1] {
            here.register(rail, round % PAGES);
            if round >= 3 {
                here.deregister(rail);
            }
        }
    }
    let mut frames = 0;
    while let Some(frame) = here.next() {
        frames += 1;
        there.take(frame);
    }
    assert!(frames <= 4, "{frames} frames");
    for rail in [0, 1] {
        assert_eq!((there.known(rail).len(), there.known(rail)), (3, here.own(rail)));
    }
}

#[test]
fn a_rail_is_added_once_and_changes_of_others_have_no_place() {
    let mut here = End::with_rails([1]);
    let add_again = |here: &mut End, rail| {
        let local = here.rails[&0].subscribe(Cursor::default(), Arc::default());
        here.exchange.add_rail(rail, local, Arc::new(RemoteRegions::of_rail()))
    };
    for rail in [0, 1, 8, 255] {
        assert!(!add_again(&mut here, rail), "rail {rail}");
    }
    assert!(add_again(&mut here, 7));
    let there: Vec<_> = (0..=255).filter(|rail| here.exchange.remote(*rail).is_some()).collect();
    assert_eq!(there, [0, 1, 7]);
    let early = RegionChanges { version: 1, rail: 2, change: Change::Add, entries: Vec::new() };
    let received = here.exchange.receive(RegionFrame::Changes(early)).unwrap();
    assert!(here.exchange.remote(received.rail).is_none(), "it is dropped");
}

/// The task is woken for each rail's regions.
#[test]
fn regions_of_a_further_rail_wake_the_task() {
    let (mut here, wakeup) = (End::new(), Arc::new(Wakeup::default()));
    let announced = Arc::new(Announced::default());
    let local = announced.subscribe(Cursor::default(), Arc::clone(&wakeup));
    assert!(here.exchange.add_rail(4, local, Arc::new(RemoteRegions::of_rail())));
    assert_eq!(here.next(), None);
    announced.add(&[region(4, 1)]);
    futures_lite::future::block_on(wakeup.wait());
    assert_eq!(here.next_changes().rail, 4);
}

/// What happens at one of two ends.
#[derive(Clone, Debug)]
enum Step {
    Register {
        here: bool,
        rail: u8,
    },
    Deregister {
        here: bool,
        rail: u8,
    },
    /// Frames of one end reach the other.
    Deliver {
        here: bool,
        frames: usize,
    },
    Ask {
        here: bool,
    },
    AddRail(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let rail = 0u8..4;
    prop_oneof![
        4 => (any::<bool>(), rail.clone()).prop_map(|(here, rail)| Step::Register { here, rail }),
        2 => (any::<bool>(), rail).prop_map(|(here, rail)| Step::Deregister { here, rail }),
        2 => (any::<bool>(), 1..4_usize).prop_map(|(here, frames)| Step::Deliver { here, frames }),
        1 => any::<bool>().prop_map(|here| Step::Ask { here }),
        1 => (1u8..4).prop_map(Step::AddRail),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the order, both ends know in the end what the other has, rail by rail, and of the first when a Sync is answered.
    #[test]
    fn both_ends_know_all_rails_in_the_end(steps in prop::collection::vec(step(), 1..80)) {
        let mut ends = [End::new(), End::new()];
        let mut used = [0; 2];
        for end in &mut ends {
            end.rails.extend((1..4).map(|rail| (rail, Arc::default())));
        }
        // What an end had on the first rail when it was asked last, and how often the other has asked.
        let mut had: [Option<(u64, Vec<u32>)>; 2] = [None, None];
        let mut number = 0;
        for step in steps {
            match step {
                // A page once, so that keys are those of live regions.
                Step::Register { here, rail } => {
                    used[usize::from(here)] += 1;
                    ends[usize::from(here)].register(rail, used[usize::from(here)]);
                }
                Step::Deregister { here, rail } => ends[usize::from(here)].deregister(rail),
                Step::Deliver { here, frames } => {
                    let (from, to) = (usize::from(here), usize::from(!here));
                    for _ in 0..frames {
                        let Some(frame) = ends[from].exchange.next() else { break };
                        if let (RegionFrame::Synced(answered), Some((asked, had))) = (&frame, &had[from])
                            && answered == asked
                        {
                            let known = ends[to].known(0);
                            // What it has had and has no more may be gone as well.
                            let own = ends[from].own(0);
                            prop_assert!(had.iter().all(|key| known.contains(key) || !own.contains(key)));
                        }
                        ends[to].take(frame);
                    }
                }
                Step::Ask { here } => {
                    number += 1;
                    let asked = usize::from(here);
                    had[asked] = Some((number, ends[asked].own(0)));
                    ends[asked].take(RegionFrame::Sync(number));
                }
                Step::AddRail(rail) => {
                    if ends[0].exchange.remote(rail).is_none() {
                        ends.iter_mut().for_each(|end| end.add_rail(rail));
                    }
                }
            }
        }
        let [here, there] = &mut ends;
        deliver(here, there);
        for rail in (0..4).filter(|rail| here.exchange.remote(*rail).is_some()) {
            prop_assert_eq!(here.known(rail), there.own(rail));
            prop_assert_eq!(there.known(rail), here.own(rail));
        }
    }
}

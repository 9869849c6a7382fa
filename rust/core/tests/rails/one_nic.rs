//! An end with fewer NICs than the other one: its NIC serves another rail once that of the peer is lost.

use std::time::Duration;

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::RegisteredBuffer;
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::observe::{RailInfo, RailStatus};
use flagcx_p2p::internals::transfer::{Iov, Outcome, TransferId};

use crate::alone;
use crate::nics::{Nics, moved, nic_number, up};
use crate::rail_pair::{GUARD, RailPair};
use crate::support::own_time::OwnTime;
use crate::support::{blocks, content, eventually, outcome};

/// A rail is made in milliseconds; a busy machine adds to that. A transfer may take 10 s.
const SOON: Duration = Duration::from_secs(3);

/// Transfers of so many bytes do not have a second rail made by themselves.
const EACH: u64 = 256 << 10;
const COUNT: u64 = 12;
const WRITTEN: usize = (COUNT * EACH) as usize;

/// Transfers of one end.
#[derive(Clone, Copy, Debug)]
struct Way {
    opcode: Opcode,
    /// The end that was connected to starts them.
    is_there: bool,
}

const WAYS: [Way; 4] = [
    Way { opcode: Opcode::Write, is_there: false },
    Way { opcode: Opcode::Read, is_there: false },
    Way { opcode: Opcode::Write, is_there: true },
    Way { opcode: Opcode::Read, is_there: true },
];

impl Way {
    fn connection(self, pair: &RailPair) -> &Connection {
        if self.is_there { &pair.there } else { &pair.here }
    }

    /// The memory of the end that starts, and that of the other one.
    fn memory(self, pair: &RailPair) -> (&RegisteredBuffer, &RegisteredBuffer) {
        if self.is_there { (&pair.target, &pair.source) } else { (&pair.source, &pair.target) }
    }

    /// Where the bytes come from, and where they go.
    fn ends(self, pair: &RailPair) -> (&RegisteredBuffer, &RegisteredBuffer) {
        let (own, other) = self.memory(pair);
        if self.opcode == Opcode::Write { (own, other) } else { (other, own) }
    }

    fn fill(self, pair: &RailPair, seed: u64) -> Vec<u8> {
        let (from, to) = self.ends(pair);
        let bytes = blocks(seed, WRITTEN);
        assert!(from.write(0, &bytes) && to.write(0, &vec![GUARD; WRITTEN]));
        bytes
    }

    fn start(self, pair: &RailPair) -> Vec<TransferId> {
        let (own, other) = self.memory(pair);
        let part = |at: u64| {
            let (local, address) = (own.address() + at * EACH, other.address() + at * EACH);
            let remote = self.connection(pair).describe_remote(address, EACH as u32).unwrap();
            let iov = Iov { local, length: EACH, region: Some(own.region()), remote };
            self.connection(pair).submit(self.opcode, &[iov][..]).unwrap()
        };
        (0..COUNT).map(part).collect()
    }

    fn finish(self, pair: &RailPair, ids: Vec<TransferId>, bytes: &[u8], what: &str) {
        let connection = self.connection(pair);
        for id in ids {
            assert_eq!(outcome(connection, id), Outcome::Done, "{what}: {:#?}", connection.rails());
        }
        assert!(content(self.ends(pair).1)[..WRITTEN] == *bytes, "{what}: other bytes");
    }

    fn check(self, pair: &RailPair, seed: u64, what: &str) {
        let bytes = self.fill(pair, seed);
        self.finish(pair, self.start(pair), &bytes, what);
    }
}

/// A connection with one rail, of which both ends know all NICs.
fn pair(near: u32, far: u32) -> RailPair {
    let pair = RailPair::new(near, far);
    eventually("the NICs are known", || {
        [&pair.here, &pair.there].iter().all(|end| !end.rails()[0].peer_nic.is_empty())
    });
    pair
}

/// The only rail that works.
fn working(pair: &RailPair) -> RailInfo {
    let found = up(&pair.here);
    assert_eq!(found.len(), 1, "{found:#?}");
    found[0].clone()
}

/// The end with several NICs: its NICs, and the number of that in use.
fn used(pair: &RailPair) -> (&Nics, usize) {
    let rail = working(pair);
    match pair.near.devices.len() {
        1 => (&pair.far, nic_number(&rail.peer_nic)),
        _ => (&pair.near, nic_number(&rail.nic)),
    }
}

fn rails_of_both(pair: &RailPair) -> [usize; 2] {
    [pair.here.rails().len(), pair.there.rails().len()]
}

/// Both ends go on over a further rail.
fn expect_rails(pair: &RailPair, count: usize, what: &str) {
    eventually("there is another rail", || {
        rails_of_both(pair) == [count; 2] && [&pair.here, &pair.there].iter().all(|end| up(end).len() == 1)
    });
    assert!(pair.here.is_usable() && pair.there.is_usable(), "{what}");
}

#[test]
fn while_the_first_rail_works_a_nic_has_no_other_one() {
    let _alone = alone();
    for (near, far) in [(1, 3), (3, 1)] {
        let pair = pair(near, far);
        for seed in 0..8 {
            pair.check_all(if seed % 2 == 0 { Opcode::Write } else { Opcode::Read }, seed);
        }
        assert_eq!(rails_of_both(&pair), [1, 1], "{near} and {far}");
    }
}

/// Nothing would ask for a rail. Afterwards either end can move bytes; and so on, until no NIC is left.
#[test]
fn an_idle_connection_outlives_all_devices_of_the_larger_end_but_one() {
    let _alone = alone();
    for (near, far) in [(1, 3), (3, 1)] {
        let pair = pair(near, far);
        for lost in 1..3 {
            let (nics, nic) = used(&pair);
            let time = OwnTime::start();
            nics.lose(nic);
            let what = format!("{near} and {far} NICs, {lost} lost");
            expect_rails(&pair, 1 + lost, &what);
            println!("{what}: another rail after {:?}", time.elapsed());
            assert!(time.elapsed() < SOON, "{what}: it took {:?}", time.elapsed());
            for (seed, way) in WAYS.into_iter().enumerate() {
                way.check(&pair, seed as u64, &what);
            }
        }
        let (nics, nic) = used(&pair);
        let time = OwnTime::start();
        nics.lose(nic);
        eventually("both ends end", || !pair.here.is_usable() && !pair.there.is_usable());
        assert!(time.elapsed() < SOON, "it took {:?}", time.elapsed());
    }
}

#[test]
fn what_is_under_way_goes_on_over_another_nic_of_the_larger_end() {
    let _alone = alone();
    for ((near, far), way) in
        [(1, 2), (2, 1), (1, 3), (3, 1)].into_iter().flat_map(|nics| WAYS.map(|way| (nics, way)))
    {
        let (pair, what) = (pair(near, far), format!("{near} and {far} NICs, {way:?}"));
        let bytes = way.fill(&pair, 1);
        let starting = if way.is_there { &pair.far } else { &pair.near };
        let rail = working(&pair);
        let held = nic_number(if way.is_there { &rail.peer_nic } else { &rail.nic });
        starting.switches(held).set_silent(true);
        let ids = way.start(&pair);
        let ((nics, nic), time) = (used(&pair), OwnTime::start());
        nics.lose(nic);
        let is_down = |end: &Connection| end.rails()[0].status == RailStatus::Down;
        eventually("the rail is down at both ends", || is_down(&pair.here) && is_down(&pair.there));
        // It may be the only NIC of its end, which is to go on.
        starting.switches(held).set_silent(false);
        way.finish(&pair, ids, &bytes, &what);
        println!("{what}: done {:?} after the device was lost", time.elapsed());
        assert!(time.elapsed() < SOON, "{what}: it took {:?}", time.elapsed());
        assert!(moved(way.connection(&pair)) > 0, "{what}: {:#?}", way.connection(&pair).rails());
        // Nothing of the lost device comes later.
        assert!(way.ends(&pair).1.write(0, &vec![GUARD; WRITTEN]));
        std::thread::sleep(Duration::from_millis(10));
        assert!(content(way.ends(&pair).1)[..WRITTEN] == vec![GUARD; WRITTEN], "{what}: written later");
        expect_rails(&pair, 2, &what);
        for (seed, way) in WAYS.into_iter().enumerate() {
            way.check(&pair, 2 + seed as u64, &what);
        }
    }
}

/// A pair that was tried in vain gives way to the next one, whichever end has lost its device: the other one may not know that yet.
#[test]
fn a_nic_that_does_not_reach_the_single_one_gives_way_to_the_next() {
    let _alone = alone();
    for (near, far) in [(1, 3), (3, 1)] {
        for unreached in 0..3 {
            let pair = pair(near, far);
            let (nics, nic) = used(&pair);
            if unreached == nic {
                continue;
            }
            let single = if near == 1 { &pair.near } else { &pair.far };
            single.switches(0).set_unreachable(1 << unreached);
            nics.switches(unreached).set_unreachable(1);
            let time = OwnTime::start();
            nics.lose(nic);
            let what = format!("{near} and {far} NICs, number {unreached} does not reach the single one");
            eventually("there is another rail", || {
                [&pair.here, &pair.there].iter().all(|end| up(end).len() == 1)
            });
            println!("{what}: another rail after {:?}", time.elapsed());
            assert!(time.elapsed() < SOON, "{what}: it took {:?}", time.elapsed());
            for (seed, way) in WAYS.into_iter().enumerate() {
                way.check(&pair, seed as u64, &what);
            }
        }
    }
}

/// Memory that is registered later has keys there too.
#[test]
fn memory_registered_on_the_further_rail_of_the_first_nic_is_reached() {
    let _alone = alone();
    for (near, far) in [(1, 2), (2, 1)] {
        let pair = pair(near, far);
        let (nics, nic) = used(&pair);
        nics.lose(nic);
        expect_rails(&pair, 2, "lost");
        let one = if near == 1 { &pair.client } else { &pair.server };
        let memory = one.allocate(1 << 20).unwrap();
        let (other, own) = if near == 1 { (&pair.there, &pair.target) } else { (&pair.here, &pair.source) };
        let bytes = blocks(7, 1 << 20);
        assert!(own.write(0, &bytes));
        eventually("it is announced", || other.describe_remote(memory.address(), 1 << 20).is_some());
        let remote = other.describe_remote(memory.address(), 1 << 20).unwrap();
        let iov = Iov { local: own.address(), length: 1 << 20, region: Some(own.region()), remote };
        let mut started = None;
        eventually("it is announced on the rail", || {
            started = other.submit(Opcode::Write, &[iov][..]).ok();
            started.is_some()
        });
        assert_eq!(outcome(other, started.unwrap()), Outcome::Done, "{near} and {far}: {:#?}", other.rails());
        assert!(content(&memory) == bytes, "{near} and {far} NICs");
    }
}

/// Each end has lost a NIC, and what is left was not a pair.
#[test]
fn nics_that_lost_their_rails_at_different_ends_form_one() {
    let _alone = alone();
    for lost in [["near", "far"], ["far", "near"]] {
        let pair = pair(2, 2);
        pair.make_rails(2);
        eventually("both ends have them", || up(&pair.there).len() == 2);
        for (rail, end) in lost.into_iter().enumerate() {
            let rail = &pair.here.rails()[rail];
            match end {
                "near" => pair.near.lose(nic_number(&rail.nic)),
                _ => pair.far.lose(nic_number(&rail.peer_nic)),
            }
            eventually("a rail works at both ends", || {
                [&pair.here, &pair.there].iter().all(|end| up(end).len() == 1)
            });
        }
        let what = format!("lost: {lost:?}");
        for (seed, way) in WAYS.into_iter().enumerate() {
            way.check(&pair, seed as u64, &what);
        }
        assert!(pair.here.is_usable() && pair.there.is_usable(), "{what}");
    }
}

/// One soon after the other, while lanes of the second rail are still being made.
#[test]
fn what_is_started_goes_on_when_both_rails_lose_a_nic() {
    let _alone = alone();
    for round in 0..16 {
        let (pair, way) = (pair(2, 2), WAYS[round % WAYS.len()]);
        pair.make_rails(2);
        eventually("both ends have them", || up(&pair.there).len() == 2);
        let what = format!("round {round}, {way:?}");
        let bytes = way.fill(&pair, round as u64);
        let rails = pair.here.rails();
        let lost = [nic_number(&rails[0].nic), nic_number(&rails[1].peer_nic)];
        let mut started = way.start(&pair);
        pair.near.lose(lost[0]);
        match round / WAYS.len() {
            0 => {}
            1 => started.extend(way.start(&pair)),
            _ => eventually("one rail is down", || {
                [&pair.here, &pair.there].iter().all(|end| up(end).len() == 1)
            }),
        }
        pair.far.lose(lost[1]);
        started.extend(way.start(&pair));
        way.finish(&pair, started, &bytes, &what);
        // Nothing of the lost devices comes later.
        assert!(way.ends(&pair).1.write(0, &vec![GUARD; WRITTEN]));
        std::thread::sleep(Duration::from_millis(10));
        assert!(content(way.ends(&pair).1)[..WRITTEN] == vec![GUARD; WRITTEN], "{what}: written later");
        for (seed, way) in WAYS.into_iter().enumerate() {
            way.check(&pair, seed as u64, &what);
        }
        assert!(pair.here.is_usable() && pair.there.is_usable(), "{what}");
    }
}

#[test]
fn an_end_that_wants_one_rail_has_no_other_one() {
    let _alone = alone();
    for settings in [[&[("FLAGCX_P2P_RAILS", "1")][..], &[]], [&[], &[("FLAGCX_P2P_RAILS", "1")][..]]] {
        let pair = RailPair::with([1, 2], None, settings);
        let nic = nic_number(&pair.there.rails()[0].nic);
        let time = OwnTime::start();
        pair.far.lose(nic);
        eventually("both ends end", || !pair.here.is_usable() && !pair.there.is_usable());
        assert!(time.elapsed() < SOON, "it took {:?}", time.elapsed());
    }
}

//! Ends that differ: one that wants one rail, numbers of NICs that are not the same, and both ends at once.

use std::time::Duration;

use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::transfer::{Iov, Outcome};

use crate::alone;
use crate::nics::{carried, up};
use crate::rail_pair::{LENGTH, RailPair};
use crate::support::{content, eventually, outcome};

const ONE_RAIL: &[(&str, &str)] = &[("FLAGCX_P2P_RAILS", "1")];
const THREE_RAILS: &[(&str, &str)] = &[("FLAGCX_P2P_RAILS", "3")];

/// Transfers that would make further rails.
fn ask_for_rails(pair: &RailPair) {
    for seed in 0..8 {
        pair.check_all(if seed % 2 == 0 { Opcode::Write } else { Opcode::Read }, seed);
    }
    // What is asked for is answered, in one way or the other.
    std::thread::sleep(Duration::from_millis(100));
}

#[test]
fn an_end_that_wants_one_rail_gets_one() {
    let _alone = alone();
    for settings in [[ONE_RAIL, &[]], [&[], ONE_RAIL], [ONE_RAIL, ONE_RAIL]] {
        let pair = RailPair::with([8, 8], None, settings);
        ask_for_rails(&pair);
        assert_eq!([pair.here.rails().len(), pair.there.rails().len()], [1, 1]);
        assert_eq!(carried(&pair.here)[0], 8 * LENGTH as u64);
    }
}

#[test]
fn no_end_gets_more_rails_than_it_wants() {
    let _alone = alone();
    for settings in [[THREE_RAILS, &[]], [&[], THREE_RAILS]] {
        let pair = RailPair::with([8, 8], None, settings);
        ask_for_rails(&pair);
        assert!(pair.here.rails().len() <= 3 && pair.there.rails().len() <= 3, "{:#?}", pair.here.rails());
        pair.make_rails(3);
    }
}

#[test]
fn an_end_with_one_nic_has_one_rail() {
    let _alone = alone();
    for (near, far) in [(1, 1), (1, 2), (2, 1)] {
        let pair = RailPair::new(near, far);
        ask_for_rails(&pair);
        assert_eq!([pair.here.rails().len(), pair.there.rails().len()], [1, 1], "{near} to {far}");
    }
}

/// The NICs of the smaller end serve several rails.
#[test]
fn ends_with_different_numbers_of_nics_use_all_of_them() {
    let _alone = alone();
    for (near, far) in [(2, 8), (8, 2), (3, 5)] {
        let pair = RailPair::new(near, far);
        pair.make_rails(near.max(far) as usize);
        expect_all_used(&pair);
        let rails = pair.here.rails();
        let names = |of: fn(&flagcx_p2p::internals::observe::RailInfo) -> &String| {
            let mut names: Vec<_> = rails.iter().map(|rail| of(rail).clone()).collect();
            names.sort();
            names.dedup();
            names.len() as u32
        };
        assert_eq!((names(|rail| &rail.nic), names(|rail| &rail.peer_nic)), (near, far), "{rails:#?}");
    }
}

/// Each rail carries something before long: which ones a transfer takes depends on rates that were measured.
fn expect_all_used(pair: &RailPair) {
    let before = carried(&pair.here);
    let is_used = |pair: &RailPair| carried(&pair.here).iter().zip(&before).all(|(now, before)| now > before);
    for seed in 0..40 {
        pair.check_all(if seed % 2 == 0 { Opcode::Write } else { Opcode::Read }, seed);
        if seed > 3 && is_used(pair) {
            return;
        }
    }
    panic!("a rail carries nothing: {:#?}", pair.here.rails());
}

/// Both ends name the same rails, and both start transfers over them.
#[test]
fn the_end_that_was_connected_to_uses_the_rails_too() {
    let _alone = alone();
    let pair = RailPair::with_rails(4, 4, 4);
    eventually("both ends have them", || up(&pair.there).len() == 4);
    for (here, there) in pair.here.rails().iter().zip(pair.there.rails()) {
        assert_eq!((here.rail, &here.nic, &here.peer_nic), (there.rail, &there.peer_nic, &there.nic));
    }
    let bytes = pair.fill(Opcode::Read, 1);
    let remote = pair.there.describe_remote(pair.source.address(), LENGTH as u32).unwrap();
    let region = Some(pair.target.region());
    let iov = Iov { local: pair.target.address(), length: LENGTH as u64, region, remote };
    eventually("each rail is used by that end", || {
        let id = pair.there.submit(Opcode::Write, &[iov][..]).unwrap();
        assert_eq!(outcome(&pair.there, id), Outcome::Done);
        carried(&pair.there).iter().all(|bytes| *bytes > 0)
    });
    assert!(content(&pair.source) == bytes);
}

/// The follower may ask for rails: only it has something to move.
#[test]
fn the_end_that_was_connected_to_gets_rails_that_it_needs() {
    let _alone = alone();
    let pair = RailPair::new(2, 2);
    pair.fill(Opcode::Read, 1);
    pair.make_rails_there(2);
}

#[test]
fn many_connections_of_one_engine_have_rails_of_their_own() {
    let _alone = alone();
    let pair = RailPair::with_rails(2, 2, 2);
    let others: Vec<_> = (0..4).map(|_| crate::support::connect(&pair.client, &pair.server)).collect();
    let bytes = pair.fill(Opcode::Write, 1);
    let iov = pair.iov(0, 0, LENGTH as u64);
    eventually("each has two rails", || {
        for (here, _) in &others {
            let id = here.submit(Opcode::Write, &[iov][..]).unwrap();
            assert_eq!(outcome(here, id), Outcome::Done);
        }
        others.iter().all(|(here, _)| up(here).len() == 2)
    });
    assert!(content(&pair.target) == bytes);
    drop(others);
    pair.check_all(Opcode::Read, 2);
}

//! A connection with one rail of which the device is lost: it goes on over other NICs, if there are some.

use std::time::Duration;

use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::observe::RailStatus;
use flagcx_p2p::internals::transfer::Outcome;

use crate::alone;
use crate::nics::{Nics, moved, nic_number};
use crate::rail_pair::RailPair;
use crate::support::own_time::OwnTime;
use crate::support::{content, eventually, outcome};

/// A rail is made in milliseconds; a busy machine adds to that. A transfer may take 10 s.
const SOON: Duration = Duration::from_secs(3);
/// The time after which it is given up, the drain, and what a busy machine adds.
const GIVEN_UP: Duration = Duration::from_secs(8 + 2 + 3);

/// Transfers of so many bytes do not have a second rail made by themselves.
const EACH: u64 = 256 << 10;
const COUNT: u64 = 12;

fn nics_of<'a>(pair: &'a RailPair, end: &str) -> &'a Nics {
    if end == "near" { &pair.near } else { &pair.far }
}

/// A connection with one rail, of which both ends know all NICs.
fn pair(near: u32, far: u32) -> RailPair {
    let pair = RailPair::new(near, far);
    eventually("the NICs are known", || {
        [&pair.here, &pair.there].iter().all(|end| !end.rails()[0].peer_nic.is_empty())
    });
    pair
}

#[test]
fn what_is_under_way_goes_on_over_the_next_nic() {
    let _alone = alone();
    for (end, opcode) in
        [("near", Opcode::Write), ("near", Opcode::Read), ("far", Opcode::Write), ("far", Opcode::Read)]
    {
        // On a busy machine what waits may have another rail made before that.
        let is_met = (0..20).any(|_| lose_the_only_device(end, opcode));
        assert!(is_met, "{end}, {opcode:?}: there was another rail each time");
    }
}

/// Whether it had the only rail when it was lost.
fn lose_the_only_device(end: &str, opcode: Opcode) -> bool {
    let pair = pair(2, 2);
    let bytes = pair.fill(opcode, 1);
    let nic = nic_number(&pair.here.rails()[0].nic);
    pair.near.switches(nic).set_silent(true);
    let part = |at: u64| pair.submit(opcode, &[pair.iov(at * EACH, at * EACH, EACH)]);
    let ids: Vec<_> = (0..COUNT).map(part).collect();
    nics_of(&pair, end).lose(nic);
    let (is_only, time) = (pair.here.rails().len() == 1, OwnTime::start());
    for id in ids {
        assert_eq!(outcome(&pair.here, id), Outcome::Done, "{end}, {opcode:?}: {:#?}", pair.here.rails());
    }
    println!("{end}, {opcode:?}: done {:?} after the device was lost", time.elapsed());
    assert!(time.elapsed() < SOON, "{end}, {opcode:?}: it took {:?}", time.elapsed());
    let written = (COUNT * EACH) as usize;
    assert!(content(pair.ends(opcode).1)[..written] == bytes[..written], "{end}, {opcode:?}");
    assert!(moved(&pair.here) > 0, "{:#?}", pair.here.rails());
    // Nothing of the lost device comes later.
    pair.near.switches(nic).set_silent(false);
    for seed in 2..5 {
        let bytes = pair.fill(opcode, seed);
        let id = pair.submit_all(opcode);
        pair.check_done(opcode, id, &bytes, Duration::from_millis(10));
    }
    assert!(pair.here.is_usable() && pair.there.is_usable(), "{end}, {opcode:?}");
    eventually("the lost rail is down at both ends", || {
        [&pair.here, &pair.there].iter().all(|end| end.rails()[0].status == RailStatus::Down)
    });
    is_only
}

/// Nothing would ask for a rail. Afterwards either end can move bytes.
#[test]
fn an_idle_connection_gets_a_rail_over_the_next_nic() {
    let _alone = alone();
    for end in ["near", "far"] {
        let pair = pair(2, 2);
        let nic = nic_number(&pair.here.rails()[0].nic);
        let time = OwnTime::start();
        nics_of(&pair, end).lose(nic);
        eventually("there is another rail", || pair.here.rails().len() == 2 && pair.there.rails().len() == 2);
        println!("{end}: another rail {:?} after the device was lost", time.elapsed());
        assert!(pair.here.is_usable() && pair.there.is_usable(), "{end}");
        for seed in 0..4 {
            pair.check_all(if seed % 2 == 0 { Opcode::Write } else { Opcode::Read }, seed);
        }
        pair.make_rails_there(1);
    }
}

/// The next transfer is started in the moment of the loss.
#[test]
fn transfers_that_begin_meanwhile_wait_for_the_rail() {
    let _alone = alone();
    for end in ["near", "far"] {
        let pair = pair(2, 2);
        let bytes = pair.fill(Opcode::Write, 1);
        let nic = nic_number(&pair.here.rails()[0].nic);
        nics_of(&pair, end).lose(nic);
        let part = |at: u64| pair.submit(Opcode::Write, &[pair.iov(at * EACH, at * EACH, EACH)]);
        let ids: Vec<_> = (0..COUNT).map(part).collect();
        ids.into_iter().for_each(|id| assert_eq!(outcome(&pair.here, id), Outcome::Done, "{end}"));
        let written = (COUNT * EACH) as usize;
        assert!(content(&pair.target)[..written] == bytes[..written], "{end}");
    }
}

/// Each rail is the only one when its device is lost.
#[test]
fn devices_are_lost_one_after_the_other() {
    let _alone = alone();
    let pair = pair(4, 4);
    for (seed, end) in ["near", "far", "near"].into_iter().enumerate() {
        let working = pair.here.rails().into_iter().rfind(|rail| rail.status == RailStatus::Up).unwrap();
        let nic = if end == "near" { &working.nic } else { &working.peer_nic };
        nics_of(&pair, end).lose(nic_number(nic));
        pair.check_all(Opcode::Write, seed as u64);
        assert!(pair.here.is_usable() && pair.there.is_usable(), "{seed}");
    }
}

#[test]
fn without_other_nics_the_connection_ends_at_once() {
    let _alone = alone();
    for (near, far, end) in [(2, 1, "far"), (1, 2, "near"), (1, 1, "near")] {
        let pair = RailPair::new(near, far);
        let nic = nic_number(&pair.here.rails()[0].nic);
        let time = OwnTime::start();
        nics_of(&pair, end).lose(nic);
        eventually("both ends end", || !pair.here.is_usable() && !pair.there.is_usable());
        println!("{near} and {far} NICs: ended after {:?}", time.elapsed());
        assert!(time.elapsed() < SOON, "it took {:?}", time.elapsed());
    }
}

/// All others are refused: it ends at once. Or they do not reach each other, which takes some trials: it ends in bounded time. And says why.
#[test]
fn if_no_rail_can_be_made_the_connection_ends() {
    let _alone = alone();
    for (what, end) in [("lost", "near"), ("ports", "far"), ("paths", "near"), ("paths", "far")] {
        let pair = pair(2, 2);
        let nic = nic_number(&pair.here.rails()[0].nic);
        let other = 1 - nic;
        match what {
            "lost" => nics_of(&pair, end).lose(other),
            "ports" => nics_of(&pair, end).set_port(other, false),
            _ => pair.near.switches(other).set_unreachable(u64::MAX),
        }
        pair.near.switches(nic).set_silent(true);
        let id = pair.submit(Opcode::Write, &[pair.iov(0, 0, EACH)]);
        let time = OwnTime::start();
        nics_of(&pair, end).lose(nic);
        let ended = outcome(&pair.here, id);
        assert!(matches!(ended, Outcome::Failed(_)), "{what}, {end}: {ended:?}");
        eventually("both ends end", || !pair.here.is_usable() && !pair.there.is_usable());
        println!("{what}, {end}: {ended:?} after {:?}", time.elapsed());
        let limit = if what == "paths" { GIVEN_UP } else { SOON };
        assert!(time.elapsed() < limit, "{what}, {end}: it took {:?}", time.elapsed());
    }
}

//! A further rail has one lane, at both ends, until one of them uses it.

use std::time::Duration;

use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::observe::RailStatus;
use flagcx_p2p::internals::transfer::{Iov, Outcome};

use crate::alone;
use crate::nics::{carried, has_all_lanes, lanes, nic_number, up};
use crate::rail_pair::RailPair;
use crate::support::own_time::OwnTime;
use crate::support::{eventually, outcome};

/// Bytes of each buffer.
const LENGTH: usize = 8 << 20;

/// Lanes of the first rail, by default.
const LANES: usize = 4;

/// A part moves in milliseconds. A transfer may take 10 s.
const MOVED: Duration = Duration::from_secs(2);

/// A pair with a second rail, which is asked as any that is new, and has carried nothing.
fn unused() -> RailPair {
    let pair = RailPair::of_length(LENGTH, [2, 2], None, [&[], &[]]);
    eventually("the NICs are known", || !pair.here.rails()[0].peer_nic.is_empty());
    pair.here.add_rails_now();
    eventually("both ends have a second rail", || up(&pair.here).len() == 2 && up(&pair.there).len() == 2);
    // Lanes that were made with the first one would be there by then.
    std::thread::sleep(Duration::from_millis(50));
    expect_one(&pair);
    pair
}

fn expect_one(pair: &RailPair) {
    for end in [&pair.here, &pair.there] {
        let (rail, info) = (end.rails().remove(1), end.info());
        assert_eq!((rail.lanes, rail.healthy_lanes), (1, 1), "{rail:#?}");
        assert_eq!((info.lanes, info.healthy_lanes), (LANES + 1, LANES + 1), "{info:?}");
    }
}

/// Both ends have all lanes of all rails before long.
fn expect_all(pair: &RailPair) {
    eventually("both ends have all lanes", || has_all_lanes(&pair.here) && has_all_lanes(&pair.there));
    assert_eq!(pair.here.info().lanes, LANES + LANES + 1);
}

/// The end that was connected to moves all bytes.
fn move_back(pair: &RailPair) {
    let remote = pair.there.describe_remote(pair.source.address(), LENGTH as u32).unwrap();
    let region = Some(pair.target.region());
    let iov = Iov { local: pair.target.address(), length: LENGTH as u64, region, remote };
    let id = pair.there.submit(Opcode::Write, &[iov][..]).unwrap();
    assert_eq!(outcome(&pair.there, id), Outcome::Done);
}

/// Until the second rail is used by this end.
fn use_second(pair: &RailPair, leads: bool) {
    let user = if leads { &pair.here } else { &pair.there };
    eventually("the second rail is used", || {
        if leads {
            pair.check_all(Opcode::Write, 1)
        } else {
            move_back(pair)
        }
        carried(user)[1] > 0
    });
}

#[test]
fn a_further_rail_has_one_lane_until_either_end_uses_it() {
    let _alone = alone();
    for leads in [true, false] {
        let pair = unused();
        use_second(&pair, leads);
        expect_all(&pair);
        pair.check_all(Opcode::Read, 2);
    }
}

/// Its only lane fails before it carries anything.
#[test]
fn a_rail_that_fails_before_its_first_use_has_one_lane_again() {
    let _alone = alone();
    for end in ["near", "far"] {
        let pair = unused();
        let nics = if end == "near" { &pair.near } else { &pair.far };
        let nic = nic_number(&pair.here.rails()[1].nic);
        nics.set_port(nic, false);
        eventually("the rail is down", || lanes(&pair.here)[1] == 0 && lanes(&pair.there)[1] == 0);
        nics.set_port(nic, true);
        eventually("its lane is back", || lanes(&pair.here)[1] == 1 && lanes(&pair.there)[1] == 1);
        expect_one(&pair);
        use_second(&pair, true);
        expect_all(&pair);
    }
}

/// What is under way on the first rail moves to the one lane there is, and that rail gets its others.
#[test]
fn a_rail_that_was_not_used_takes_over() {
    let _alone = alone();
    for (end, opcode) in [("near", Opcode::Write), ("far", Opcode::Read)] {
        let pair = unused();
        let nics = if end == "near" { &pair.near } else { &pair.far };
        let nic = nic_number(&pair.here.rails()[0].nic);
        pair.near.switches(nic).set_silent(true);
        let bytes = pair.fill(opcode, 3);
        let id = pair.submit_all(opcode);
        nics.set_port(nic, false);
        let time = OwnTime::start();
        pair.check_done(opcode, id, &bytes, Duration::ZERO);
        println!("{end}, {opcode:?}: done {:?} after the port went down", time.elapsed());
        assert!(time.elapsed() < MOVED, "it took {:?}", time.elapsed());
        assert_eq!(pair.here.rails()[0].healthy_lanes, 0, "{:#?}", pair.here.rails());
        eventually("the other rail has all lanes", || {
            [&pair.here, &pair.there].iter().all(|end| lanes(end)[1] == LANES + 1)
        });
    }
}

/// The device of the second rail is lost at an end when its lanes are about to be made, and when the first of them are there.
#[test]
fn a_device_that_is_lost_while_lanes_are_made_costs_no_transfer() {
    let _alone = alone();
    let mut met = Vec::new();
    for round in 0..16 {
        let (end, opcode) = (["near", "far"][round % 2], [Opcode::Write, Opcode::Read][round / 2 % 2]);
        let pair = unused();
        let nics = if end == "near" { &pair.near } else { &pair.far };
        let nic = nic_number(&pair.here.rails()[1].nic);
        let (bytes, time) = (pair.fill(opcode, round as u64), OwnTime::start());
        let id = pair.submit_all(opcode);
        // A part of it may have come to the first rail alone.
        while lanes(&pair.here)[1] < 1 + round % 4 && !time.exceeds(Duration::from_millis(10)) {
            std::thread::yield_now();
        }
        met.push(lanes(&pair.here)[1]);
        nics.lose(nic);
        pair.check_done(opcode, id, &bytes, Duration::ZERO);
        assert!(time.elapsed() < MOVED, "{end}, {opcode:?}: {:#?}", pair.here.rails());
        eventually("the rail is down", || {
            [&pair.here, &pair.there].iter().all(|end| end.rails()[1].status == RailStatus::Down)
        });
        pair.check_all(opcode, 100);
        assert!(pair.here.is_usable() && pair.there.is_usable());
        assert_eq!(pair.here.info().healthy_lanes, LANES);
    }
    println!("lanes of the rail when its device was lost: {met:?}");
    assert!(met.contains(&1) && met.iter().any(|lanes| *lanes > 1), "{met:?}");
}

//! NICs of which some pairs do not reach each other: a path is tried before a rail is made over it.

use std::time::{Duration, Instant};

use flagcx_p2p::internals::fabric::{Opcode, PathKind};
use flagcx_p2p::internals::observe::{EventKind, RailInfo, event_log};
use flagcx_p2p::internals::transfer::{Iov, Outcome};

use crate::alone;
use crate::nics::{nic_number, up};
use crate::rail_pair::{LENGTH, RailPair};
use crate::support::{eventually, outcome};

/// Leaves the devices of both ends these pairs only, by their numbers.
fn connect_only(pair: &RailPair, cables: &[(usize, usize)]) {
    let others = |reached: &dyn Fn(usize, usize) -> bool, own: usize, count: usize| {
        (0..count).filter(|other| !reached(own, *other)).fold(0, |mask, other| mask | 1 << other)
    };
    let (near, far) = (pair.near.devices.len(), pair.far.devices.len());
    for own in 0..near {
        let mask = others(&|own, other| cables.contains(&(own, other)), own, far);
        pair.near.switches(own).set_unreachable(mask);
    }
    for own in 0..far {
        let mask = others(&|own, other| cables.contains(&(other, own)), own, near);
        pair.far.switches(own).set_unreachable(mask);
    }
}

fn cables_of(rails: &[RailInfo]) -> Vec<(usize, usize)> {
    let mut cables: Vec<_> =
        rails.iter().map(|rail| (nic_number(&rail.nic), nic_number(&rail.peer_nic))).collect();
    cables.sort_unstable();
    cables
}

fn expect_rails(pair: &RailPair, cables: &[(usize, usize)]) {
    connect_only(pair, cables);
    let begin = Instant::now();
    pair.make_rails(cables.len());
    println!("{cables:?} found after {:?}", begin.elapsed());
    assert_eq!(cables_of(&pair.here.rails()), cables, "{:#?}", pair.here.rails());
    for seed in 0..4 {
        pair.check_all(if seed % 2 == 0 { Opcode::Write } else { Opcode::Read }, seed);
    }
    // The other end has the same ones, with the same numbers.
    eventually("both ends have them", || up(&pair.there).len() == cables.len());
    for (here, there) in pair.here.rails().iter().zip(pair.there.rails()) {
        assert_eq!((here.rail, &here.nic, &here.peer_nic), (there.rail, &there.peer_nic, &there.nic));
    }
}

#[test]
fn eight_nics_in_another_order_find_each_other() {
    let _alone = alone();
    for path in [None, Some(PathKind::Tcp)] {
        let pair = RailPair::with([8, 8], path, [&[], &[]]);
        expect_rails(&pair, &[(0, 0), (1, 3), (2, 7), (3, 5), (4, 1), (5, 2), (6, 6), (7, 4)]);
    }
}

/// Each NIC of the larger end finds one of the smaller end's.
#[test]
fn ends_with_different_numbers_of_nics_find_each_other() {
    let _alone = alone();
    let pair = RailPair::new(3, 5);
    expect_rails(&pair, &[(0, 0), (1, 2), (1, 4), (2, 1), (2, 3)]);
    let pair = RailPair::new(5, 3);
    expect_rails(&pair, &[(0, 0), (1, 2), (2, 1), (3, 2), (4, 2)]);
}

#[test]
fn a_nic_that_reaches_none_is_left_out_and_costs_nothing() {
    let _alone = alone();
    let pair = RailPair::new(4, 4);
    expect_rails(&pair, &[(0, 0), (2, 2), (3, 3)]);
    assert_eq!(pair.here.rails().len(), 3, "no place is taken");
}

/// A request is answered, and then no lane connects: another pair takes over on a number of its own. The first one is used once it connects.
#[test]
fn nics_of_which_no_lane_connects_form_other_rails() {
    let _alone = alone();
    let pair = RailPair::new(3, 3);
    let switches = pair.near.switches(1);
    switches.set_connects(1);
    switches.set_unreachable(1 << 1);
    let begin = Instant::now();
    pair.make_rails(3);
    println!("another pair after {:?}", begin.elapsed());
    let cables = cables_of(&pair.here.rails());
    assert!(
        !cables.contains(&(1, 1)) && cables.iter().any(|(own, peer)| *own == 1 || *peer == 1),
        "{cables:?}"
    );
    for seed in 0..4 {
        pair.check_all(if seed % 2 == 0 { Opcode::Write } else { Opcode::Read }, seed);
    }
    let peer = pair.here.info().peer;
    let told = || {
        let events = event_log().recent().into_iter();
        let refused = events.filter(|event| event.kind == EventKind::RailRefused);
        let of_peer = refused.filter(|event| event.peer.as_deref() == Some(peer.as_str()));
        of_peer.filter(|event| event.text.contains("no lane connects")).count()
    };
    assert_eq!(told(), 1);
    switches.set_unreachable(0);
    eventually("it is used", || {
        pair.check_all(Opcode::Write, 5);
        cables_of(&up(&pair.here)).contains(&(1, 1))
    });
    assert_eq!(told(), 1);
}

/// The connect succeeds, and the request is lost: for a second it is waited for, and others are not held up.
#[test]
fn a_path_that_answers_nothing_makes_no_rail() {
    let _alone = alone();
    let pair = RailPair::new(3, 3);
    pair.far.switches(1).set_silent(true);
    let begin = Instant::now();
    pair.make_rails(2);
    while begin.elapsed() < Duration::from_millis(1500) {
        pair.check_all(Opcode::Write, 1);
    }
    assert_eq!(cables_of(&pair.here.rails()), [(0, 0), (2, 2)], "{:#?}", pair.here.rails());
}

/// An end that asks for a rail that cannot be made now is told, and asks again soon.
#[test]
fn the_end_that_was_connected_to_is_told_what_it_does_not_get() {
    let _alone = alone();
    let pair = RailPair::new(2, 2);
    pair.near.set_port(1, false);
    pair.fill(Opcode::Read, 1);
    let remote = pair.there.describe_remote(pair.source.address(), LENGTH as u32).unwrap();
    let region = Some(pair.target.region());
    let iov = Iov { local: pair.target.address(), length: LENGTH as u64, region, remote };
    let go = || {
        let id = pair.there.submit(Opcode::Write, &[iov][..]).unwrap();
        assert_eq!(outcome(&pair.there, id), Outcome::Done);
    };
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(300) {
        go();
    }
    assert_eq!(pair.there.rails().len(), 1);
    pair.near.set_port(1, true);
    eventually("two rails", || {
        go();
        up(&pair.there).len() == 2
    });
    println!("used after {:?}", begin.elapsed());
}

/// A pair by which one end asks is not that of the other end any more: it gets another one with either NIC.
#[test]
fn an_end_that_knows_only_the_names_gets_what_reaches() {
    let _alone = alone();
    let pair = RailPair::new(3, 3);
    connect_only(&pair, &[(0, 0), (1, 2)]);
    pair.fill(Opcode::Read, 1);
    pair.make_rails_there(2);
    let is_there = || cables_of(&pair.here.rails()) == [(0, 0), (1, 2)];
    eventually("the other end has the same ones", is_there);
}

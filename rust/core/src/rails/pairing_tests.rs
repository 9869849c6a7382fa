//! Pairs that do not reach each other give way to others.

use proptest::prelude::*;

use super::*;
use crate::rails::MAX_RAILS;

fn nics(count: usize, network: impl Fn(usize) -> Option<usize>) -> Vec<NicEnd> {
    let nic = |index: usize| NicEnd {
        name: format!("n{index}"),
        link_layer: 0,
        networks: network(index)
            .map(|network| format!("10.0.{network}.1/24").parse().unwrap())
            .into_iter()
            .collect(),
    };
    (0..count).map(nic).collect()
}

pub(super) fn unnamed(count: usize) -> Vec<NicEnd> {
    nics(count, |_| None)
}

pub(super) const FIRST: NicPair = NicPair { own: 0, peer: 0 };

fn pairing(own: &[NicEnd], peer: &[NicEnd], map: &str) -> Pairing {
    Pairing::new(own, peer, FIRST, &RailMap::parse(map).unwrap_or_default(), MAX_RAILS)
}

pub(super) fn pairs(pairing: &Pairing) -> Vec<(usize, usize)> {
    pairing.pairs().map(|pair| (pair.own, pair.peer)).collect()
}

/// Tries rails as a connection does, in this order, until each is made or has no pair left. All pairs that were tried, in their order.
fn try_all(
    pairing: &mut Pairing,
    order: &[usize],
    now: u64,
    reach: impl Fn(NicPair) -> bool,
) -> Vec<NicPair> {
    let (mut tried, mut made) = (Vec::new(), vec![0]);
    // A rail that has found none is asked for again while others have found one.
    for _ in 0..order.len() {
        for rail in order {
            while !made.contains(rail)
                && let Some(pair) = pairing.begin(*rail, now)
            {
                tried.push(pair);
                match reach(pair) {
                    true => {
                        pairing.made(*rail, pair);
                        made.push(*rail);
                    }
                    false => assert!(pairing.refuse(*rail, now)),
                }
            }
        }
    }
    tried
}

#[test]
fn pairs_that_reach_each_other_stay_as_they_are() {
    let mut pairing = pairing(&unnamed(4), &unnamed(4), "");
    try_all(&mut pairing, &[1, 2, 3], 0, |_| true);
    assert_eq!(pairs(&pairing), [(0, 0), (1, 1), (2, 2), (3, 3)]);
}

#[test]
fn a_pair_gives_way_to_the_next_nic_of_the_peer() {
    let mut pairing = pairing(&unnamed(3), &unnamed(3), "");
    assert_eq!(pairing.begin(1, 0), Some(NicPair { own: 1, peer: 1 }));
    pairing.refuse(1, 0);
    assert_eq!(pairing.begin(1, 0), Some(NicPair { own: 1, peer: 2 }), "which was to be that of rail 2");
    assert_eq!(pairs(&pairing), [(0, 0), (1, 2), (2, 1)]);
    pairing.refuse(1, 0);
    assert_eq!(pairing.begin(1, 0), None, "both are refused");
    assert_eq!(pairing.begin(1, FIRST_REFUSAL - 1), None);
    assert!(pairing.begin(1, FIRST_REFUSAL).is_some(), "a second later");
}

#[test]
fn a_pair_that_never_reaches_each_other_is_tried_seldom() {
    let mut pairing = pairing(&unnamed(2), &unnamed(2), "");
    let mut tries = Vec::new();
    for now in (0..300_000 * MILLISECOND).step_by(MILLISECOND as usize * 500) {
        if pairing.begin(1, now).is_some() {
            tries.push(now / (1_000 * MILLISECOND));
            pairing.refuse(1, now);
        }
    }
    assert_eq!(tries, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
    pairing.begin(1, 303_000 * MILLISECOND);
    pairing.made(1, NicPair { own: 1, peer: 1 });
    assert_eq!(pairing.pair(1), Some(NicPair { own: 1, peer: 1 }));
}

#[test]
fn a_rail_that_is_made_or_being_made_keeps_its_nics() {
    let mut pairing = pairing(&unnamed(3), &unnamed(3), "");
    pairing.begin(2, 0);
    pairing.begin(1, 0);
    pairing.refuse(1, 0);
    assert_eq!(pairing.begin(1, 0), None);
    pairing.put_off(2);
    assert_eq!(pairing.begin(1, 0), Some(NicPair { own: 1, peer: 2 }), "the other was not made after all");
    pairing.refuse(1, 0);
    pairing.made(1, NicPair { own: 1, peer: 2 });
    assert!(!pairing.refuse(1, 0), "it would be tried again at once");
    assert_eq!(pairing.begin(1, 0), Some(NicPair { own: 1, peer: 2 }));
}

/// A pair waits for its next try, and another rail takes its NIC of the peer meanwhile.
#[test]
fn a_pair_the_nic_of_which_was_taken_gives_way_once_it_is_tried_again() {
    let mut pairing = pairing(&unnamed(4), &unnamed(4), "");
    for _ in 0..3 {
        pairing.begin(1, 0);
        pairing.refuse(1, 0);
    }
    let left = pairing.pair(1).unwrap();
    while pairing.begin(2, 0).is_some_and(|pair| pair.peer != left.peer) {
        pairing.refuse(2, 0);
    }
    let taken = pairing.pair(2).unwrap();
    assert_eq!(taken.peer, left.peer);
    pairing.made(2, taken);
    let again = pairing.begin(1, FIRST_REFUSAL).unwrap();
    assert_ne!(again.peer, taken.peer, "another one is idle");
    let peers: std::collections::BTreeSet<_> = pairing.pairs().map(|pair| pair.peer).collect();
    assert_eq!(peers.len(), 4, "{:?}", pairs(&pairing));
}

/// A cable that is out: its NICs do not take those of others, which a network vouches for.
#[test]
fn nics_of_one_network_do_not_give_way_to_others() {
    let own = nics(4, Some);
    let mut pairing = pairing(&own, &own, "");
    let tried = try_all(&mut pairing, &[1, 2, 3], 0, |pair| pair.own != 1);
    assert_eq!(pairs(&pairing)[2..], [(2, 2), (3, 3)]);
    assert_eq!(tried.len(), 3, "{tried:?}");
}

/// All have the same network, and it says nothing.
#[test]
fn nics_of_one_network_give_way_to_others_of_it_and_after_they_have_failed() {
    let one = nics(4, |_| Some(7));
    let turned = |pair: NicPair| pair.peer == if pair.own == 0 { 0 } else { 1 + pair.own % 3 };
    for own in [&one, &nics(4, Some)] {
        let mut pairing = pairing(own, own, "");
        try_all(&mut pairing, &[1, 2, 3], 0, turned);
        assert_eq!(pairs(&pairing), [(0, 0), (1, 2), (2, 3), (3, 1)]);
    }
}

#[test]
fn pairs_of_the_map_give_way_to_none() {
    let mut pairing = pairing(&unnamed(4), &unnamed(4), "n1:n2,n2:n1");
    pairing.begin(1, 0);
    pairing.refuse(1, 0);
    assert_eq!(pairing.begin(1, 0), None);
    assert!(!pairing.may_begin(1, 0) && pairing.may_begin(1, FIRST_REFUSAL) && pairing.may_begin(2, 0));
    assert_eq!(pairs(&pairing), [(0, 0), (1, 2), (2, 1)]);
}

/// The other end expects the pairs that it can know of.
#[test]
fn an_end_that_is_told_of_other_pairs_exchanges_them() {
    let mut follower = pairing(&unnamed(4), &unnamed(4), "").swapped();
    follower.made(2, NicPair { own: 3, peer: 1 });
    assert_eq!(pairs(&follower), [(0, 0), (1, 2), (3, 1), (2, 3)]);
    let mut follower = pairing(&unnamed(2), &unnamed(4), "").swapped();
    assert_eq!(pairs(&follower), [(0, 0), (1, 1), (2, 1), (3, 1)]);
    follower.made(1, NicPair { own: 3, peer: 1 });
    assert_eq!(pairs(&follower), [(0, 0), (3, 1), (2, 1), (1, 1)]);
    let wanted = |own, peer| follower.rail_for(NicPair { own, peer });
    assert_eq!([wanted(1, 1), wanted(9, 1), wanted(2, 9), wanted(3, 9)], [Some(3), Some(2), Some(2), None]);
    assert_eq!(wanted(3, 1), Some(1), "one that this end has made, and the other end has not");
}

#[test]
fn no_pair_is_no_panic() {
    let mut pairing = Pairing::default();
    pairing.refuse(3, 0);
    pairing.made(3, FIRST);
    assert_eq!((pairing.begin(3, 0), pairing.pair(0), pairing.may_begin(9, 0)), (None, None, false));
}

pub(super) fn any_network() -> impl Strategy<Value = Vec<NicEnd>> {
    prop::collection::vec((0u8..8, 0u8..4), 2..9).prop_map(|nics| {
        let nic = |(index, (network, layer)): (usize, &(u8, u8))| NicEnd {
            link_layer: *layer / 3,
            networks: (*network < 4)
                .then(|| format!("10.0.{network}.1/24").parse().unwrap())
                .into_iter()
                .collect(),
            name: format!("n{index}"),
        };
        nics.iter().enumerate().map(nic).collect()
    })
}

proptest! {
    /// The NICs of both ends are cabled one to one, in any order, some not at all, and nothing says how: each cable gets its rail, in
    /// whatever order rails are wanted, and no pair is tried twice.
    #[test]
    fn each_nic_finds_the_one_that_it_reaches(
        (count, cables, order) in (2usize..9).prop_flat_map(|count| {
            let all: Vec<_> = (1..count).collect();
            (Just(count), Just(all.clone()).prop_shuffle(), Just(all).prop_shuffle())
        }),
        is_named: bool,
        dead in 0u8..4,
        which: u8,
    ) {
        // Where it says something, it says nothing of use.
        let own = nics(count, |_| is_named.then_some(7));
        let mut pairing = pairing(&own, &own, "");
        // A quarter of the cases have all cables.
        let is_dead = |own: usize| dead > 0 && which >> (own % 8) & 1 != 0;
        let reach = |pair: NicPair| cables.get(pair.own.wrapping_sub(1)) == Some(&pair.peer) && !is_dead(pair.own);
        let tried = try_all(&mut pairing, &order, 0, reach);
        let made: Vec<_> = tried.iter().filter(|pair| reach(**pair)).map(|pair| pair.own).collect();
        prop_assert!((1..count).all(|own| is_dead(own) || made.contains(&own)), "{:?} for {cables:?}", pairs(&pairing));
        let distinct: std::collections::BTreeSet<_> = tried.iter().map(|pair| (pair.own, pair.peer)).collect();
        prop_assert_eq!(distinct.len(), tried.len());
    }

    /// Whatever reaches what: what is made reaches each other, is of one link layer and leaves the first pair alone, nothing is tried twice,
    /// and a NIC of the larger end has one rail.
    #[test]
    fn only_what_reaches_each_other_is_made(
        own in any_network(), peer in any_network(), cables: u64, order in Just((1usize..8).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let mut pairing = pairing(&own, &peer, "");
        let order: Vec<_> = order.into_iter().filter(|rail| *rail < pairing.pairs().len()).collect();
        let reach = |pair: NicPair| cables >> (8 * pair.own + pair.peer) & 1 != 0;
        let tried = try_all(&mut pairing, &order, 0, reach);
        let distinct: std::collections::BTreeSet<_> = tried.iter().map(|pair| (pair.own, pair.peer)).collect();
        prop_assert_eq!(distinct.len(), tried.len());
        prop_assert!(tried.iter().all(|pair| pair.own != 0 && pair.peer != 0));
        prop_assert!(tried.iter().all(|pair| own[pair.own].link_layer == peer[pair.peer].link_layer));
        let outer = |pair: &NicPair| if own.len() >= peer.len() { pair.own } else { pair.peer };
        let made: Vec<_> = tried.iter().filter(|pair| reach(**pair)).collect();
        let nics: std::collections::BTreeSet<_> = made.iter().map(|pair| outer(pair)).collect();
        let is_one_layer = own.iter().chain(&peer).all(|nic| nic.link_layer == own[0].link_layer);
        prop_assert!(!is_one_layer || nics.len() == made.len(), "{:?}", made);
        let state = pairs(&pairing);
        prop_assert!(made.iter().all(|pair| state.contains(&(pair.own, pair.peer))));
    }
}

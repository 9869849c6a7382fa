//! Rails that are lost, and the pairs that take over.

use proptest::prelude::*;

use super::*;
use crate::rails::pairing::tests::{FIRST, any_network, pairs, unnamed};
use crate::rails::{MAX_RAILS, MILLISECOND, RailMap};

const SECOND: u64 = 1_000 * MILLISECOND;

fn of(own: usize, peer: usize) -> Pairing {
    limited(own, peer, MAX_RAILS)
}

fn limited(own: usize, peer: usize, limit: usize) -> Pairing {
    Pairing::new(&unnamed(own), &unnamed(peer), FIRST, &RailMap::default(), limit).with_substitutes()
}

fn pair(own: usize, peer: usize) -> NicPair {
    NicPair { own, peer }
}

/// All rails that there are to be are made.
fn made(mut pairing: Pairing) -> Pairing {
    let count = pairing.pairs().len();
    for rail in 1..count {
        let pair = pairing.begin(rail, 0).unwrap();
        pairing.made(rail, pair);
    }
    pairing
}

#[test]
fn a_single_nic_goes_with_the_other_nics_of_the_peer_once_its_own_is_lost() {
    let mut pairing = of(1, 3);
    assert_eq!((pairs(&pairing), pairing.could_take_over(0)), (vec![(0, 0)], true));
    assert!(pairing.lost(0, Loss::Peer).is_some());
    assert_eq!(pairing.begin(1, 0), Some(pair(0, 1)));
    pairing.made(1, pair(0, 1));
    assert!(pairing.lost(0, Loss::Peer).is_none(), "it is known");
    assert!(pairing.lost(1, Loss::Peer).is_some());
    assert_eq!(pairing.begin(2, 0), Some(pair(0, 2)));
    pairing.made(2, pair(0, 2));
    assert!(!pairing.could_take_over(0));
    assert!(pairing.lost(2, Loss::Peer).is_none(), "there are no more");
    assert_eq!((pairing.begin(0, 0), pairing.begin(3, 0)), (None, None));
}

#[test]
fn a_device_that_is_lost_here_is_in_no_pair() {
    let mut pairing = of(3, 1);
    assert!(pairing.lost(0, Loss::Own).is_some());
    assert_eq!(pairing.begin(1, 0), Some(pair(1, 0)));
    let mut pairing = of(1, 3);
    assert!(pairing.lost(0, Loss::Own).is_none(), "it was the only one");
    assert!(!pairing.could_take_over(0));
    // First the lanes were closed, then the device says why.
    let mut pairing = of(1, 2);
    assert!(pairing.lost(0, Loss::Peer).is_some());
    pairing.lost(0, Loss::Own);
    assert_eq!(pairing.begin(1, 0), None);
}

#[test]
fn a_pair_that_is_refused_gives_way_to_the_next_one() {
    let mut pairing = of(1, 3);
    pairing.lost(0, Loss::Peer);
    assert_eq!(pairing.begin(1, 0), Some(pair(0, 1)));
    assert!(pairing.refuse(1, 0));
    assert_eq!(pairing.begin(1, 0), Some(pair(0, 2)));
    assert!(pairing.refuse(1, 0) && pairing.begin(1, 0).is_none() && !pairing.could_take_over(0));
    assert!(pairing.could_take_over(SECOND) && pairing.begin(1, SECOND).is_some());
}

/// One more rail over a NIC that has one already moves no more bytes.
#[test]
fn it_is_said_whether_more_nics_work_at_a_time() {
    let mut pairing = made(of(2, 3));
    assert!(pairing.lost(0, Loss::Peer).is_some());
    assert!(pairing.is_of_use_beside(3) && pairing.pair(3).is_some_and(|pair| pair.own == 0));
    let mut pairing = made(of(2, 2));
    assert!(pairing.lost(0, Loss::Peer).is_some());
    assert!(!pairing.is_of_use_beside(2), "the peer has one NIC left");
    assert!(pairing.lost(1, Loss::Own).is_none(), "the one that there is can be made of what is left");
    assert!(pairing.is_of_use_beside(2), "no rail works");
    assert_eq!(pairing.begin(2, 0), Some(pair(0, 1)));
    // Two that lost their rails at different ends.
    let mut pairing = made(of(3, 3));
    assert!(pairing.lost(1, Loss::Peer).is_some() && !pairing.is_of_use_beside(3));
    pairing.lost(2, Loss::Own);
    assert_eq!((pairing.begin(3, 0), pairing.is_of_use_beside(3)), (Some(pair(1, 2)), true));
}

#[test]
fn what_the_other_end_wants_has_a_place_once() {
    let mut pairing = of(1, 3);
    assert_eq!(pairing.take_over(pair(0, 0), 0), None, "it has a rail");
    assert_eq!(pairing.take_over(pair(0, 7), 0), None, "there is no such NIC");
    assert_eq!(pairing.take_over(pair(0, 2), 0), Some(1));
    assert_eq!(pairing.begin(1, 0), Some(pair(0, 2)), "not the first one that would fit");
    assert_eq!(pairing.take_over(pair(0, 2), 0), None, "`rail_for` finds it");
    assert_eq!(pairing.rail_for(pair(0, 2)), Some(1));
    pairing.refuse(1, 0);
    assert_eq!(pairing.take_over(pair(0, 1), 0), Some(1), "in the place of what does not work");
    let without = Pairing::new(&unnamed(1), &unnamed(2), FIRST, &RailMap::default(), MAX_RAILS);
    let mapped = Pairing::new(&unnamed(2), &unnamed(2), FIRST, &RailMap::parse("n1:n1").unwrap(), MAX_RAILS);
    for mut pairing in [without, mapped.with_substitutes()] {
        assert!(pairing.lost(0, Loss::Peer).is_none() && !pairing.could_take_over(0));
        assert_eq!(pairing.take_over(pair(0, 1), 0), None);
    }
}

/// The end that does not lead learns of them when they are made.
#[test]
fn a_rail_that_was_not_expected_is_known_once_it_is_made() {
    let mut pairing = of(1, 4);
    pairing.made(3, pair(0, 2));
    assert_eq!(pairing.pair(3), Some(pair(0, 2)));
    assert!((1..3).all(|rail| pairing.begin(rail, 0).is_none()), "numbers of the other end");
    pairing.made(MAX_RAILS, pair(0, 3));
    assert_eq!(pairing.pairs().len(), 4);
    // The pairs that are expected stay as they are.
    let mut pairing = of(3, 3);
    pairing.made(3, pair(0, 2));
    assert_eq!(pairs(&pairing), [(0, 0), (1, 1), (2, 2), (0, 2)]);
}

/// It may still come up: then its NICs have it again.
#[test]
fn two_nics_that_do_not_work_with_each_other_are_tried_with_others() {
    let mut pairing = made(of(3, 3));
    assert!(pairing.lost(1, Loss::Pair).is_some() && pairing.is_of_use_beside(3));
    let found = pairing.begin(3, 0).unwrap();
    assert!(found != pair(1, 1) && (found.own == 1 || found.peer == 1), "{found:?}");
    assert_eq!(pairing.begin(1, 0), None);
    pairing.made(1, pair(1, 1));
    assert!(!pairing.is_lost(1) && pairing.pair(1) == Some(pair(1, 1)));
    // Of one and one there is no other pair; of two and two those with the NICs of the first rail.
    assert!(of(1, 1).lost(0, Loss::Pair).is_none());
    assert!(made(of(2, 2)).lost(1, Loss::Pair).is_some());
}

/// It is tried again as it is: this end has made it, so its number cannot have another pair.
#[test]
fn a_rail_that_the_peer_refuses_leaves_its_nics_to_others() {
    let mut pairing = made(of(3, 3));
    let added = pairing.refused_by_peer(1, 0).unwrap();
    let found = pairing.begin(added, 0).unwrap();
    assert!(added == 3 && found.own == 1 && found.peer != 1, "not the NIC that was refused: {found:?}");
    pairing.made(3, found);
    assert_eq!(pairing.refused_by_peer(1, SECOND), None, "once");
    assert!(pairing.may_begin(1, 0) && pairing.begin(1, 0) == Some(pair(1, 1)));
    assert!(pairing.is_of_use_beside(1), "the NIC of the peer has no other rail");
    pairing.made(1, pair(1, 1));
    assert!(pairing.pair(1) == Some(pair(1, 1)) && !pairing.is_lost(1));
    // The only NIC of an end.
    let mut pairing = of(1, 3);
    pairing.lost(0, Loss::Peer);
    pairing.begin(1, 0);
    pairing.made(1, pair(0, 1));
    assert!(!pairing.refuse(1, 0), "it keeps its pair");
    let added = pairing.refused_by_peer(1, 0).unwrap();
    assert_eq!(pairing.begin(added, 0), Some(pair(0, 2)));
    // What is not made here, what is lost, and without the peer's consent.
    assert_eq!(of(3, 3).refused_by_peer(1, 0), None);
    assert!(pairing.lost(1, Loss::Own).is_none() && pairing.refused_by_peer(1, 0).is_none());
    let mut without = Pairing::new(&unnamed(3), &unnamed(3), FIRST, &RailMap::default(), MAX_RAILS);
    without.made(1, pair(1, 1));
    assert_eq!((without.refused_by_peer(1, 0), without.begin(1, 0)), (None, Some(pair(1, 1))));
}

/// Numbers of the other end stand for no pair.
#[test]
fn a_pair_that_was_not_expected_is_found_by_its_own_number() {
    let mut pairing = of(1, 4);
    pairing.made(3, pair(0, 2));
    assert_eq!(pairing.rail_for(pair(0, 2)), Some(3));
}

#[test]
fn numbers_that_are_of_no_use_are_used_again() {
    let mut pairing = limited(2, 2, 2);
    assert!(pairing.lost(0, Loss::Peer).is_none(), "number 1 is for another pair");
    let mut pairing = limited(2, 2, 2);
    pairing.begin(1, 0);
    pairing.refuse(1, 0);
    assert!(pairing.lost(0, Loss::Own).is_some(), "which does not reach each other");
    assert_eq!(pairing.begin(1, 0), Some(pair(1, 0)));
    assert!(limited(1, 2, 1).lost(0, Loss::Peer).is_none(), "one rail");
}

proptest! {
    /// Devices are lost at both ends in any order, and each end learns of its own at once, of the peer's by the rails. As long as both ends have
    /// NICs that go together, and there are numbers, a rail is made; none of a device that is lost here, and no pair twice.
    #[test]
    fn as_long_as_both_ends_have_a_nic_there_is_a_rail(
        own in any_network(), peer in any_network(), losses in prop::collection::vec((any::<bool>(), 0usize..8), 0..12),
    ) {
        let first = NicPair { own: 0, peer: 0 };
        let mut pairing = Pairing::new(&own, &peer, first, &RailMap::default(), MAX_RAILS).with_substitutes();
        let (mut gone_here, mut gone_there) = (BTreeSet::new(), BTreeSet::new());
        let works = |pair: NicPair, here: &BTreeSet<usize>, there: &BTreeSet<usize>| {
            !here.contains(&pair.own) && !there.contains(&pair.peer)
        };
        let mut rails = vec![(0, first)];
        for (is_here, nic) in losses {
            if is_here { gone_here.insert(nic) } else { gone_there.insert(nic) };
            for (rail, pair) in &rails {
                if !works(*pair, &gone_here, &gone_there) {
                    let is_own = gone_here.contains(&pair.own);
                    pairing.lost(*rail, if is_own { Loss::Own } else { Loss::Peer });
                }
            }
            if rails.iter().any(|(_, pair)| works(*pair, &gone_here, &gone_there)) {
                continue;
            }
            for rail in (0..MAX_RAILS).cycle().take(4 * MAX_RAILS) {
                let is_made = rails.iter().any(|(made, _)| *made == rail);
                let Some(pair) = (if is_made { None } else { pairing.begin(rail, 0) }) else { continue };
                // A NIC that is not used yet is found lost when it is tried.
                if !works(pair, &gone_here, &gone_there) {
                    prop_assert!(pairing.refuse(rail, 0));
                    continue;
                }
                prop_assert!(rails.iter().all(|(_, other)| *other != pair));
                prop_assert_eq!(own[pair.own].link_layer, peer[pair.peer].link_layer);
                pairing.made(rail, pair);
                rails.push((rail, pair));
                break;
            }
            // In one layer, so that no NIC is without another one; a NIC that was never used has no rail to lose.
            let all_used = |used: BTreeSet<usize>, count: usize| used.len() == count;
            let one_layer = own.iter().chain(&peer).all(|nic| nic.link_layer == own[0].link_layer);
            let is_left = (0..own.len()).any(|own| (0..peer.len()).any(|peer| {
                works(NicPair { own, peer }, &gone_here, &gone_there)
            }));
            let has_number = pairing.pairs().len() < MAX_RAILS;
            let used = all_used(rails.iter().map(|(_, pair)| pair.own).collect(), own.len())
                || all_used(rails.iter().map(|(_, pair)| pair.peer).collect(), peer.len());
            if one_layer && is_left && has_number && used {
                let works = rails.iter().any(|(_, pair)| works(*pair, &gone_here, &gone_there));
                prop_assert!(works, "{:?}, gone {gone_here:?} {gone_there:?}", pairs(&pairing));
            }
        }
    }
}

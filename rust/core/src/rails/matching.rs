//! Which NIC of this host forms a rail with which one of the peer.

use ipnet::IpNet;

use super::MAX_RAILS;
use super::rail_map::RailMap;
use crate::fabric::link_name;
use crate::topology::natural_order;

/// What is known of a NIC at one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicEnd {
    /// Its name there.
    pub name: String,
    /// Its link layer, [`QpAddress::link_layer`](crate::fabric::QpAddress::link_layer): NICs of different ones never form a rail.
    pub link_layer: u8,
    /// The networks of its addresses; none if it has no IP address.
    pub networks: Vec<IpNet>,
}

/// Two NICs that form a rail: indices into the lists of both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NicPair {
    /// Of this host.
    pub own: usize,
    /// Of the peer.
    pub peer: usize,
}

/// The pairs of NICs that a connection may have rails over, at most [`MAX_RAILS`], in the order of their rails. `first` is the pair
/// that it was made over, and stays the first one; neither of these two NICs forms another rail.
///
/// The others are those of the operator's map, if that names any NICs that are there; else as [`match_nics`] pairs them. NICs of
/// different MTU are paired: the path between them has the smaller one.
pub fn rail_pairs(own: &[NicEnd], peer: &[NicEnd], first: NicPair, map: &RailMap) -> Vec<NicPair> {
    let mut pairs = vec![first];
    if map.pairs(own, peer).is_empty() {
        let mut left = (in_order(own), in_order(peer));
        left.0.retain(|index| *index != first.own);
        left.1.retain(|index| *index != first.peer);
        pairs.extend(matched(own, peer, left));
    } else {
        pairs.extend(mapped_beside(own, peer, first, map));
    }
    pairs.truncate(MAX_RAILS);
    pairs
}

/// The map's pairs that are there, without those of the NICs of the first rail.
fn mapped_beside(own: &[NicEnd], peer: &[NicEnd], first: NicPair, map: &RailMap) -> Vec<NicPair> {
    let mut pairs = map.pairs(own, peer);
    pairs.retain(|pair| pair.own != first.own && pair.peer != first.peer);
    pairs
}

/// What to warn of: the map has more pairs than [`rail_pairs`] takes of it.
pub fn cut_map_warning(own: &[NicEnd], peer: &[NicEnd], first: NicPair, map: &RailMap) -> Option<String> {
    let pairs = mapped_beside(own, peer, first, map);
    let cut = pairs.get(MAX_RAILS - 1..).filter(|cut| !cut.is_empty())?;
    let names = cut.iter().filter_map(|pair| Some((own.get(pair.own)?, peer.get(pair.peer)?)));
    let names: Vec<_> = names.map(|(own, peer)| format!("{} to {}", own.name, peer.name)).collect();
    Some(format!(
        "FLAGCX_P2P_RAIL_MAP names more pairs than the {MAX_RAILS} rails of a connection; these form none: {}",
        names.join(", ")
    ))
}

/// What to warn of: both ends have NICs beside those of the first rail, and none of them form a pair, because their link layers differ.
pub fn layer_warning(own: &[NicEnd], peer: &[NicEnd], first: NicPair) -> Option<String> {
    let others = |nics: &[NicEnd], first: usize| {
        let others = nics.iter().enumerate().filter(|(index, _)| *index != first);
        others.map(|(_, nic)| nic.clone()).collect::<Vec<_>>()
    };
    let (own, peer) = (others(own, first.own), others(peer, first.peer));
    let are_apart = own.iter().all(|own| peer.iter().all(|peer| !share_layer(own, peer)));
    if own.is_empty() || peer.is_empty() || !are_apart {
        return None;
    }
    let names = |nics: &[NicEnd]| {
        let names = nics.iter().map(|nic| format!("{} ({})", nic.name, link_name(nic.link_layer)));
        names.collect::<Vec<_>>().join(", ")
    };
    Some(format!(
        "one rail is used, because the link layers of all other NICs differ: {} here, {} at the peer. FLAGCX_IB_HCA names the NICs of \
         each end",
        names(&own),
        names(&peer),
    ))
}

/// Pairs NICs: those of one network, then the others in the natural order of their names. The smaller end's NICs form several rails
/// each, in turn, until all of the larger end have one, and there are at most [`MAX_RAILS`].
pub fn match_nics(own: &[NicEnd], peer: &[NicEnd]) -> Vec<NicPair> {
    let mut pairs = matched(own, peer, (in_order(own), in_order(peer)));
    pairs.truncate(MAX_RAILS);
    pairs
}

/// Pairs the NICs with these indices, which are in the order of their names.
fn matched(own: &[NicEnd], peer: &[NicEnd], (all_own, all_peer): (Vec<usize>, Vec<usize>)) -> Vec<NicPair> {
    let both = |pair: NicPair| own.get(pair.own).zip(peer.get(pair.peer));
    let share_network = |pair| both(pair).is_some_and(|(own, peer)| share_network(own, peer));
    let layers_fit = |pair| both(pair).is_some_and(|(own, peer)| share_layer(own, peer));
    let (mut left_own, mut left_peer) = (all_own.clone(), all_peer.clone());
    let mut pairs = Vec::new();
    // Those that are left at both ends, one by one.
    for rule in [&(|pair| layers_fit(pair) && share_network(pair)) as &dyn Fn(NicPair) -> bool, &layers_fit] {
        left_own.retain(|own| {
            let at = left_peer.iter().position(|peer| rule(NicPair { own: *own, peer: *peer }));
            at.map(|at| pairs.push(NicPair { own: *own, peer: left_peer.remove(at) })).is_none()
        });
    }
    // Then the rest of one end with all of the other in turn.
    let mut turn = all_peer.iter().copied().cycle();
    for own in left_own {
        let next = turn
            .by_ref()
            .take(all_peer.len())
            .map(|peer| NicPair { own, peer })
            .find(|pair| layers_fit(*pair));
        pairs.extend(next);
    }
    let mut turn = all_own.iter().copied().cycle();
    for peer in left_peer {
        let next =
            turn.by_ref().take(all_own.len()).map(|own| NicPair { own, peer }).find(|pair| layers_fit(*pair));
        pairs.extend(next);
    }
    pairs
}

/// Indices in the natural order of names.
fn in_order(nics: &[NicEnd]) -> Vec<usize> {
    let mut named: Vec<_> = nics.iter().map(|nic| nic.name.as_str()).enumerate().collect();
    named.sort_by(|a, b| natural_order(a.1, b.1));
    named.into_iter().map(|(index, _)| index).collect()
}

/// Whether their link layers are the same.
pub(super) fn share_layer(own: &NicEnd, peer: &NicEnd) -> bool {
    own.link_layer == peer.link_layer
}

/// Whether both have an address in one network, with the same prefix length at both ends. Link-local networks are everywhere.
pub(super) fn share_network(own: &NicEnd, peer: &NicEnd) -> bool {
    own.networks
        .iter()
        .any(|own| !is_link_local(own) && peer.networks.iter().any(|peer| own.trunc() == peer.trunc()))
}

fn is_link_local(network: &IpNet) -> bool {
    match network {
        IpNet::V4(network) => network.addr().is_link_local(),
        IpNet::V6(network) => network.addr().is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nic(name: &str, networks: &[&str]) -> NicEnd {
        NicEnd {
            name: name.to_owned(),
            link_layer: 0,
            networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    fn pairs(own: &[NicEnd], peer: &[NicEnd]) -> Vec<(usize, usize)> {
        match_nics(own, peer).iter().map(|pair| (pair.own, pair.peer)).collect()
    }

    #[test]
    fn nics_of_one_network_form_a_rail() {
        let own = [nic("mlx5_0", &["10.0.0.1/24"]), nic("mlx5_1", &["10.0.1.1/24"])];
        let peer = [nic("mlx5_0", &["10.0.1.2/24"]), nic("mlx5_1", &["10.0.0.2/24", "fe80::1/64"])];
        assert_eq!(pairs(&own, &peer), [(0, 1), (1, 0)]);
    }

    #[test]
    fn link_local_networks_say_nothing() {
        let own = [nic("mlx5_0", &["fe80::1/64"]), nic("mlx5_1", &["fe80::2/64"])];
        let peer = [nic("mlx5_1", &["fe80::3/64"]), nic("mlx5_0", &["fe80::4/64"])];
        assert_eq!(pairs(&own, &peer), [(0, 1), (1, 0)], "by name");
    }

    #[test]
    fn otherwise_the_natural_order_decides() {
        let named = |names: &[&str]| names.iter().map(|name| nic(name, &[])).collect::<Vec<_>>();
        assert_eq!(pairs(&named(&["mlx5_10", "mlx5_2"]), &named(&["a", "b"])), [(1, 0), (0, 1)]);
        assert_eq!(
            pairs(&named(&["a", "b"]), &named(&["a", "b", "c", "d"])),
            [(0, 0), (1, 1), (0, 2), (1, 3)]
        );
        assert_eq!(pairs(&named(&["a", "b", "c"]), &named(&["x"])), [(0, 0), (1, 0), (2, 0)]);
        assert_eq!(pairs(&[], &named(&["x"])), []);
    }

    fn rails(own: &[NicEnd], peer: &[NicEnd], first: (usize, usize), map: &str) -> Vec<(usize, usize)> {
        let map = RailMap::parse(map).unwrap_or_default();
        let pairs = rail_pairs(own, peer, NicPair { own: first.0, peer: first.1 }, &map);
        pairs.iter().map(|pair| (pair.own, pair.peer)).collect()
    }

    fn named(names: &[&str]) -> Vec<NicEnd> {
        names.iter().map(|name| nic(name, &[])).collect()
    }

    #[test]
    fn the_first_pair_stays_the_first_and_its_nics_form_no_other_rail() {
        let (own, peer) = (named(&["a", "b", "c"]), named(&["a", "b", "c"]));
        assert_eq!(rails(&own, &peer, (1, 2), ""), [(1, 2), (0, 0), (2, 1)]);
        assert_eq!(rails(&own, &peer[..1], (1, 0), ""), [(1, 0)], "a peer with one NIC");
        assert_eq!(rails(&own[..2], &peer, (0, 0), ""), [(0, 0), (1, 1), (1, 2)]);
    }

    #[test]
    fn link_layers_never_mix() {
        let mut own = named(&["a", "b", "c"]);
        let mut peer = named(&["a", "b", "c"]);
        (own[1].link_layer, peer[2].link_layer) = (2, 2);
        assert_eq!(rails(&own, &peer, (0, 0), ""), [(0, 0), (1, 2), (2, 1)]);
        assert_eq!(rails(&own, &peer, (0, 0), "b:b,b:c"), [(0, 0), (1, 2)], "the map neither");
        peer[2].link_layer = 0;
        assert_eq!(rails(&own, &peer, (0, 0), ""), [(0, 0), (2, 1), (2, 2)]);
    }

    #[test]
    fn a_connection_that_has_one_rail_for_its_link_layers_says_so() {
        let of_layer = |name: &str, link_layer| NicEnd { link_layer, ..nic(name, &[]) };
        let (own, peer) = ([of_layer("a", 1), of_layer("b", 2)], [of_layer("x", 1), of_layer("y", 1)]);
        let first = NicPair { own: 0, peer: 0 };
        let text = layer_warning(&own, &peer, first).unwrap();
        assert!(text.contains("b (Ethernet (RoCE)) here, y (InfiniBand) at the peer"), "{text}");
        assert_eq!(rail_pairs(&own, &peer, first, &RailMap::default()), [first]);
        assert_eq!(layer_warning(&own, &own, first), None, "b goes with b");
        assert_eq!(layer_warning(&own, &peer[..1], first), None, "the peer has no other");
        assert_eq!(layer_warning(&own[..1], &peer, first), None, "nor has this end");
    }

    #[test]
    fn the_operators_map_wins_if_it_names_what_is_there() {
        let (own, peer) = (named(&["m0", "m1", "m2", "m3"]), named(&["m0", "m1", "m2", "m3"]));
        assert_eq!(rails(&own, &peer, (0, 0), "m0:m0,m1:m3,m2:m1"), [(0, 0), (1, 3), (2, 1)]);
        assert_eq!(rails(&own, &peer, (0, 0), "m1:m3,m1:m9"), [(0, 0), (1, 3)], "and only what it names");
        assert_eq!(rails(&own, &peer, (0, 0), "m0:m1,m1:m2"), [(0, 0), (1, 2)], "the first NIC has its rail");
        assert_eq!(rails(&own, &peer, (0, 0), "m7:m1"), rails(&own, &peer, (0, 0), ""), "it names nothing");
    }

    #[test]
    fn pairs_of_the_map_that_are_no_rail_any_more_are_a_warning() {
        let names: Vec<_> = (0..10).map(|number| format!("m{number}")).collect();
        let nics: Vec<_> = names.iter().map(|name| nic(name, &[])).collect();
        let warning = |count: usize, first: usize| {
            let map: Vec<_> = names.iter().take(count).map(|name| format!("{name}:{name}")).collect();
            let first = NicPair { own: first, peer: first };
            cut_map_warning(&nics, &nics, first, &RailMap::parse(&map.join(",")).unwrap())
        };
        assert_eq!(warning(8, 0), None, "with the first rail there are eight");
        let text = warning(8, 9).unwrap();
        assert!(text.ends_with("form none: m7 to m7"), "without it there are nine: {text}");
        assert!(warning(10, 0).unwrap().ends_with("form none: m8 to m8, m9 to m9"));
    }

    fn any_nics() -> impl Strategy<Value = Vec<NicEnd>> {
        prop::collection::vec((0u8..5, 0u8..2), 1..12).prop_map(|nics| {
            let nics = nics.iter().enumerate();
            nics.map(|(index, (network, link_layer))| NicEnd {
                link_layer: *link_layer,
                ..nic(&format!("n{index}"), &[&format!("10.0.{network}.1/24")])
            })
            .collect()
        })
    }

    proptest! {
        /// Whatever the NICs, the first pair and the map: the first pair is the first, its NICs are in no other one, no pair is there twice,
        /// link layers do not mix, and every NIC that has one to go with has a rail, as far as there are places.
        #[test]
        fn rails_are_made_of_what_goes_together(
            own in any_nics(), peer in any_nics(), first in any::<(prop::sample::Index, prop::sample::Index)>(),
            map in prop::collection::vec((0usize..12, 0usize..12), 0..4),
        ) {
            let first = (first.0.index(own.len()), first.1.index(peer.len()));
            let map: Vec<_> = map.iter().map(|(own, peer)| format!("n{own}:n{peer}")).collect();
            let found = rails(&own, &peer, first, &map.join(","));
            prop_assert_eq!(found.first(), Some(&first));
            prop_assert!(found.len() <= MAX_RAILS);
            let distinct: std::collections::BTreeSet<_> = found.iter().copied().collect();
            prop_assert_eq!(distinct.len(), found.len());
            let others = found.get(1..).unwrap_or_default();
            prop_assert!(others.iter().all(|pair| pair.0 != first.0 && pair.1 != first.1));
            prop_assert!(others.iter().all(|pair| own[pair.0].link_layer == peer[pair.1].link_layer));
            if map.is_empty() && found.len() < MAX_RAILS {
                let goes = |nic: &NicEnd, others: &[NicEnd], without: usize| {
                    others.iter().enumerate().any(|(at, other)| at != without && other.link_layer == nic.link_layer)
                };
                for (at, nic) in own.iter().enumerate().filter(|(at, nic)| *at != first.0 && goes(nic, &peer, first.1)) {
                    prop_assert!(others.iter().any(|pair| pair.0 == at), "{nic:?} {found:?}");
                }
                for (at, nic) in peer.iter().enumerate().filter(|(at, nic)| *at != first.1 && goes(nic, &own, first.0)) {
                    prop_assert!(others.iter().any(|pair| pair.1 == at), "{nic:?} {found:?}");
                }
            }
        }

        /// Each NIC of both ends has a rail, as far as there are places, and no rail is there twice.
        #[test]
        fn every_nic_has_a_rail(own in prop::collection::vec(0u8..4, 1..5), peer in prop::collection::vec(0u8..4, 1..5)) {
            let nics = |networks: &[u8]| {
                let all = networks.iter().enumerate();
                all.map(|(index, network)| nic(&format!("n{index}"), &[&format!("10.0.{network}.1/24")])).collect::<Vec<_>>()
            };
            let found = pairs(&nics(&own), &nics(&peer));
            let distinct: std::collections::BTreeSet<_> = found.iter().copied().collect();
            prop_assert_eq!(distinct.len(), found.len());
            prop_assert!((0..own.len()).all(|nic| found.iter().any(|pair| pair.0 == nic)));
            prop_assert!((0..peer.len()).all(|nic| found.iter().any(|pair| pair.1 == nic)));
        }
    }
}

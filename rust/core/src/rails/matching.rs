//! Which NIC of this host forms a rail with which one of the peer.

use ipnet::IpNet;

use super::MAX_RAILS;
use crate::topology::natural_order;

/// What is known of a NIC at one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicEnd {
    /// Its name there.
    pub name: String,
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

/// Pairs NICs: those of one network, then the others in the natural order of their names. The smaller end's NICs form several rails
/// each, in turn, until all of the larger end have one, and there are at most [`MAX_RAILS`].
pub fn match_nics(own: &[NicEnd], peer: &[NicEnd]) -> Vec<NicPair> {
    let mut left = (in_order(own), in_order(peer));
    let mut pairs = Vec::new();
    left.0.retain(|own_index| {
        let at = left.1.iter().position(|peer_index| {
            matches!((own.get(*own_index), peer.get(*peer_index)), (Some(own), Some(peer)) if share_network(own, peer))
        });
        at.map(|at| pairs.push(NicPair { own: *own_index, peer: left.1.remove(at) })).is_none()
    });
    let (all_own, all_peer) = (in_order(own), in_order(peer));
    if all_own.is_empty() || all_peer.is_empty() {
        return pairs;
    }
    // Those that are left at both ends, one by one; then the rest of one end with all of the other in turn.
    let both = left.0.len().min(left.1.len());
    pairs.extend(left.0.drain(..both).zip(left.1.drain(..both)).map(|(own, peer)| NicPair { own, peer }));
    let rest_own = left.0.into_iter().zip(all_peer.iter().cycle());
    pairs.extend(rest_own.map(|(own, peer)| NicPair { own, peer: *peer }));
    let rest_peer = left.1.into_iter().zip(all_own.iter().cycle());
    pairs.extend(rest_peer.map(|(peer, own)| NicPair { own: *own, peer }));
    pairs.truncate(MAX_RAILS);
    pairs
}

/// Indices in the natural order of names.
fn in_order(nics: &[NicEnd]) -> Vec<usize> {
    let mut named: Vec<_> = nics.iter().map(|nic| nic.name.as_str()).enumerate().collect();
    named.sort_by(|a, b| natural_order(a.1, b.1));
    named.into_iter().map(|(index, _)| index).collect()
}

/// Whether both have an address in one network, with the same prefix length at both ends. Link-local networks are everywhere.
fn share_network(own: &NicEnd, peer: &NicEnd) -> bool {
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

    proptest! {
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

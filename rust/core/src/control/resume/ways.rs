//! The ways over which the leader dials the follower again: pairs of an address of each host.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::own_addresses::{OwnAddresses, is_like};
use crate::control::Interface;
use crate::control::socket::Source;

/// Ways of one round at most, unless the kernel's own are more.
const MOST: usize = 64;
/// How many are tried before the lost one, at most.
const BEFORE_LOST: usize = 2;

/// Where to dial, and where from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// `None`: the kernel chooses, as for the channel at first.
    pub source: Option<Source>,
    /// The follower's listener.
    pub target: SocketAddr,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(f, "{} from {source}", self.target),
            None => self.target.fmt(f),
        }
    }
}

/// The addresses of a channel that was lost.
#[derive(Clone, Copy, Debug)]
pub struct FormerEnds {
    /// This host's.
    pub own: IpAddr,
    /// The peer's.
    pub peer: IpAddr,
}

/// The ways that there are now, the likeliest first. Reads the state of this host's interfaces.
pub fn find_ways(own: &OwnAddresses, targets: &[SocketAddr], former: FormerEnds) -> Vec<Way> {
    let chosen: Vec<_> = targets.iter().map(|target| (*target, chosen_source(*target))).collect();
    ways(&own.find_up(former.own), &chosen, former)
}

/// The address from which the kernel would connect to `target`. Sends nothing.
fn chosen_source(target: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(target).ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}

/// `chosen`: the follower's addresses, and from which of this host the kernel would dial each. In this order:
///
/// * ways of which both ends are others than those of the lost channel, those of which one is, the lost one;
/// * ways between neighbours, those through routers;
/// * those that the kernel would take, others;
/// * those of the first addresses of both hosts, of the second ones, and so on; then each of the peer's with the next one of this host. So a NIC that
///   is dead at either end costs one try, and not one with each NIC of the other.
///
/// But that is a guess: the networks of other NICs may carry nothing to the peer, and a channel that was reset only may be made anew as it was. So every
/// second one is a way of the kernel's, and the lost one is among the first. Only others are left out if there are too many.
fn ways(own: &[Interface], chosen: &[(SocketAddr, Option<IpAddr>)], former: FormerEnds) -> Vec<Way> {
    let mut found = Vec::new();
    let same = |one: IpAddr, other: Option<IpAddr>| u8::from(other.is_some_and(|other| one == other));
    for (number, (target, kernels)) in chosen.iter().enumerate() {
        let is_near = |address: IpAddr| {
            own.iter().any(|one| one.network.addr() == address && one.network.contains(&target.ip()))
        };
        let is_former = same(target.ip(), Some(former.peer));
        let is_far = kernels.is_none_or(|address| !is_near(address));
        let order = (is_former + same(former.own, *kernels), is_far, 0, number);
        found.push((order, Way { source: None, target: *target }));
        for (place, one) in own.iter().enumerate() {
            let address = one.network.addr();
            if Some(address) == *kernels || !is_like(address, target.ip()) {
                continue;
            }
            let shift = (place + own.len() - number % own.len()) % own.len();
            let order = (is_former + same(address, Some(former.own)), !is_near(address), 1 + shift, number);
            let source = Some(Source { address, interface: Some(one.name.clone()) });
            found.push((order, Way { source, target: *target }));
        }
    }
    found.sort_by_key(|(order, _)| *order);
    let lost = found.iter().position(|((former_ends, ..), _)| *former_ends == 2).map(|at| found.remove(at));
    let (kernels, bound): (Vec<_>, Vec<_>) = found.into_iter().partition(|(_, way)| way.source.is_none());
    let room = MOST.saturating_sub(kernels.len() + usize::from(lost.is_some()));
    let is_first = kernels.first().map(|(order, _)| order) < bound.first().map(|(order, _)| order);
    let bound = bound.into_iter().take(room);
    let mut found = if is_first { in_turn(kernels, bound) } else { in_turn(bound, kernels) };
    if let Some(lost) = lost {
        found.insert(found.len().min(BEFORE_LOST), lost);
    }
    found.into_iter().map(|(_, way)| way).collect()
}

/// One of each in turn, while both have some.
fn in_turn<T>(one: impl IntoIterator<Item = T>, other: impl IntoIterator<Item = T>) -> Vec<T> {
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut all = Vec::new();
    loop {
        let pair = [one.next(), other.next()];
        if pair.iter().all(Option::is_none) {
            return all;
        }
        all.extend(pair.into_iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn interfaces(networks: &[&str]) -> Vec<Interface> {
        let of = |(number, network): (usize, &&str)| {
            Interface::new(&format!("eth{number}"), network.parse().unwrap())
        };
        networks.iter().enumerate().map(of).collect()
    }

    fn order(networks: &[&str], chosen: &[(&str, Option<&str>)], former: (&str, &str)) -> Vec<String> {
        let chosen: Vec<_> =
            chosen.iter().map(|(target, own)| (SocketAddr::new(ip(target), 7), own.map(ip))).collect();
        let former = FormerEnds { own: ip(former.0), peer: ip(former.1) };
        ways(&interfaces(networks), &chosen, former).iter().map(ToString::to_string).collect()
    }

    /// As on hosts of which each NIC has a network of its own.
    #[test]
    fn another_network_is_tried_as_the_kernel_has_it() {
        let chosen = [("10.0.0.2", Some("10.0.0.1")), ("10.0.1.2", Some("10.0.1.1"))];
        let found = order(&["10.0.0.1/24", "10.0.1.1/24"], &chosen, ("10.0.0.1", "10.0.0.2"));
        let expected = [
            "10.0.1.2:7",
            "10.0.0.2:7 from 10.0.1.1 (eth1)",
            "10.0.0.2:7",
            "10.0.1.2:7 from 10.0.0.1 (eth0)",
        ];
        assert_eq!(found, expected);
    }

    /// All NICs in one network: the kernel's route to all of the peer's addresses leads over the first one.
    #[test]
    fn own_addresses_are_tried_where_all_routes_lead_over_one_interface() {
        let near = Some("10.0.0.1");
        let chosen = [("10.0.0.11", near), ("10.0.0.12", near), ("10.0.0.13", near)];
        let networks = ["10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24"];
        let found = order(&networks, &chosen, ("10.0.0.1", "10.0.0.11"));
        let first = [
            "10.0.0.12:7 from 10.0.0.2 (eth1)",
            "10.0.0.12:7",
            "10.0.0.11:7",
            "10.0.0.13:7 from 10.0.0.3 (eth2)",
        ];
        assert_eq!(found[..4], first);
        let one = order(&networks, &[("203.0.113.7", near)], ("10.0.0.1", "203.0.113.7"));
        let expected = ["203.0.113.7:7 from 10.0.0.2 (eth1)", "203.0.113.7:7 from 10.0.0.3 (eth2)"];
        assert_eq!((&one[..2], one[2].as_str()), (&expected.map(str::to_owned)[..], "203.0.113.7:7"));
    }

    #[test]
    fn without_an_own_address_the_kernel_chooses() {
        assert_eq!(order(&[], &[("10.0.0.2", None)], ("10.0.0.1", "10.0.0.2")), ["10.0.0.2:7"]);
        let found = order(&["2001:db8::1/64"], &[("10.0.0.2", None)], ("10.0.0.1", "10.0.0.2"));
        assert_eq!(found, ["10.0.0.2:7"], "an address of the other family");
    }

    /// Eight NICs with networks of their own, and one more, over which the channel was, and which alone leads to the peer's ninth.
    #[test]
    fn the_only_network_that_carries_it_is_tried_soon() {
        let networks: Vec<_> = (0..9).map(|net| format!("10.0.{net}.1/24")).collect();
        let networks: Vec<_> = networks.iter().map(String::as_str).collect();
        let chosen: Vec<_> = (0..9).map(|net| (format!("10.0.{net}.2"), format!("10.0.{net}.1"))).collect();
        let chosen: Vec<_> =
            chosen.iter().map(|(target, own)| (target.as_str(), Some(own.as_str()))).collect();
        let found = order(&networks, &chosen, ("10.0.8.1", "10.0.8.2"));
        assert_eq!((found.len(), found[BEFORE_LOST].as_str()), (MOST, "10.0.8.2:7"));
    }

    proptest! {
        /// Each pair has one way. Of those of the kernel's, and of the others, what differs from the lost channel at both ends comes before what
        /// does not; the lost one is among the first, and so is one of the kernel's to each of the peer's addresses.
        #[test]
        fn every_pair_is_tried_once(
            (own, targets) in (0..9_u8, 1..40_u8),
            nets in 1..9_u8,
            (own_former, peer_former) in (0..9_u8, 0..40_u8),
        ) {
            // The kernel's routes lead over the first interfaces, as many as there are networks.
            let networks: Vec<_> = (0..own).map(|last| format!("10.0.0.{last}/24")).collect();
            let networks: Vec<_> = networks.iter().map(String::as_str).collect();
            let kernels = |target: u8| IpAddr::from([10, 0, 0, target % nets]);
            let chosen: Vec<_> = (0..targets)
                .map(|last| (SocketAddr::from(([10, 0, 1, last], 7)), Some(kernels(last))))
                .collect();
            let former = FormerEnds { own: [10, 0, 0, own_former].into(), peer: [10, 0, 1, peer_former].into() };
            let found = ways(&interfaces(&networks), &chosen, former);
            let own_of = |way: &Way| match (&way.source, way.target.ip()) {
                (Some(source), _) => source.address,
                (None, IpAddr::V4(target)) => kernels(target.octets()[3]),
                (None, IpAddr::V6(_)) => unreachable!(),
            };
            let mut pairs: Vec<_> = found.iter().map(|way| (own_of(way), way.target)).collect();
            let class = |(own, target): &(IpAddr, SocketAddr)| {
                u8::from(*own == former.own) + u8::from(target.ip() == former.peer)
            };
            for is_kernels in [false, true] {
                let those = found.iter().zip(&pairs).filter(|(way, _)| way.source.is_none() == is_kernels);
                let classes: Vec<_> = those.map(|(_, pair)| class(pair)).filter(|class| *class < 2).collect();
                prop_assert!(classes.is_sorted(), "{found:?}");
            }

            let is_own = |target: u8| target % nets < own;
            let every: usize = (0..targets).map(|target| usize::from(own) + usize::from(!is_own(target))).sum();
            prop_assert_eq!(pairs.len(), every.min(MOST));
            let lost = pairs.iter().position(|pair| class(pair) == 2);
            let had_lost = peer_former < targets && (own_former < own || kernels(peer_former) == former.own);
            prop_assert_eq!(lost.is_some(), had_lost, "{:?}", found);
            prop_assert!(lost.is_none_or(|at| at <= BEFORE_LOST), "{found:?}");
            let of_kernel = |way: &&Way| way.source.is_none();
            let soon = 2 * usize::from(targets) + 1;
            prop_assert_eq!(found.iter().take(soon).filter(of_kernel).count(), usize::from(targets));
            pairs.sort();
            pairs.dedup();
            prop_assert_eq!(pairs.len(), found.len());
        }
    }
}

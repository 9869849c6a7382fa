//! Which addresses of this host a channel that is made anew may have.

use std::net::IpAddr;

use crate::config::Config;
use crate::control::{Exclusion, Interface, InterfaceRules, Kind, LinkState, interfaces, rank_interfaces};

/// What the configuration says of them. The follower is dialled at these addresses, the leader dials from them.
#[derive(Clone, Debug, Default)]
pub struct OwnAddresses {
    rules: InterfaceRules,
    /// If not empty: these, and no others.
    only: Vec<IpAddr>,
}

impl OwnAddresses {
    /// `FLAGCX_P2P_CONTROL_REDIAL_ADDRESSES`, else `FLAGCX_P2P_BIND`, else what `FLAGCX_SOCKET_IFNAME` and `FLAGCX_SOCKET_FAMILY`
    /// leave.
    pub fn from_config(config: &Config) -> Self {
        let bound = config.bind.filter(|bind| !bind.is_unspecified()).into_iter().collect();
        let told = config.control_redial_addresses.clone();
        let only = if told.is_empty() { bound } else { told };
        Self { rules: InterfaceRules::from_config(config), only }
    }

    /// The addresses, the best first, for a channel that had `former`. Those of interfaces without a link are among them: they may have one
    /// later. Reads the state of this host's interfaces.
    pub(super) fn find(&self, former: IpAddr) -> Vec<Interface> {
        self.of(&interfaces(), former)
    }

    /// The interfaces of the addresses that a channel may have which had `former`: what arrives through one of them is answered through it.
    pub fn interfaces(&self, former: IpAddr) -> Vec<String> {
        self.find(former).into_iter().map(|one| one.name).collect()
    }

    /// Those of [`OwnAddresses::find`] from which can be dialled now.
    pub(super) fn find_up(&self, former: IpAddr) -> Vec<Interface> {
        let mut found = self.find(former);
        found.retain(|one| one.link == LinkState::Up);
        found
    }

    /// The interface of a channel's address, if it has no link and another one that may lead to the peer has: the channel can be made anew
    /// before its peer is missed. Reads the state of this host's interfaces.
    pub fn find_lost_link(&self, channel: IpAddr) -> Option<Interface> {
        self.lost_link(&interfaces(), channel.to_canonical())
    }

    /// An address that no interface has says nothing: the channel may be of another network namespace.
    fn lost_link(&self, interfaces: &[Interface], channel: IpAddr) -> Option<Interface> {
        let is_up = |one: &Interface| one.link == LinkState::Up;
        let (up, lost): (Vec<_>, Vec<_>) =
            interfaces.iter().filter(|one| one.network.addr() == channel).partition(|one| is_up(one));
        let has_other = || self.of(interfaces, channel).iter().any(is_up);
        let lost = lost.first().filter(|_| up.is_empty() && has_other())?;
        Some((*lost).clone())
    }

    fn of(&self, interfaces: &[Interface], former: IpAddr) -> Vec<Interface> {
        let ranked = rank_interfaces(interfaces, &self.rules);
        let may_have = ranked.iter().filter(|one| matches!(one.choice, Ok(_) | Err(Exclusion::Link(_))));
        let is_fit = |one: &&Interface| {
            let address = one.network.addr();
            match self.only.is_empty() {
                true => self.leads_to_the_peer(one, former),
                false => self.only.contains(&address) && is_like(address, former),
            }
        };
        may_have.map(|one| one.interface).filter(is_fit).cloned().collect()
    }

    /// Whether a peer that was reached over `former` may be reached over that one too. Bridges of containers, and addresses that a host
    /// gives itself, are the same on many hosts: they lead to a peer only if they did before.
    fn leads_to_the_peer(&self, one: &Interface, former: IpAddr) -> bool {
        let address = one.network.addr();
        if !is_like(address, former) {
            return false;
        }
        let has_route = one.default_v4.or(one.default_v6).is_some();
        let is_bridge = one.kind == Kind::Bridge || one.name.starts_with("docker");
        let is_inside = is_bridge && !has_route || is_link_local(address) && !is_link_local(former);
        let is_named = self.rules.names.as_ref().is_some_and(|names| !names.is_exclusion());
        address == former || is_named || !is_inside
    }
}

/// Of one family, and both of loopback or neither.
pub(super) fn is_like(one: IpAddr, other: IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4() && one.is_loopback() == other.is_loopback()
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.is_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Vec<Interface> {
        let of = |name: &str, network: &str| Interface::new(name, network.parse().unwrap());
        vec![
            Interface { kind: Kind::Loopback, ..of("lo", "127.0.0.1/8") },
            of("eth0", "192.0.2.1/24"),
            Interface { link: LinkState::NoCarrier, ..of("eth1", "198.51.100.1/24") },
            of("eth2", "2001:db8::1/64"),
            of("eth3", "169.254.7.7/16"),
            Interface { kind: Kind::Bridge, link: LinkState::NoCarrier, ..of("docker0", "172.17.0.1/16") },
            Interface { kind: Kind::Bridge, default_v4: Some(100), ..of("br0", "203.0.113.1/24") },
            Interface { kind: Kind::Tunnel, ..of("tun0", "10.8.0.1/24") },
        ]
    }

    fn own(settings: &[(&str, &str)]) -> OwnAddresses {
        OwnAddresses::from_config(&Config::from_source(&|name| {
            settings.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        }))
    }

    fn found(settings: &[(&str, &str)], former: &str) -> String {
        let found = own(settings).of(&host(), former.parse().unwrap());
        found.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn those_that_lead_to_other_hosts_are_found() {
        assert_eq!(found(&[], "192.0.2.1"), "br0 eth0 tun0 eth1");
        assert_eq!(found(&[], "2001:db8::1"), "eth2");
    }

    #[test]
    fn loopback_a_bridge_and_a_link_local_address_only_if_the_channel_had_one() {
        assert_eq!(found(&[], "127.0.0.1"), "lo");
        assert_eq!(found(&[], "172.17.0.1"), "br0 eth0 tun0 eth1 docker0");
        assert_eq!(found(&[], "169.254.7.7"), "br0 eth0 tun0 eth3 eth1");
    }

    #[test]
    fn the_configuration_decides() {
        assert_eq!(found(&[("FLAGCX_SOCKET_IFNAME", "=eth1,eth3")], "192.0.2.1"), "eth3 eth1");
        assert_eq!(found(&[("FLAGCX_SOCKET_IFNAME", "^eth,tun")], "192.0.2.1"), "br0");
        assert_eq!(found(&[("FLAGCX_SOCKET_IFNAME", "docker")], "192.0.2.1"), "docker0");
        assert_eq!(found(&[("FLAGCX_SOCKET_FAMILY", "AF_INET6")], "192.0.2.1"), "");
        assert_eq!(found(&[("FLAGCX_P2P_BIND", "192.0.2.1")], "192.0.2.1"), "eth0");
        assert_eq!(found(&[("FLAGCX_P2P_BIND", "0.0.0.0")], "192.0.2.1"), found(&[], "192.0.2.1"));
        let told = ("FLAGCX_P2P_CONTROL_REDIAL_ADDRESSES", "172.17.0.1,2001:db8::1");
        assert_eq!(found(&[told, ("FLAGCX_P2P_BIND", "192.0.2.1")], "192.0.2.1"), "docker0");
    }

    #[test]
    fn a_link_is_lost_where_another_one_may_take_its_place() {
        let lost = |settings, interfaces: &[Interface], channel: &str| {
            own(settings).lost_link(interfaces, channel.parse().unwrap()).map(|one| one.name)
        };
        let host = host();
        assert_eq!(lost(&[], &host, "198.51.100.1").as_deref(), Some("eth1"));
        assert_eq!(lost(&[], &host, "192.0.2.1"), None, "it has one");
        assert_eq!(lost(&[], &host, "192.0.2.99"), None, "no interface has the address");
        assert_eq!(
            lost(&[("FLAGCX_SOCKET_IFNAME", "=eth1")], &host, "198.51.100.1"),
            None,
            "no other may be used"
        );
        assert_eq!(lost(&[("FLAGCX_P2P_BIND", "198.51.100.1")], &host, "198.51.100.1"), None);
        let down = |one: &Interface| Interface { link: LinkState::Down, ..one.clone() };
        let all: Vec<_> = host.iter().map(down).collect();
        assert_eq!(lost(&[], &all, "198.51.100.1"), None, "no other has a link");
        let mut twice = host.clone();
        twice.push(Interface::new("eth9", "198.51.100.1/24".parse().unwrap()));
        assert_eq!(lost(&[], &twice, "198.51.100.1"), None, "it may go over the other one");
    }
}

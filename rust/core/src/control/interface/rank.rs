//! The order in which interfaces are chosen: a pure function of their descriptions.

use std::fmt;
use std::net::IpAddr;

use super::{Interface, InterfaceRules, Kind, LinkState};
use crate::config::AddressFamily;

/// An address, and its preference or the reason for its exclusion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranked<'a> {
    /// The address and its interface.
    pub interface: &'a Interface,
    /// Why it may be chosen, or why it is excluded.
    pub choice: Result<Preference, Exclusion>,
}

/// Why an address is chosen, the best reason first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Preference {
    /// Its name is asked for.
    Named,
    /// The host of `FLAGCX_COMM_ID` is in its subnet.
    Near,
    /// An InfiniBand interface (`ib*`).
    InfiniBand,
    /// A default route leaves through it.
    DefaultRoute,
    /// None of the others.
    Ordinary,
    /// A tunnel, as of a VPN: fewer peers are behind it, and it is slower.
    Tunnel,
    /// A bridge to this host's containers and virtual machines.
    Bridge,
    /// An IPv4 link-local address, which the host has assigned itself.
    LinkLocal,
    /// Loopback: peers of this host alone.
    Loopback,
}

/// Why an address is excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exclusion {
    /// Its interface is not up with carrier.
    Link(LinkState),
    /// `FLAGCX_SOCKET_IFNAME` names others.
    NotNamed,
    /// `FLAGCX_SOCKET_FAMILY` asks for the other family.
    Family,
    /// IPv6 link-local: valid only together with an interface of the peer.
    LinkLocalV6,
    /// IPv6 loopback: the original engine never takes it.
    LoopbackV6,
}

/// All addresses, the one to choose first, with the reason of each. Equal ones keep the order of the list.
///
/// With `FLAGCX_SOCKET_IFNAME` the first fitting name counts. Without: the subnet of `FLAGCX_COMM_ID`, then InfiniBand,
/// then the interface of the default route with the smallest metric (IPv4 before IPv6), then any other, tunnels,
/// bridges, IPv4 link-local addresses, loopback. An interface that is down or without carrier is never chosen.
pub fn rank_interfaces<'a>(interfaces: &'a [Interface], rules: &InterfaceRules) -> Vec<Ranked<'a>> {
    let mut ranked: Vec<_> =
        interfaces.iter().map(|interface| Ranked { interface, choice: judge(interface, rules) }).collect();
    // The sort is stable.
    ranked.sort_by_key(|one| match one.choice {
        Ok(preference) => (0, Some(preference), tie_break(one.interface, preference, rules)),
        Err(_) => (1, None, 0),
    });
    ranked
}

fn judge(one: &Interface, rules: &InterfaceRules) -> Result<Preference, Exclusion> {
    let address = one.network.addr();
    if rules.names.as_ref().is_some_and(|names| !names.matches(&one.name, None)) {
        return Err(Exclusion::NotNamed);
    }
    check_family(address, rules.family)?;
    if one.link != LinkState::Up {
        return Err(Exclusion::Link(one.link));
    }
    if rules.names.is_some() {
        return Ok(Preference::Named);
    }
    if rules.near.is_some_and(|near| one.network.contains(&near)) {
        return Ok(Preference::Near);
    }
    Ok(match one.kind {
        // By its name too, as in the original engine.
        Kind::Loopback => Preference::Loopback,
        _ if one.name.starts_with("lo") => Preference::Loopback,
        _ if is_link_local_v4(address) => Preference::LinkLocal,
        _ if one.name.starts_with("ib") => Preference::InfiniBand,
        _ if one.default_v4.or(one.default_v6).is_some() => Preference::DefaultRoute,
        Kind::Bridge => Preference::Bridge,
        _ if one.name.starts_with("docker") => Preference::Bridge,
        Kind::Tunnel => Preference::Tunnel,
        Kind::Ordinary => Preference::Ordinary,
    })
}

fn check_family(address: IpAddr, family: Option<AddressFamily>) -> Result<(), Exclusion> {
    match (address, family) {
        (IpAddr::V4(_), Some(AddressFamily::V6)) | (IpAddr::V6(_), Some(AddressFamily::V4)) => {
            Err(Exclusion::Family)
        }
        (IpAddr::V6(v6), _) if v6.is_loopback() => Err(Exclusion::LoopbackV6),
        (IpAddr::V6(v6), _) if v6.is_unicast_link_local() => Err(Exclusion::LinkLocalV6),
        _ => Ok(()),
    }
}

/// The smaller one is preferred among equals.
fn tie_break(one: &Interface, preference: Preference, rules: &InterfaceRules) -> u64 {
    match preference {
        Preference::Named => u64::from(is_link_local_v4(one.network.addr())),
        Preference::DefaultRoute => {
            let v4 = one.default_v4.filter(|_| rules.family != Some(AddressFamily::V6)).map(u64::from);
            // The kernel's metrics of the two families are not comparable.
            let v6 = one.default_v6.map(|metric| u64::from(metric) + (1 << 32));
            v4.or(v6).unwrap_or(u64::MAX)
        }
        _ => 0,
    }
}

fn is_link_local_v4(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.is_link_local())
}

impl fmt::Display for Preference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Named => "FLAGCX_SOCKET_IFNAME",
            Self::Near => "subnet of FLAGCX_COMM_ID",
            Self::InfiniBand => "InfiniBand interface",
            Self::DefaultRoute => "interface of the default route",
            Self::Ordinary => "network interface",
            Self::Tunnel => "tunnel",
            Self::Bridge => "bridge",
            Self::LinkLocal => "link-local address",
            Self::Loopback => "loopback",
        })
    }
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(link) => write!(f, "{link}"),
            Self::NotNamed => f.write_str("not in FLAGCX_SOCKET_IFNAME"),
            Self::Family => f.write_str("not of FLAGCX_SOCKET_FAMILY"),
            Self::LinkLocalV6 => f.write_str("IPv6 link-local"),
            Self::LoopbackV6 => f.write_str("IPv6 loopback"),
        }
    }
}

#[cfg(test)]
mod tests;

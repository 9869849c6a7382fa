//! Which of this host's addresses peers are told.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::host;
use crate::config::{AddressFamily, Config, NameList};

/// An address of a network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name of the interface.
    pub name: String,
    /// The address and its network.
    pub network: IpNet,
}

/// What an interface must be like.
#[derive(Clone, Debug, Default)]
pub struct InterfaceRules {
    /// `FLAGCX_SOCKET_IFNAME`: the names that may be chosen; `None` chooses by itself.
    pub names: Option<NameList>,
    /// `FLAGCX_SOCKET_FAMILY`.
    pub family: Option<AddressFamily>,
    /// The host of `FLAGCX_COMM_ID`: an interface in its subnet is preferred.
    pub near: Option<IpAddr>,
}

/// Where listeners bind, and what peers are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// For listeners; may be unspecified (`0.0.0.0`, `::`).
    pub bind: IpAddr,
    /// For peers; never unspecified.
    pub advertise: IpAddr,
    /// What it was chosen by, for an operator.
    pub reason: &'static str,
}

/// No address is suitable.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no network interface fits ({wanted}); this host has {found}")]
pub struct NoInterface {
    wanted: String,
    found: String,
}

/// The address that the configuration asks for, or the best that this host has.
pub fn local_address(config: &Config) -> Result<LocalAddress, NoInterface> {
    if let Some(bind) = config.bind.filter(|bind| !bind.is_unspecified()) {
        return Ok(LocalAddress { bind, advertise: bind, reason: "FLAGCX_P2P_BIND" });
    }
    let interfaces = interfaces();
    let rules = InterfaceRules {
        // Shorter texts count as unset, as in the original engine.
        names: config.socket_ifname.as_deref().filter(|names| names.len() > 1).map(NameList::parse),
        family: config.socket_family,
        near: config.comm_id.as_deref().and_then(numeric_host),
    };
    let Some((chosen, reason)) = choose_interface(&interfaces, &rules) else {
        let names = config.socket_ifname.as_deref().unwrap_or("any name");
        let wanted = format!("FLAGCX_SOCKET_IFNAME={names}, FLAGCX_SOCKET_FAMILY={:?}", rules.family);
        let found: Vec<_> =
            interfaces.iter().map(|one| format!("{} {}", one.name, one.network.addr())).collect();
        return Err(NoInterface { wanted, found: found.join(", ") });
    };
    let advertise = chosen.network.addr();
    Ok(LocalAddress { bind: config.bind.unwrap_or(advertise), advertise, reason })
}

/// Chooses an interface, and says by which rule. The first fitting one counts, in the order of the list.
///
/// Without names: the subnet of `near`, then InfiniBand (`ib*`), then anything but containers' bridges and loopback,
/// then `docker*`, then `lo*`. IPv6 loopback is never chosen, nor are IPv6 link-local addresses, which mean nothing
/// without an interface of the reader's own.
pub fn choose_interface<'a>(
    interfaces: &'a [Interface],
    rules: &InterfaceRules,
) -> Option<(&'a Interface, &'static str)> {
    let usable: Vec<_> =
        interfaces.iter().filter(|one| is_usable(one.network.addr(), rules.family)).collect();
    let first = |fits: &dyn Fn(&Interface) -> bool, reason| {
        usable.iter().copied().find(|one| fits(one)).map(|one| (one, reason))
    };
    if let Some(names) = &rules.names {
        return first(&|one| names.matches(&one.name, None), "FLAGCX_SOCKET_IFNAME");
    }
    let named = |one: &Interface, prefix: &str| one.name.starts_with(prefix);
    rules
        .near
        .and_then(|near| first(&|one| one.network.contains(&near), "subnet of FLAGCX_COMM_ID"))
        .or_else(|| first(&|one| named(one, "ib"), "InfiniBand interface"))
        .or_else(|| first(&|one| !named(one, "docker") && !named(one, "lo"), "first network interface"))
        .or_else(|| first(&|one| named(one, "docker"), "nothing but container bridges"))
        .or_else(|| first(&|one| named(one, "lo"), "nothing but loopback"))
}

fn is_usable(address: IpAddr, family: Option<AddressFamily>) -> bool {
    match address {
        IpAddr::V4(_) => family != Some(AddressFamily::V6),
        IpAddr::V6(v6) => {
            family != Some(AddressFamily::V4) && !v6.is_loopback() && !v6.is_unicast_link_local()
        }
    }
}

/// This host's interfaces in the kernel's order. Without a network there is still loopback.
fn interfaces() -> Vec<Interface> {
    let listed = if_addrs::get_if_addrs()
        .inspect_err(|error| tracing::warn!("cannot list network interfaces: {error}"))
        .unwrap_or_default();
    let mut interfaces: Vec<_> = listed.into_iter().filter_map(to_interface).collect();
    if interfaces.is_empty() {
        let network = IpNet::from(IpAddr::V4(Ipv4Addr::LOCALHOST));
        interfaces.push(Interface { name: "lo".to_owned(), network });
    }
    interfaces
}

fn to_interface(listed: if_addrs::Interface) -> Option<Interface> {
    let prefix = match &listed.addr {
        if_addrs::IfAddr::V4(v4) => v4.prefixlen,
        if_addrs::IfAddr::V6(v6) => v6.prefixlen,
    };
    let network = IpNet::new(listed.ip(), prefix).ok()?;
    Some(Interface { name: listed.name, network })
}

/// The host of `host:port`, if it is an address: names would mean waiting for a name server here.
fn numeric_host(text: &str) -> Option<IpAddr> {
    host::split_session(text).ok().and_then(|(host, _)| host::parse_address(host).map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(&str, &str)]) -> Vec<Interface> {
        entries
            .iter()
            .map(|(name, network)| Interface { name: (*name).to_owned(), network: network.parse().unwrap() })
            .collect()
    }

    fn chosen(entries: &[(&str, &str)], rules: &InterfaceRules) -> Option<String> {
        choose_interface(&list(entries), rules).map(|(one, _)| one.network.addr().to_string())
    }

    const HOST: &[(&str, &str)] = &[
        ("lo", "127.0.0.1/8"),
        ("docker0", "172.17.0.1/16"),
        ("eth0", "192.0.2.7/24"),
        ("eth1", "198.51.100.7/24"),
        ("lo", "::1/128"),
        ("eth0", "fe80::7/64"),
        ("eth1", "2001:db8::7/64"),
    ];

    #[test]
    fn the_order_of_preference() {
        let rules = InterfaceRules::default();
        assert_eq!(chosen(HOST, &rules).unwrap(), "192.0.2.7");
        let with_ib = [HOST, &[("ib0", "203.0.113.7/24")]].concat();
        assert_eq!(chosen(&with_ib, &rules).unwrap(), "203.0.113.7");
        assert_eq!(chosen(&HOST[..2], &rules).unwrap(), "172.17.0.1");
        assert_eq!(chosen(&HOST[..1], &rules).unwrap(), "127.0.0.1");
        assert_eq!(chosen(&HOST[4..6], &rules), None);
        assert_eq!(chosen(&[], &rules), None);
    }

    #[test]
    fn rules_restrict_the_choice() {
        let named =
            |names| InterfaceRules { names: Some(NameList::parse(names)), ..InterfaceRules::default() };
        assert_eq!(chosen(HOST, &named("eth1")).unwrap(), "198.51.100.7");
        assert_eq!(chosen(HOST, &named("^eth,docker")).unwrap(), "127.0.0.1");
        assert_eq!(chosen(HOST, &named("=eth")), None);
        let family = |family| InterfaceRules { family: Some(family), ..InterfaceRules::default() };
        assert_eq!(chosen(HOST, &family(AddressFamily::V6)).unwrap(), "2001:db8::7");
        assert_eq!(chosen(HOST, &family(AddressFamily::V4)).unwrap(), "192.0.2.7");
        let near =
            InterfaceRules { near: Some("198.51.100.99".parse().unwrap()), ..InterfaceRules::default() };
        assert_eq!(chosen(HOST, &near).unwrap(), "198.51.100.7");
    }

    fn config_of(settings: &[(&str, &str)]) -> Config {
        Config::from_source(&|name| {
            settings.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_configuration_decides() {
        let local = local_address(&config_of(&[("FLAGCX_P2P_BIND", "127.0.0.1")])).unwrap();
        assert_eq!(
            (local.bind.to_string(), local.advertise.to_string()),
            ("127.0.0.1".into(), "127.0.0.1".into())
        );
        let local = local_address(&config_of(&[("FLAGCX_P2P_BIND", "0.0.0.0")])).unwrap();
        assert!(local.bind.is_unspecified() && !local.advertise.is_unspecified());
        let error = local_address(&config_of(&[("FLAGCX_SOCKET_IFNAME", "=no-such-interface")])).unwrap_err();
        assert!(error.to_string().contains("no-such-interface"), "{error}");
        assert_eq!(numeric_host("192.0.2.1:99"), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(numeric_host("[2001:db8::1]:99"), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(numeric_host("node7:99"), None);
    }
}

//! Selection of the addresses that listeners bind to and that is announced to peers.

mod facts;
mod rank;
mod routes;

use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;

pub use rank::{Exclusion, Preference, Ranked, rank_interfaces};

use super::advertise::{AdvertiseError, Advertised};
use super::host;
use crate::config::{AddressFamily, Config, NameList};

/// An address of a network interface, with the state of the interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name of the interface.
    pub name: String,
    /// The address and its network.
    pub network: IpNet,
    /// Its link state.
    pub link: LinkState,
    /// What it is.
    pub kind: Kind,
    /// The smallest metric of the IPv4 default routes that leave through it.
    pub default_v4: Option<u32>,
    /// The same for IPv6.
    pub default_v6: Option<u32>,
}

/// The link state of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Up, with carrier.
    Up,
    /// Administratively down.
    Down,
    /// Up, without carrier.
    NoCarrier,
    /// Down, without carrier, or with a driver that is not ready.
    NotRunning,
}

/// The kind of an interface. Bonds, VLANs and veth ends are ordinary: they lead to other hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// None of the others.
    Ordinary,
    /// A bridge.
    Bridge,
    /// A tunnel.
    Tunnel,
    /// Loopback.
    Loopback,
}

impl Interface {
    /// An ordinary interface that is up, without a default route.
    pub fn new(name: &str, network: IpNet) -> Self {
        let name = name.to_owned();
        Self { name, network, link: LinkState::Up, kind: Kind::Ordinary, default_v4: None, default_v6: None }
    }
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::NoCarrier => "no carrier",
            Self::NotRunning => "down or without carrier",
        })
    }
}

/// The rules by which an interface is chosen.
#[derive(Clone, Debug, Default)]
pub struct InterfaceRules {
    /// `FLAGCX_SOCKET_IFNAME`: the names that may be chosen; `None` chooses by itself.
    pub names: Option<NameList>,
    /// `FLAGCX_SOCKET_FAMILY`.
    pub family: Option<AddressFamily>,
    /// The host of `FLAGCX_COMM_ID`: an interface in its subnet is preferred.
    pub near: Option<IpAddr>,
}

impl InterfaceRules {
    /// The rules of a configuration.
    pub fn from_config(config: &Config) -> Self {
        Self {
            // Shorter texts count as unset, as in the original engine.
            names: config.socket_ifname.as_deref().filter(|names| names.len() > 1).map(NameList::parse),
            family: config.socket_family,
            near: config.comm_id.as_deref().and_then(numeric_host),
        }
    }
}

/// Addresses for listeners and for peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// For the control and notification listeners; may be unspecified (`0.0.0.0`, `::`).
    pub bind: IpAddr,
    /// This host's own address; never unspecified.
    pub own: IpAddr,
    /// The reason for the choice, for an operator.
    pub reason: String,
    /// `FLAGCX_P2P_ADVERTISE`: what is announced to peers instead of `own`.
    pub advertised: Option<Advertised>,
}

impl LocalAddress {
    /// The address that is announced to peers; never unspecified.
    pub fn told(&self) -> IpAddr {
        self.advertised.map_or(self.own, |advertised| advertised.ip)
    }

    /// The address for listeners that this engine announces itself: those for lanes and data. With an advertised
    /// address all addresses that `FLAGCX_P2P_BIND` allows, because the forwarder may connect to any of them.
    pub fn listen(&self) -> IpAddr {
        if self.advertised.is_some() { self.bind } else { self.own }
    }
}

/// There is no address that could be announced to peers.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AddressError {
    /// No interface fits.
    #[error("no usable network interface for {wanted}; this host has {found}")]
    NoInterface {
        /// The rules.
        wanted: String,
        /// The addresses of this host, and why each is excluded.
        found: String,
    },
    /// `FLAGCX_P2P_ADVERTISE` cannot be used.
    #[error(transparent)]
    Advertise(#[from] AdvertiseError),
}

/// The address that the configuration asks for, or the best that this host has. The name in `FLAGCX_P2P_ADVERTISE` is
/// looked up, within `FLAGCX_P2P_CONNECT_TIMEOUT_MS`.
pub fn local_address(config: &Config) -> Result<LocalAddress, AddressError> {
    let (own, reason) = own_address(config)?;
    let bind = config.bind.unwrap_or(own);
    let deadline = Instant::now() + config.connect_timeout;
    let advertised = config
        .advertise
        .as_ref()
        .map(|setting| Advertised::resolve(setting, own, config.socket_family, deadline))
        .transpose()?;
    Ok(LocalAddress { bind, own, reason, advertised })
}

/// This host's own address, and the reason for the choice. Resolves no name.
pub fn own_address(config: &Config) -> Result<(IpAddr, String), AddressError> {
    match config.bind.filter(|bind| !bind.is_unspecified()) {
        Some(bind) => Ok((bind, "FLAGCX_P2P_BIND".to_owned())),
        None => choose(&interfaces(), config),
    }
}

/// This host's interfaces, one for each address, in the kernel's order.
pub fn interfaces() -> Vec<Interface> {
    facts::interfaces()
}

fn choose(interfaces: &[Interface], config: &Config) -> Result<(IpAddr, String), AddressError> {
    let rules = InterfaceRules::from_config(config);
    let ranked = rank_interfaces(interfaces, &rules);
    if let Some(Ranked { interface, choice: Ok(preference) }) = ranked.first() {
        return Ok((interface.network.addr(), format!("{}: {preference}", interface.name)));
    }
    let names = config.socket_ifname.as_deref().unwrap_or("any name");
    let wanted = format!("FLAGCX_SOCKET_IFNAME={names}, FLAGCX_SOCKET_FAMILY={:?}", rules.family);
    let against = |one: &Ranked<'_>| {
        let exclusion = one.choice.err().map_or_else(String::new, |exclusion| format!(" ({exclusion})"));
        format!("{} {}{exclusion}", one.interface.name, one.interface.network.addr())
    };
    let found: Vec<_> = ranked.iter().map(against).collect();
    Err(AddressError::NoInterface { wanted, found: found.join(", ") })
}

/// The host of `host:port`, if it is an address: names would mean waiting for a name server here.
fn numeric_host(text: &str) -> Option<IpAddr> {
    host::split_session(text).ok().and_then(|(host, _)| host::parse_address(host).map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_of(settings: &[(&str, &str)]) -> Config {
        Config::from_source(&|name| {
            settings.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_configuration_decides() {
        let local = local_address(&config_of(&[("FLAGCX_P2P_BIND", "127.0.0.1")])).unwrap();
        assert_eq!((local.bind.to_string(), local.told()), ("127.0.0.1".into(), local.bind));
        let local = local_address(&config_of(&[("FLAGCX_P2P_BIND", "0.0.0.0")])).unwrap();
        assert!(local.bind.is_unspecified() && !local.told().is_unspecified());
        assert_eq!(local.listen(), local.own);
        let error = local_address(&config_of(&[("FLAGCX_SOCKET_IFNAME", "=no-such-interface")])).unwrap_err();
        assert!(error.to_string().contains("no-such-interface"), "{error}");
        assert_eq!(numeric_host("192.0.2.1:99"), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(numeric_host("[2001:db8::1]:99"), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(numeric_host("node7:99"), None);
    }

    #[test]
    fn the_advertised_address_is_announced_and_listeners_stay_where_they_are() {
        let settings = [("FLAGCX_P2P_BIND", "127.0.0.1"), ("FLAGCX_P2P_ADVERTISE", "203.0.113.7:80")];
        let local = local_address(&config_of(&settings)).unwrap();
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!((local.bind, local.own, local.listen()), (loopback, loopback, loopback));
        assert_eq!(local.told().to_string(), "203.0.113.7");
        assert_eq!(local.advertised.unwrap().port, Some(80));
        let settings = [("FLAGCX_P2P_BIND", "0.0.0.0"), ("FLAGCX_P2P_ADVERTISE", "203.0.113.7")];
        assert!(local_address(&config_of(&settings)).unwrap().listen().is_unspecified());
    }

    #[test]
    fn a_named_interface_that_is_down_is_reported_as_down() {
        let down =
            Interface { link: LinkState::Down, ..Interface::new("eth1", "192.0.2.7/24".parse().unwrap()) };
        let up = Interface::new("eth0", "198.51.100.7/24".parse().unwrap());
        let config = config_of(&[("FLAGCX_SOCKET_IFNAME", "=eth1")]);
        let error = choose(&[up, down], &config).unwrap_err().to_string();
        assert!(error.contains("FLAGCX_SOCKET_IFNAME==eth1"), "{error}");
        assert!(error.contains("eth1 192.0.2.7 (down)"), "{error}");
        assert!(error.contains("eth0 198.51.100.7 (not in FLAGCX_SOCKET_IFNAME)"), "{error}");
    }
}

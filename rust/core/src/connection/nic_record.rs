//! What is known of a NIC before it is opened: what peers are told of it.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use crate::control::{Interface, interfaces};
use crate::fabric::{Device, LINK_INFINIBAND, PortAttributes, Provider};

/// A NIC of an engine that may form a rail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicRecord {
    /// Its name on this host.
    pub name: String,
    /// Its port, from 1.
    pub port: u8,
    /// The speed of the port in Mbit/s; 0 if that is not known.
    pub speed_mbps: u32,
    /// The networks of its address, of InfiniBand its subnet; none where that is not known.
    pub networks: Vec<IpNet>,
    /// The link layer as on the wire: 1 InfiniBand, 2 Ethernet, 0x53 software; 0 for a port that cannot be asked.
    pub link_layer: u8,
    /// The path MTU of the port in bytes; 0 if that is not known.
    pub mtu: u32,
    /// Which provider it is of.
    pub provider: Provider,
}

/// Looks at the ports of `devices` as they are now.
pub(super) fn records<'a>(devices: impl Iterator<Item = &'a dyn Device>) -> Vec<NicRecord> {
    let interfaces = interfaces();
    devices.map(|device| record(device, &interfaces)).collect()
}

fn record(device: &dyn Device, interfaces: &[Interface]) -> NicRecord {
    let (attributes, port) = (device.attributes(), device.port().ok());
    NicRecord {
        name: attributes.name.clone(),
        port: attributes.port,
        speed_mbps: port.as_ref().map_or(0, |port| port.speed_mbps),
        networks: port.iter().filter_map(|port| network(port, interfaces)).collect(),
        link_layer: port.as_ref().map_or(0, |port| port.link_layer),
        mtu: port.as_ref().map_or(0, |port| port.mtu),
        provider: attributes.provider,
    }
}

/// The network that the GID in use is in: that of the interface with its address.
fn network(port: &PortAttributes, interfaces: &[Interface]) -> Option<IpNet> {
    let gid = Ipv6Addr::from(port.gid);
    if port.link_layer == LINK_INFINIBAND {
        return IpNet::new(gid.into(), SUBNET_PREFIX).ok().map(|network| network.trunc());
    }
    let address = gid.to_ipv4_mapped().map_or(IpAddr::V6(gid), IpAddr::V4);
    interfaces.iter().map(|interface| interface.network).find(|network| network.addr() == address)
}

/// The speed of a port in bytes per second.
pub(super) fn bytes_per_second(mbps: u32) -> u64 {
    u64::from(mbps) * 125_000
}

/// Bits of a GID that name the InfiniBand subnet.
const SUBNET_PREFIX: u8 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::{LINK_ETHERNET, LINK_SOFTWARE};

    fn port(link_layer: u8, gid: &str) -> PortAttributes {
        PortAttributes {
            active: true,
            link_layer,
            mtu: 4096,
            max_message: 1 << 30,
            speed_mbps: 400_000,
            lid: 0,
            traffic_class: 0,
            gid: gid.parse::<Ipv6Addr>().unwrap().octets(),
            gid_index: 0,
            gid_reason: String::new(),
        }
    }

    #[test]
    fn the_network_is_that_of_the_interface_with_the_address() {
        let interfaces = ["10.1.2.3/20", "10.9.0.1/24", "2001:db8::5/48"]
            .map(|network| Interface::new("eth", network.parse().unwrap()));
        let of = |link, gid: &str| network(&port(link, gid), &interfaces).map(|network| network.to_string());
        assert_eq!(of(LINK_ETHERNET, "::ffff:10.1.2.3").as_deref(), Some("10.1.2.3/20"));
        assert_eq!(of(LINK_SOFTWARE, "::ffff:10.9.0.1").as_deref(), Some("10.9.0.1/24"));
        assert_eq!(of(LINK_ETHERNET, "2001:db8::5").as_deref(), Some("2001:db8::5/48"));
        assert_eq!(of(LINK_ETHERNET, "::ffff:10.1.2.4"), None, "an address of another host");
        assert_eq!(of(LINK_INFINIBAND, "fec0:0:0:7:248a:703:ff:1").as_deref(), Some("fec0:0:0:7::/64"));
    }
}

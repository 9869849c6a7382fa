//! The list of networks that may connect.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};

/// Bits of an IPv4-mapped IPv6 address in front of the IPv4 address.
const MAPPED_BITS: u8 = 96;

/// Networks that may connect; an empty list permits every address. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct AllowList(Arc<[IpNet]>);

impl AllowList {
    /// A list of these networks. One of IPv4-mapped addresses, `::ffff:a.b.c.d/n`, stands for the IPv4 network of `n - 96`
    /// bits; with less than 96 bits it covers every IPv4 address, and the IPv6 addresses that have these bits.
    pub fn new(networks: &[IpNet]) -> Self {
        Self(networks.iter().flat_map(|network| normalised(*network)).flatten().collect())
    }

    /// Whether an address may connect. An IPv4 address in mapped form counts as IPv4.
    pub fn permits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.is_empty() || self.0.iter().any(|network| network.contains(&address))
    }
}

/// The network as it is compared with canonical addresses.
fn normalised(network: IpNet) -> [Option<IpNet>; 2] {
    let IpNet::V6(v6) = network else { return [Some(network), None] };
    let Some(address) = v6.addr().to_ipv4_mapped() else { return [Some(network), None] };
    match v6.prefix_len().checked_sub(MAPPED_BITS) {
        Some(bits) => [Ipv4Net::new(address, bits).ok().map(IpNet::V4), None],
        None => [Some(network), Some(IpNet::V4(Ipv4Net::default()))],
    }
}

/// Parses a list: addresses and networks, separated by commas. Bits behind the prefix length are ignored. The error
/// names the malformed element.
pub(crate) fn parse_networks(text: &str) -> Result<Vec<IpNet>, String> {
    let networks = text.split(',').enumerate().map(|(index, item)| parse_network(item.trim(), index + 1));
    let networks: Vec<_> = networks.collect::<Result<_, _>>()?;
    Ok(networks.into_iter().flat_map(normalised).flatten().collect())
}

fn parse_network(item: &str, number: usize) -> Result<IpNet, String> {
    if item.is_empty() {
        return Err(format!(
            "element {number} is empty; expected an address or address/prefix length (unset the variable to allow every \
             address)"
        ));
    }
    let (address, bits) = item.split_once('/').map_or((item, None), |(address, bits)| (address, Some(bits)));
    let address: IpAddr = address.parse().map_err(|_| {
        format!("element {number}, {item:?}: {address:?} is not a numeric IPv4 or IPv6 address")
    })?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let Some(bits) = bits else { return Ok(IpNet::from(address)) };
    let is_number = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
    let length = bits.parse().ok().filter(|length| is_number && *length <= most);
    let network = length.and_then(|length| IpNet::new(address, length).ok());
    network
        .ok_or_else(|| format!("element {number}, {item:?}: {bits:?} is not a prefix length of 0 to {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    fn list(text: &str) -> AllowList {
        AllowList::new(&parse_networks(text).unwrap())
    }

    #[test]
    fn a_mapped_network_is_that_of_ipv4() {
        for (text, address, expected) in [
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "::ffff:10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "11.1.2.3", false),
            ("::ffff:192.0.2.7", "192.0.2.7", true),
            ("::ffff:192.0.2.7", "192.0.2.8", false),
            ("::ffff:0:0/96", "203.0.113.9", true),
            ("::ffff:0:0/96", "2001:db8::1", false),
            ("::ffff:10.0.0.0/8", "203.0.113.9", true),
            ("::ffff:10.0.0.0/8", "2001:db8::1", false),
            ("::ffff:10.0.0.0/8", "::1", true),
            ("::/0", "2001:db8::1", true),
            ("::/0", "10.0.0.1", false),
            ("10.1.2.3/8", "10.200.0.1", true),
        ] {
            assert_eq!(list(text).permits(address.parse().unwrap()), expected, "{address} against {text}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused_by_its_name() {
        for (text, named) in [
            ("", "element 1 is empty"),
            ("10.0.0.0/8,", "element 2 is empty"),
            ("10.0.0.0/8,,::1", "element 2 is empty"),
            ("10.0.0.0/33", "\"33\" is not a prefix length of 0 to 32"),
            ("::/129", "\"129\""),
            ("::1,10.0.0.0/", "element 2"),
            ("10.0.0.0/+8", "\"+8\""),
            ("10.0.0.0/-1", "\"-1\""),
            ("10.0.0.0/8/8", "\"8/8\""),
            ("10.0.0.0/255.0.0.0", "prefix length"),
            ("10.0.0", "\"10.0.0\""),
            ("host.example", "host.example"),
            ("[::1]", "[::1]"),
            ("10.0.0.1 10.0.0.2", "10.0.0.1 10.0.0.2"),
        ] {
            let error = parse_networks(text).unwrap_err();
            assert!(error.contains(named), "{text:?}: {error}");
        }
    }

    proptest! {
        /// A mapped network of 96 bits and more permits what the network of IPv4 does, in both forms of an address.
        #[test]
        fn mapped_and_plain_are_one(network: [u8; 4], bits in 0u8..=32, address: [u8; 4], near: bool, flip in 0u32..32) {
            let network = Ipv4Addr::from(network);
            let near = near.then(|| Ipv4Addr::from(u32::from(network) ^ (1 << flip)));
            let address = near.unwrap_or_else(|| Ipv4Addr::from(address));
            let expected = bits == 0 || (u32::from(network) ^ u32::from(address)) >> (32 - u32::from(bits)) == 0;
            let (plain, mapped) = (format!("{network}/{bits}"), format!("::ffff:{network}/{}", bits + 96));
            for text in [plain, mapped] {
                prop_assert_eq!(list(&text).permits(address.into()), expected);
                prop_assert_eq!(list(&text).permits(address.to_ipv6_mapped().into()), expected);
            }
        }

        /// A network of IPv6 permits the addresses that have its first bits.
        #[test]
        fn ipv6_networks(network: u128, bits in 0u8..=128, flip in 0u32..128) {
            let network = network | (1 << 127);
            let address = Ipv6Addr::from(network ^ (1 << (127 - flip)));
            let list = list(&format!("{}/{bits}", Ipv6Addr::from(network)));
            prop_assert_eq!(list.permits(address.into()), u32::from(bits) <= flip);
        }

        #[test]
        fn no_text_panics(text in "[0-9a-f:./, ]{0,40}|.*") {
            if let Ok(networks) = parse_networks(&text) {
                prop_assert!(!networks.is_empty());
            }
        }
    }

    #[test]
    fn addresses_inside_a_network_may_connect() {
        let list = AllowList::new(&["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()]);
        for (address, expected) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.1", false),
            ("2001:db8::7", true),
            ("::1", false),
        ] {
            assert_eq!(list.permits(address.parse().unwrap()), expected, "{address}");
        }
        assert!(AllowList::default().permits("192.0.2.1".parse().unwrap()));
    }
}

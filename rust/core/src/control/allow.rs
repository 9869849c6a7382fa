//! The list of networks that may connect.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// Networks that may connect; an empty list lets everyone in. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct AllowList(Arc<[IpNet]>);

impl AllowList {
    /// A list of these networks.
    pub fn new(networks: &[IpNet]) -> Self {
        Self(networks.into())
    }

    /// Whether an address may connect. An IPv4 address in mapped form counts as IPv4.
    pub fn permits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.is_empty() || self.0.iter().any(|network| network.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

//! This host's interfaces: the kernel's list of addresses, its routes, and the attributes in sysfs.
//!
//! The list and the routes are those of the calling thread's network namespace. `/sys` may show another namespace, as
//! in a container that shares its host's: its attributes of an interface are used only if the index of the interface
//! is the same.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::routes::{DefaultRoutes, parse_v4, parse_v6};
use super::{Interface, Kind, LinkState};

/// This host's interfaces in the kernel's order. Without a network there is still loopback.
pub(super) fn interfaces() -> Vec<Interface> {
    let listed = if_addrs::get_if_addrs()
        .inspect_err(|error| tracing::warn!("cannot list network interfaces: {error}"))
        .unwrap_or_default();
    let routes = DefaultRoutes {
        v4: parse_v4(&read_bounded(Path::new("/proc/thread-self/net/route"))),
        v6: parse_v6(&read_bounded(Path::new("/proc/thread-self/net/ipv6_route"))),
    };
    let mut interfaces: Vec<_> =
        listed.into_iter().filter_map(|listed| to_interface(listed, &routes)).collect();
    if interfaces.is_empty() {
        let network = IpNet::from(IpAddr::V4(Ipv4Addr::LOCALHOST));
        interfaces.push(Interface { kind: Kind::Loopback, ..Interface::new("lo", network) });
    }
    interfaces
}

fn to_interface(listed: if_addrs::Interface, routes: &DefaultRoutes) -> Option<Interface> {
    let prefix = match &listed.addr {
        if_addrs::IfAddr::V4(v4) => v4.prefixlen,
        if_addrs::IfAddr::V6(v6) => v6.prefixlen,
    };
    let network = IpNet::new(listed.ip(), prefix).ok()?;
    let sysfs = Sysfs::of(&listed.name, listed.index);
    Some(Interface {
        link: if listed.is_oper_up() { LinkState::Up } else { sysfs.why_not_up() },
        kind: sysfs.kind(&listed),
        default_v4: routes.v4.get(&listed.name).copied(),
        default_v6: routes.v6.get(&listed.name).copied(),
        ..Interface::new(&listed.name, network)
    })
}

/// The folder of an interface; `None` where sysfs shows another network namespace.
struct Sysfs(Option<PathBuf>);

impl Sysfs {
    fn of(name: &str, index: Option<u32>) -> Self {
        // No interface has such a name; a path made of it would leave the folder.
        let is_name = !name.is_empty() && !name.contains('/') && !name.starts_with('.');
        let folder = is_name.then(|| Path::new("/sys/class/net").join(name));
        Self(folder.filter(|folder| {
            let number = read_bounded(&folder.join("ifindex"));
            index.is_some() && number.trim().parse().ok() == index
        }))
    }

    fn kind(&self, listed: &if_addrs::Interface) -> Kind {
        let has = |file: &str| self.0.as_ref().is_some_and(|folder| folder.join(file).exists());
        if listed.is_loopback() {
            return Kind::Loopback;
        }
        if has("bridge") || BRIDGES.iter().any(|prefix| listed.name.starts_with(prefix)) {
            return Kind::Bridge;
        }
        if listed.is_p2p() || has("tun_flags") {
            return Kind::Tunnel;
        }
        Kind::Ordinary
    }

    fn why_not_up(&self) -> LinkState {
        let Some(folder) = &self.0 else { return LinkState::NotRunning };
        let flags = read_bounded(&folder.join("flags"));
        let flags = flags.trim().strip_prefix("0x").and_then(|digits| u32::from_str_radix(digits, 16).ok());
        match flags {
            Some(flags) if flags & IFF_UP == 0 => LinkState::Down,
            // `carrier` cannot be read of an interface that is down.
            Some(_) if read_bounded(&folder.join("carrier")).trim() == "0" => LinkState::NoCarrier,
            _ => LinkState::NotRunning,
        }
    }
}

/// The beginning of a file of the kernel; empty where there is none. Default routes stand first in theirs, so what is
/// left of a full routing table of the Internet does not matter.
fn read_bounded(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        // After an error the part read so far is used.
        let _ = file.take(MOST_READ).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

const MOST_READ: u64 = 1 << 20;
const IFF_UP: u32 = 1;

/// Bridges of container and virtual machine managers, where sysfs is not available.
const BRIDGES: &[&str] =
    &["docker", "br-", "br0", "virbr", "cni", "podman", "lxcbr", "lxdbr", "vmbr", "xenbr"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_interfaces_with_a_state() {
        let found = interfaces();
        assert!(!found.is_empty());
        assert!(found.iter().any(|one| one.link == LinkState::Up), "{found:?}");
        for one in found.iter().filter(|one| one.network.addr().is_loopback()) {
            assert_eq!(one.kind, Kind::Loopback, "{one:?}");
        }
    }

    #[test]
    fn sysfs_of_another_namespace_is_not_believed() {
        assert!(Sysfs::of("lo", Some(u32::MAX)).0.is_none());
        assert!(Sysfs::of("lo", None).0.is_none());
        assert!(Sysfs::of("../net/lo", Some(1)).0.is_none());
        assert_eq!(Sysfs(None).why_not_up(), LinkState::NotRunning);
        assert_eq!(read_bounded(Path::new("/no/such/file")), "");
    }
}

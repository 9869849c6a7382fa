//! Whether the peer is on this host.

use std::net::IpAddr;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::LocalSide;
use crate::control::wire::Features;
use crate::fork::PerProcess;

/// Whether the peer at `ip` is on this host, which has the address `own`, as far as this side can see.
///
/// By addresses, like the original engine, unless one side advertises another address than its own: then hosts behind
/// one forwarder have the same address, and a tunnel's end on loopback leads to another host, so that the host tokens
/// of both sides decide.
pub(super) fn looks_local(local: &LocalSide<'_>, own: IpAddr, ip: IpAddr, theirs: Option<&Features>) -> bool {
    match theirs {
        Some(theirs) if local.advertise.is_some() || theirs.has(Features::ADVERTISED) => {
            theirs.host != 0 && theirs.host == host_token()
        }
        _ => ip == own || ip.is_loopback(),
    }
}

/// A token that is equal for all processes of one network namespace, hence of one address, and different elsewhere; 0
/// where the kernel does not give the namespace. A hash, from which the namespace cannot be derived.
pub(super) fn host_token() -> u64 {
    static TOKEN: PerProcess<u64> = PerProcess::new(|| {
        let boot = std::fs::read("/proc/sys/kernel/random/boot_id").ok();
        let namespace = std::fs::read_link(Path::new("/proc/self/ns/net")).ok();
        let (Some(boot), Some(namespace)) = (boot, namespace) else { return 0 };
        let mut hash = Sha256::new_with_prefix(b"flagcx-p2p/host/1/");
        hash.update(boot);
        hash.update(namespace.as_os_str().as_encoded_bytes());
        hash.finalize().first_chunk().copied().map_or(0, u64::from_le_bytes)
    });
    *TOKEN.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn see(advertise: Option<&str>, ip: &str, theirs: Option<Features>) -> bool {
        let own = "192.0.2.1".parse().unwrap();
        let local = LocalSide {
            gpu_index: 0,
            notify_port: 0,
            same_process: false,
            address: own,
            advertise: advertise.map(|ip| ip.parse().unwrap()),
            features: Features::default(),
            regions: &Vec::new,
            slices: &|sizes| sizes,
        };
        looks_local(&local, own, ip.parse().unwrap(), theirs.as_ref())
    }

    #[test]
    fn addresses_decide_unless_one_side_advertises() {
        let elsewhere = Features { host: !host_token(), ..Features::default() };
        let here = Features { host: host_token(), ..Features::default() };
        let advertising = |features| Features { bits: Features::ADVERTISED, ..features };
        assert_ne!(host_token(), 0);
        // By addresses, whatever the host tokens are: as original engines do.
        for theirs in [None, Some(here), Some(elsewhere)] {
            assert!(see(None, "192.0.2.1", theirs) && see(None, "127.0.0.1", theirs));
            assert!(!see(None, "192.0.2.2", theirs));
        }
        // Two hosts behind one forwarder, and one with its port published on our loopback.
        assert!(!see(Some("203.0.113.7"), "203.0.113.7", Some(advertising(elsewhere))));
        assert!(!see(None, "127.0.0.1", Some(advertising(elsewhere))));
        // Two processes of one host, which find each other through the forwarder.
        assert!(see(Some("203.0.113.7"), "203.0.113.7", Some(advertising(here))));
        assert!(see(Some("203.0.113.7"), "192.0.2.1", Some(here)));
        // A peer without a host token is on another host.
        assert!(!see(Some("203.0.113.7"), "203.0.113.7", Some(Features::default())));
    }
}

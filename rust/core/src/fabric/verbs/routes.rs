//! How packets reach a peer: by LID within a subnet of InfiniBand, by GID everywhere else.

use super::port::LocalPort;
use crate::fabric::{FabricError, LINK_ETHERNET, QpAddress};

/// The way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// Packets carry a global route header, from and to a GID.
    pub(super) global: bool,
    /// Destination on the link: the peer's LID, or that of the router. 0 on Ethernet.
    pub(super) dlid: u16,
}

impl Route {
    /// The way from `port` to `peer`. The local port and its link layer decide, not the link layer that the peer announces.
    pub(super) fn to(port: &LocalPort, peer: &QpAddress) -> Result<Self, FabricError> {
        if port.link_layer == LINK_ETHERNET {
            return Ok(Self { global: true, dlid: 0 });
        }
        let refused = |reason| FabricError::Peer { peer: peer.ip().to_string(), reason };
        // A peer that announces no GID can only be in the same subnet.
        let one_subnet = peer.gid == [0; 16] || subnet(&peer.gid) == subnet(&port.gid.gid);
        let global = !one_subnet || port.grh_required;
        if global && peer.gid == [0; 16] {
            return Err(refused(format!(
                "port {} wants a global route header with every packet, and it announces no GID",
                port.number
            )));
        }
        let lid = match flid(&peer.gid) {
            Some(router) if !one_subnet => u32::from(router),
            _ => peer.lid,
        };
        let dlid =
            u16::try_from(lid).map_err(|_| refused(format!("its LID {} does not fit 16 bits", peer.lid)))?;
        Ok(Self { global, dlid })
    }
}

/// The LID by which routers of InfiniBand pass packets on to another subnet ("FLID"): bytes 4 and 5 of a GID with a site-local
/// prefix. `None` where the subnet manager assigned none.
pub(super) fn flid(gid: &[u8; 16]) -> Option<u16> {
    let [_, _, _, _, high, low, ..] = *gid;
    Some(u16::from_be_bytes([high, low])).filter(|&flid| flid != 0)
}

/// The subnet prefix without the FLID, which may differ between the ports of a subnet.
fn subnet(gid: &[u8; 16]) -> [u8; 6] {
    let [a, b, c, d, _, _, e, f, ..] = *gid;
    [a, b, c, d, e, f]
}

#[cfg(test)]
mod tests {
    use super::super::gid::GidChoice;
    use super::*;
    use crate::fabric::LINK_INFINIBAND;

    fn gid(prefix: u64) -> [u8; 16] {
        (u128::from(prefix) << 64 | 7).to_be_bytes()
    }

    fn port(prefix: u64, grh_required: bool) -> LocalPort {
        let gid = GidChoice { index: 0, gid: gid(prefix), reason: String::new() };
        LocalPort { number: 1, link_layer: LINK_INFINIBAND, lid: 5, mtu: 5, gid, grh_required }
    }

    fn peer(gid: [u8; 16]) -> QpAddress {
        QpAddress { qpn: 77, gid, port: 1, link_layer: LINK_INFINIBAND, lid: 6, mtu: 5 }
    }

    fn route(from: u64, to: u64, grh_required: bool) -> (bool, u16) {
        let route = Route::to(&port(from, grh_required), &peer(gid(to))).unwrap();
        (route.global, route.dlid)
    }

    const LINK_LOCAL: u64 = 0xfe80_0000_0000_0000;
    const SITE: u64 = 0xfec0_0000_0000_0000;

    #[test]
    fn one_subnet_needs_a_lid_alone() {
        assert_eq!(route(LINK_LOCAL, LINK_LOCAL, false), (false, 6));
        assert_eq!(route(SITE | 0x0123_0001, SITE | 0x0456_0001, false), (false, 6), "FLIDs are not subnets");
        assert_eq!(Route::to(&port(LINK_LOCAL, false), &peer([0; 16])).unwrap().dlid, 6, "no GID");
    }

    #[test]
    fn a_port_may_want_the_header_within_its_subnet() {
        assert_eq!(route(LINK_LOCAL, LINK_LOCAL, true), (true, 6));
        let error = Route::to(&port(LINK_LOCAL, true), &peer([0; 16])).unwrap_err().to_string();
        assert!(error.contains("global route header") && error.contains("no GID"), "{error}");
    }

    #[test]
    fn another_subnet_is_reached_through_its_router() {
        assert_eq!(route(SITE | 1, SITE | 2, false), (true, 6), "no FLID: the LID");
        assert_eq!(route(SITE | 1, SITE | 0x0123_0002, false), (true, 0x123));
        let far = QpAddress { lid: 70_000, ..peer(gid(SITE | 0x0123_0002)) };
        assert_eq!(Route::to(&port(SITE | 1, false), &far).unwrap().dlid, 0x123, "its LID is not used");
    }
}

//! How a queue pair is made and reached.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

/// Sizes of a queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePairCaps {
    /// Work requests that may be outstanding.
    pub send_depth: u32,
    /// Scatter/gather entries per request.
    pub max_sge: u32,
    /// Bytes that may be sent inline.
    pub max_inline: u32,
}

/// All that a peer needs to reach a queue pair: the 40-byte record of the control handshake.
///
/// The software fabric uses link layer 0x53: `gid` is the data listener's IP (v4-mapped or v6), `lid` its TCP port,
/// `qpn` a number unique in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QpAddress {
    /// Queue pair number.
    pub qpn: u32,
    /// GID, network order.
    pub gid: [u8; 16],
    /// Port number.
    pub port: u8,
    /// Link layer: 1 InfiniBand, 2 Ethernet, 0x53 software.
    pub link_layer: u8,
    /// Local identifier, or TCP port.
    pub lid: u32,
    /// Path MTU as the verbs enumeration: 1 = 256 ... 5 = 4096.
    pub mtu: u8,
}

/// Link layer byte: InfiniBand.
pub const LINK_INFINIBAND: u8 = 1;
/// Link layer byte: Ethernet (RoCE).
pub const LINK_ETHERNET: u8 = 2;
/// Link layer byte: the software fabric.
pub const LINK_SOFTWARE: u8 = 0x53;

/// The name of a link layer, for a message.
pub fn link_name(link_layer: u8) -> String {
    match link_layer {
        LINK_INFINIBAND => "InfiniBand".to_owned(),
        LINK_ETHERNET => "Ethernet (RoCE)".to_owned(),
        LINK_SOFTWARE => "the software fabric".to_owned(),
        other => format!("unknown link layer {other:#04x}"),
    }
}

impl QpAddress {
    /// The GID read as an IP address (v4-mapped becomes v4).
    pub fn ip(&self) -> IpAddr {
        Ipv6Addr::from(self.gid).to_canonical()
    }
}

/// How to connect a queue pair.
#[derive(Clone, Copy, Debug)]
pub struct PathOptions {
    /// READs and atomics that this side may have outstanding. 1 towards a peer that does not say more.
    pub rd_atomic_initiator: u8,
    /// READs and atomics that this side accepts from the peer.
    pub rd_atomic_responder: u8,
    /// When to give up.
    pub deadline: Instant,
}

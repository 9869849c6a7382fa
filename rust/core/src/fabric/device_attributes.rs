//! What a device and its port are.

use std::fmt;

use super::Capabilities;

/// Provider families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Provider {
    /// libibverbs.
    Verbs,
    /// The software fabric of this crate.
    Software,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Verbs => "verbs",
            Self::Software => "software",
        })
    }
}

/// What does not change while a device is open.
#[derive(Clone, Debug)]
pub struct DeviceAttributes {
    /// Provider family.
    pub provider: Provider,
    /// Kernel name (`mlx5_0`, `sw0`).
    pub name: String,
    /// Port number in use, from 1.
    pub port: u8,
    /// Node GUID, host order, never zero.
    pub guid: u64,
    /// Resolved sysfs path of the device, always an existing path for the software device.
    pub pci_path: Option<String>,
    /// Work requests a queue pair may hold.
    pub max_queue_depth: u32,
    /// Entries a completion queue may hold.
    pub max_cq_depth: u32,
    /// Queue pairs the device can hold.
    pub max_queue_pairs: u32,
    /// Scatter/gather entries per request.
    pub max_sge: u32,
    /// Largest region in bytes.
    pub max_region: u64,
    /// READs and atomics that a queue pair may have outstanding as initiator.
    pub max_rd_atomic_initiator: u8,
    /// READs and atomics that a queue pair accepts as responder.
    pub max_rd_atomic_responder: u8,
    /// Whether dma-buf registration is offered.
    pub dma_buf: bool,
    /// What it can do otherwise, and what it needs.
    pub capabilities: Capabilities,
}

/// The state of a port.
#[derive(Clone, Debug)]
pub struct PortAttributes {
    /// Whether traffic can flow.
    pub active: bool,
    /// Link layer byte of the wire: 1 InfiniBand, 2 Ethernet, 0x53 software.
    pub link_layer: u8,
    /// Active path MTU in bytes.
    pub mtu: u32,
    /// Largest message of one work request, in bytes.
    pub max_message: u32,
    /// Speed in Mbit/s.
    pub speed_mbps: u32,
    /// Local identifier (InfiniBand), 0 otherwise.
    pub lid: u32,
    /// Traffic class of packets with a global route header, 0 to 255: the DSCP in the upper six bits.
    pub traffic_class: u8,
    /// GID in use.
    pub gid: [u8; 16],
    /// Its index in the port's table.
    pub gid_index: u8,
    /// Why this GID, in words for an operator.
    pub gid_reason: String,
}

/// One filled entry of a port's GID table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GidEntry {
    /// Place in the table.
    pub index: u8,
    /// The GID, network order.
    pub gid: [u8; 16],
    /// RoCE version, 1 or 2; `None` where there is none or the kernel does not say.
    pub roce_version: Option<u8>,
    /// Network interface that it belongs to, where the kernel says.
    pub netdev: Option<String>,
}

//! One port of a device: its state, its address, and the units that libibverbs counts in.

use super::context::VerbsContext;
use super::gid::{GidChoice, GidPreference};
use super::gid_table::{self, Candidate};
use super::sys::{ibv_port_attr, ibv_port_state};
use super::sysfs::DeviceFiles;
use crate::fabric::{FabricError, LINK_ETHERNET, LINK_INFINIBAND, PortAttributes};

/// `IBV_QPF_GRH_REQUIRED`, a flag of the port.
const GRH_REQUIRED: u8 = 1;
/// Largest message where the driver reports none, as `mana` does: what other NICs report.
const USUAL_MAX_MESSAGE: u32 = 1 << 30;

/// The local port as connecting needs it. Queue pairs keep a copy from their creation, so that the address announced
/// to the peer and the one in use stay the same.
#[derive(Clone, Debug)]
pub(super) struct LocalPort {
    pub(super) number: u8,
    pub(super) link_layer: u8,
    pub(super) lid: u16,
    /// Path MTU in the verbs enumeration, already limited by the options.
    pub(super) mtu: u8,
    pub(super) gid: GidChoice,
    /// Packets need a global route header even within the subnet (InfiniBand).
    pub(super) grh_required: bool,
}

impl LocalPort {
    /// Reads the port and chooses its GID. `Ok(None)`: it is not active.
    pub(super) fn read(
        context: &VerbsContext,
        files: &DeviceFiles,
        number: u8,
        preference: &GidPreference,
        max_mtu: u8,
    ) -> Result<Option<Self>, FabricError> {
        let attributes = context.query_port(number)?;
        if !is_active(&attributes) {
            return Ok(None);
        }
        let link_layer = link_layer(&attributes, files.link_layer(number));
        let name = format!("{} port {number}", context.name);
        let table = gid_table(context, files, number, link_layer, &attributes);
        let gid = preference.choose(&name, link_layer, gid_table_length(&attributes), &table, |entry| {
            gid_table::try_address(context, number, entry)
        })?;
        let mtu = u8::try_from(attributes.active_mtu).unwrap_or(u8::MAX).min(max_mtu);
        if mtu_bytes(mtu) == 0 {
            return Err(FabricError::Unsupported(format!("{name} reports an invalid MTU: check its link")));
        }
        let grh_required = attributes.flags & GRH_REQUIRED != 0;
        Ok(Some(Self { number, link_layer, lid: attributes.lid, mtu, gid, grh_required }))
    }

    /// The port's public description, from its current attributes and the traffic class of its queue pairs.
    pub(super) fn describe(&self, attributes: &ibv_port_attr, traffic_class: u8) -> PortAttributes {
        PortAttributes {
            active: is_active(attributes),
            link_layer: self.link_layer,
            mtu: mtu_bytes(self.mtu),
            max_message: max_message(attributes),
            speed_mbps: speed_mbps(attributes.active_width, attributes.active_speed),
            lid: u32::from(attributes.lid),
            traffic_class,
            gid: self.gid.gid,
            gid_index: self.gid.index,
            gid_reason: self.gid.reason.clone(),
        }
    }
}

/// The filled entries of a port's GID table.
pub(super) fn gid_table(
    context: &VerbsContext,
    files: &DeviceFiles,
    port: u8,
    link_layer: u8,
    attributes: &ibv_port_attr,
) -> Vec<Candidate> {
    gid_table::read(context, files, port, link_layer, gid_table_length(attributes))
}

/// Whether traffic can flow.
pub(super) fn is_active(attributes: &ibv_port_attr) -> bool {
    attributes.state == ibv_port_state::IBV_PORT_ACTIVE
}

/// The state by the names of the kernel's tools.
pub(super) fn state_name(attributes: &ibv_port_attr) -> &'static str {
    match attributes.state {
        ibv_port_state::IBV_PORT_DOWN => "DOWN",
        ibv_port_state::IBV_PORT_INIT => "INIT",
        ibv_port_state::IBV_PORT_ARMED => "ARMED",
        ibv_port_state::IBV_PORT_ACTIVE => "ACTIVE",
        ibv_port_state::IBV_PORT_ACTIVE_DEFER => "ACTIVE_DEFER",
        _ => "unknown",
    }
}

/// Link layer byte of the wire. Old drivers leave it unspecified: then the kernel's file says it, else that only a port of
/// InfiniBand has a LID.
pub(super) fn link_layer(attributes: &ibv_port_attr, of_files: Option<u8>) -> u8 {
    match (attributes.link_layer, of_files) {
        (0, Some(layer)) => layer,
        (0, None) if attributes.lid == 0 => LINK_ETHERNET,
        (0, None) => LINK_INFINIBAND,
        (layer, _) => layer,
    }
}

/// Bytes of the largest message. Zero is a driver that reports none, not a port that takes none.
fn max_message(attributes: &ibv_port_attr) -> u32 {
    match attributes.max_msg_sz {
        0 => USUAL_MAX_MESSAGE,
        bytes => bytes,
    }
}

/// The verbs enumeration's number of an MTU in bytes; `None` if it is none of 256, 512, 1024, 2048, 4096.
pub(super) fn mtu_code(bytes: u32) -> Option<u8> {
    (1..=5).find(|&code| mtu_bytes(code) == bytes)
}

/// Bytes of an MTU number; zero for a number that is none.
pub(super) fn mtu_bytes(code: u8) -> u32 {
    match code {
        1..=5 => 128 << code,
        _ => 0,
    }
}

fn gid_table_length(attributes: &ibv_port_attr) -> u32 {
    u32::try_from(attributes.gid_tbl_len).unwrap_or(0)
}

/// Speed from the width and lane speed codes of the InfiniBand specification.
fn speed_mbps(width: u8, speed: u8) -> u32 {
    let lanes = match width {
        1 => 1,
        2 => 4,
        4 => 8,
        8 => 12,
        16 => 2,
        _ => 0,
    };
    let lane = match speed {
        1 => 2_500,
        2 => 5_000,
        4 | 8 => 10_000,
        16 => 14_000,
        32 => 25_000,
        64 => 50_000,
        128 => 100_000,
        _ => 0,
    };
    lanes * lane
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mtu_numbers_and_bytes() {
        for (code, bytes) in [(1, 256), (2, 512), (3, 1024), (4, 2048), (5, 4096)] {
            assert_eq!((mtu_bytes(code), mtu_code(bytes)), (bytes, Some(code)));
        }
        assert_eq!((mtu_bytes(0), mtu_bytes(6), mtu_code(9000), mtu_code(0)), (0, 0, None, None));
    }

    #[test]
    fn speeds() {
        assert_eq!(speed_mbps(2, 32), 100_000);
        assert_eq!(speed_mbps(2, 64), 200_000);
        assert_eq!(speed_mbps(2, 128), 400_000);
        assert_eq!(speed_mbps(1, 1), 2_500);
        assert_eq!(speed_mbps(0, 0), 0);
    }
}

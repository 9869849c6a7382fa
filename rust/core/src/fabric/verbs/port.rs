//! One port of a device: its state, its address, and the units that libibverbs counts in.

use super::context::VerbsContext;
use super::gid::{GidChoice, GidPreference};
use super::sys::{ibv_port_attr, ibv_port_state};
use super::sysfs::DeviceFiles;
use crate::fabric::{FabricError, GidEntry, LINK_INFINIBAND, PortAttributes};

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
        let link_layer = link_layer(&attributes);
        let name = format!("{} port {number}", context.name);
        let table = gid_table(context, files, number, &attributes);
        let gid = preference.choose(&name, link_layer, gid_table_length(&attributes), &table)?;
        let mtu = u8::try_from(attributes.active_mtu).unwrap_or(u8::MAX).min(max_mtu);
        if mtu_bytes(mtu) == 0 {
            return Err(FabricError::Unsupported(format!("{name} reports an invalid MTU: check its link")));
        }
        Ok(Some(Self { number, link_layer, lid: attributes.lid, mtu, gid }))
    }

    /// The port's public description, from its current attributes.
    pub(super) fn describe(&self, attributes: &ibv_port_attr) -> PortAttributes {
        PortAttributes {
            active: is_active(attributes),
            link_layer: link_layer(attributes),
            mtu: mtu_bytes(self.mtu),
            max_message: attributes.max_msg_sz,
            speed_mbps: speed_mbps(attributes.active_width, attributes.active_speed),
            lid: u32::from(attributes.lid),
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
    attributes: &ibv_port_attr,
) -> Vec<GidEntry> {
    // An index is one byte in an address, so places beyond 255 cannot be used.
    let places = gid_table_length(attributes).min(256);
    (0..places)
        .filter_map(|place| {
            let gid = context.query_gid(port, place).filter(|gid| *gid != [0; 16])?;
            let index = u8::try_from(place).ok()?;
            let (roce_version, netdev) = (files.roce_version(port, index), files.netdev(port, index));
            Some(GidEntry { index, gid, roce_version, netdev })
        })
        .collect()
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

/// Link layer byte of the wire. Old drivers leave it unspecified, which means InfiniBand.
pub(super) fn link_layer(attributes: &ibv_port_attr) -> u8 {
    match attributes.link_layer {
        0 => LINK_INFINIBAND,
        layer => layer,
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

//! The arguments of `ibv_modify_qp` for INIT, RTR, RTS and ERROR: pure functions of the settings, the local port and
//! the peer's address.
#![allow(unsafe_code, reason = "a zeroed C structure")]

use super::port::LocalPort;
use super::routes::Route;
use super::sys::{
    ibv_access_flags as access, ibv_ah_attr, ibv_gid, ibv_global_route, ibv_qp_attr,
    ibv_qp_attr_mask as mask, ibv_qp_state as state,
};
use crate::fabric::{FabricError, PathOptions, QpAddress, VerbsOptions};

/// Rights of peers at a queue pair: what a region allows is checked on top.
const REMOTE_ACCESS: u32 = access::IBV_ACCESS_REMOTE_WRITE.0 | access::IBV_ACCESS_REMOTE_READ.0;
/// 0.64 ms: how long a peer waits after a receiver-not-ready answer. READ and WRITE never cause one.
const MIN_RNR_TIMER: u8 = 12;
/// Retry a receiver-not-ready answer for ever.
const RNR_RETRY: u8 = 7;
/// Routers a packet with a global route header may pass.
const HOP_LIMIT: u8 = 255;

/// Attributes and the mask of those that are set.
pub(super) type Transition = (ibv_qp_attr, mask);

/// The settings of every queue pair, from the options and the device.
#[derive(Clone, Debug)]
pub(super) struct QueuePairSettings {
    pub(super) timeout: u8,
    pub(super) retry_count: u8,
    pub(super) pkey_index: u16,
    pub(super) service_level: u8,
    pub(super) traffic_class: u8,
    /// READs and atomics outstanding as initiator, at most.
    pub(super) max_initiator: u8,
    /// READs and atomics accepted as responder, at most.
    pub(super) max_responder: u8,
    /// Peers may do atomics; a device without them refuses a queue pair that allows it.
    pub(super) atomics: bool,
}

/// What the settings take from the device and its port.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeviceLimits {
    pub(super) max_initiator: u8,
    pub(super) max_responder: u8,
    pub(super) atomics: bool,
    /// Traffic class that the operator gave the port.
    pub(super) traffic_class: Option<u8>,
}

impl QueuePairSettings {
    /// The settings of the provider's options.
    pub(super) fn new(options: &VerbsOptions, device: DeviceLimits) -> Self {
        Self {
            timeout: options.timeout,
            retry_count: options.retry_count,
            pkey_index: options.pkey_index,
            service_level: options.service_level,
            traffic_class: options.traffic_class.or(device.traffic_class).unwrap_or(0),
            max_initiator: device.max_initiator,
            max_responder: device.max_responder,
            atomics: device.atomics,
        }
    }

    /// RESET to INIT.
    pub(super) fn to_init(&self, port: &LocalPort) -> Transition {
        let mut attributes = no_attributes();
        attributes.qp_state = state::IBV_QPS_INIT;
        attributes.pkey_index = self.pkey_index;
        attributes.port_num = port.number;
        let atomics = if self.atomics { access::IBV_ACCESS_REMOTE_ATOMIC.0 } else { 0 };
        attributes.qp_access_flags = REMOTE_ACCESS | atomics;
        (
            attributes,
            mask::IBV_QP_STATE | mask::IBV_QP_PKEY_INDEX | mask::IBV_QP_PORT | mask::IBV_QP_ACCESS_FLAGS,
        )
    }

    /// INIT to RTR: ready to receive from `peer`.
    pub(super) fn to_rtr(
        &self,
        port: &LocalPort,
        peer: &QpAddress,
        options: &PathOptions,
    ) -> Result<Transition, FabricError> {
        let mut attributes = no_attributes();
        attributes.qp_state = state::IBV_QPS_RTR;
        attributes.path_mtu = u32::from(path_mtu(port, peer));
        attributes.dest_qp_num = peer.qpn;
        attributes.rq_psn = 0;
        attributes.max_dest_rd_atomic = options.rd_atomic_responder.min(self.max_responder);
        attributes.min_rnr_timer = MIN_RNR_TIMER;
        attributes.ah_attr = self.address_handle(port, peer)?;
        let fields = mask::IBV_QP_STATE
            | mask::IBV_QP_AV
            | mask::IBV_QP_PATH_MTU
            | mask::IBV_QP_DEST_QPN
            | mask::IBV_QP_RQ_PSN
            | mask::IBV_QP_MAX_DEST_RD_ATOMIC
            | mask::IBV_QP_MIN_RNR_TIMER;
        Ok((attributes, fields))
    }

    /// RTR to RTS: ready to send as well.
    pub(super) fn to_rts(&self, options: &PathOptions) -> Transition {
        let mut attributes = no_attributes();
        attributes.qp_state = state::IBV_QPS_RTS;
        attributes.timeout = self.timeout;
        attributes.retry_cnt = self.retry_count;
        attributes.rnr_retry = RNR_RETRY;
        attributes.sq_psn = 0;
        attributes.max_rd_atomic = options.rd_atomic_initiator.min(self.max_initiator);
        let fields = mask::IBV_QP_STATE
            | mask::IBV_QP_TIMEOUT
            | mask::IBV_QP_RETRY_CNT
            | mask::IBV_QP_RNR_RETRY
            | mask::IBV_QP_SQ_PSN
            | mask::IBV_QP_MAX_QP_RD_ATOMIC;
        (attributes, fields)
    }

    /// The address handle to the peer.
    fn address_handle(&self, port: &LocalPort, peer: &QpAddress) -> Result<ibv_ah_attr, FabricError> {
        let Route { global, dlid } = Route::to(port, peer)?;
        Ok(ibv_ah_attr {
            grh: ibv_global_route {
                dgid: ibv_gid { raw: if global { peer.gid } else { [0; 16] } },
                flow_label: 0,
                sgid_index: if global { port.gid.index } else { 0 },
                hop_limit: if global { HOP_LIMIT } else { 0 },
                traffic_class: if global { self.traffic_class } else { 0 },
            },
            dlid,
            sl: self.service_level,
            src_path_bits: 0,
            static_rate: 0,
            is_global: u8::from(global),
            port_num: port.number,
        })
    }
}

/// Any state to ERROR.
pub(super) fn to_error() -> Transition {
    let mut attributes = no_attributes();
    attributes.qp_state = state::IBV_QPS_ERR;
    (attributes, mask::IBV_QP_STATE)
}

/// The smaller of both ends' MTU numbers.
pub(super) fn path_mtu(port: &LocalPort, peer: &QpAddress) -> u8 {
    peer.mtu.min(port.mtu)
}

/// Zeroed attributes, to be filled.
pub(super) fn no_attributes() -> ibv_qp_attr {
    // SAFETY: integers and a union of bytes: zero is a value.
    unsafe { std::mem::zeroed() }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::gid::GidChoice;
    use super::*;
    use crate::fabric::{LINK_ETHERNET, LINK_INFINIBAND};

    fn settings() -> QueuePairSettings {
        QueuePairSettings::new(&verbs_options(Some(106)), device())
    }

    fn verbs_options(traffic_class: Option<u8>) -> VerbsOptions {
        VerbsOptions { service_level: 3, traffic_class, pkey_index: 2, ..VerbsOptions::default() }
    }

    fn device() -> DeviceLimits {
        DeviceLimits { max_initiator: 16, max_responder: 8, atomics: true, traffic_class: Some(8) }
    }

    fn port(link_layer: u8) -> LocalPort {
        let gid = GidChoice { index: 3, gid: [1; 16], reason: String::new() };
        LocalPort { number: 2, link_layer, lid: 5, mtu: 4, gid, grh_required: false }
    }

    fn peer(link_layer: u8) -> QpAddress {
        // In the subnet of `port`.
        let gid = [1, 1, 1, 1, 1, 1, 1, 1, 9, 9, 9, 9, 9, 9, 9, 9];
        QpAddress { qpn: 77, gid, port: 1, link_layer, lid: 6, mtu: 5 }
    }

    fn options() -> PathOptions {
        PathOptions { rd_atomic_initiator: 255, rd_atomic_responder: 255, deadline: Instant::now() }
    }

    #[test]
    fn ethernet_is_routed_by_gid_from_the_local_port() {
        let (attributes, _) =
            settings().to_rtr(&port(LINK_ETHERNET), &peer(LINK_ETHERNET), &options()).unwrap();
        let address = attributes.ah_attr;
        assert_eq!((address.is_global, address.port_num, address.dlid, address.sl), (1, 2, 0, 3));
        assert_eq!((address.grh.sgid_index, address.grh.hop_limit, address.grh.traffic_class), (3, 255, 106));
        // SAFETY: bytes.
        assert_eq!(unsafe { address.grh.dgid.raw }, peer(LINK_ETHERNET).gid);
        assert_eq!((attributes.path_mtu, attributes.dest_qp_num, attributes.max_dest_rd_atomic), (4, 77, 8));
    }

    #[test]
    fn infiniband_is_switched_by_lid() {
        let (attributes, _) =
            settings().to_rtr(&port(LINK_INFINIBAND), &peer(LINK_INFINIBAND), &options()).unwrap();
        let address = attributes.ah_attr;
        assert_eq!((address.is_global, address.port_num, address.dlid, address.sl), (0, 2, 6, 3));
        let far = QpAddress { lid: 70_000, ..peer(LINK_INFINIBAND) };
        let error = settings().to_rtr(&port(LINK_INFINIBAND), &far, &options()).err().unwrap().to_string();
        assert!(error.contains("70000"), "{error}");
    }

    #[test]
    fn infiniband_has_a_global_route_where_the_port_asks() {
        let port = LocalPort { grh_required: true, ..port(LINK_INFINIBAND) };
        let (attributes, _) = settings().to_rtr(&port, &peer(LINK_INFINIBAND), &options()).unwrap();
        let address = attributes.ah_attr;
        assert_eq!((address.is_global, address.dlid, address.grh.hop_limit), (1, 6, 255));
        assert_eq!((address.grh.sgid_index, address.grh.traffic_class), (3, 106));
    }

    #[test]
    fn the_traffic_class_is_the_variables_then_the_ports_then_zero() {
        let class = |set, of_port| {
            let limits = DeviceLimits { traffic_class: of_port, ..device() };
            QueuePairSettings::new(&verbs_options(set), limits).traffic_class
        };
        assert_eq!([class(Some(106), Some(8)), class(None, Some(8)), class(None, None)], [106, 8, 0]);
        assert_eq!(class(Some(0), Some(8)), 0, "zero, when set, is meant");
    }

    #[test]
    fn peers_have_no_atomics_at_a_device_without_them() {
        let without = QueuePairSettings { atomics: false, ..settings() };
        assert_eq!(without.to_init(&port(LINK_ETHERNET)).0.qp_access_flags, 0x6);
    }

    #[test]
    fn the_rest_comes_from_the_options() {
        let (init, _) = settings().to_init(&port(LINK_ETHERNET));
        assert_eq!((init.port_num, init.pkey_index, init.qp_access_flags), (2, 2, 0xe));
        let (rts, _) = settings().to_rts(&options());
        assert_eq!((rts.timeout, rts.retry_cnt, rts.rnr_retry, rts.max_rd_atomic), (18, 7, 7, 16));
        let one = PathOptions { rd_atomic_initiator: 1, rd_atomic_responder: 1, ..options() };
        assert_eq!(settings().to_rts(&one).0.max_rd_atomic, 1, "towards a peer that does not announce more");
    }
}

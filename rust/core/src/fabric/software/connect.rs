//! Connecting a queue pair: chooses the way to the peer and proves it.

use std::sync::Arc;

use super::completion_queue::Shared;
use super::device::{Core, local_device};
use super::endpoint::{Endpoint, listener_of};
use super::in_process::InProcess;
use super::queue_pair::Transport;
use crate::fabric::{FabricError, LINK_SOFTWARE, PathKind, PathOptions, QpAddress};

/// Finds the best way from `endpoint` to `peer` that works, or the forced one.
pub(super) fn connect(
    core: &Arc<Core>,
    endpoint: &Arc<Endpoint>,
    _completions: &Arc<Shared>,
    peer: &QpAddress,
    _path: &PathOptions,
) -> Result<Transport, FabricError> {
    check_peer(endpoint, peer)?;
    let transport = in_process(core, endpoint, peer)?;
    if !endpoint.set_peer(*peer) {
        return Err(refusal(peer, "this queue pair is connected already"));
    }
    core.publish_connection(endpoint, peer);
    Ok(transport)
}

fn check_peer(endpoint: &Endpoint, peer: &QpAddress) -> Result<(), FabricError> {
    if peer.link_layer != LINK_SOFTWARE {
        let reason = format!(
            "it offers link layer {:#x}, the software fabric is {LINK_SOFTWARE:#x}: both sides must use the same fabric",
            peer.link_layer
        );
        return Err(refusal(peer, &reason));
    }
    if peer.qpn == 0 || peer.lid == 0 || peer.lid > u32::from(u16::MAX) {
        return Err(refusal(peer, "its address has no queue pair number or no port"));
    }
    if endpoint.peer().is_some() {
        return Err(refusal(peer, "this queue pair is connected already"));
    }
    if endpoint.is_error() {
        return Err(refusal(peer, "this queue pair is in ERROR"));
    }
    Ok(())
}

fn in_process(core: &Core, endpoint: &Endpoint, peer: &QpAddress) -> Result<Transport, FabricError> {
    let Some(device) = local_device(listener_of(peer)) else {
        return Err(refusal(peer, "it is not in this process"));
    };
    let Some(remote) = device.queue_pair(peer.qpn) else {
        return Err(refusal(peer, "this process has no such queue pair"));
    };
    if let Some(force) = core.options.force.filter(|force| *force != PathKind::InProcess) {
        return Err(refusal(peer, &format!("the forced path {force} is not available")));
    }
    endpoint.set_neighbour(&remote);
    Ok(Transport::InProcess(InProcess::new(remote, device)))
}

/// An error about `peer`.
pub(super) fn refusal(peer: &QpAddress, reason: &str) -> FabricError {
    FabricError::Peer {
        peer: format!("{} queue pair {}", listener_of(peer), peer.qpn),
        reason: reason.to_owned(),
    }
}

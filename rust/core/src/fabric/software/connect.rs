//! Connecting a queue pair: chooses the way to the peer and proves it.

use std::os::fd::AsFd;
use std::sync::Arc;

use super::copier::Copier;
use super::device_core::{Core, local_device};
use super::dial::{CONNECTING, DialError, dial_patiently};
use super::endpoint::{Endpoint, listener_of};
use super::hello::{Offer, Reception};
use super::identity::Identity;
use super::redial::Dialer;
use super::same_host::SameHost;
use super::socket_watch::SocketWatch;
use super::tcp::initiator::say_rest;
use super::tcp::way::TcpWay;
use super::transport::Transport;
use super::watched::WatchedSocket;
use crate::events::Waiter;
use crate::fabric::{FabricError, LINK_SOFTWARE, PathKind, PathOptions, QpAddress};
use crate::observe::report;

/// Finds the best way from `endpoint` to `peer` that works, or the forced one.
pub(super) async fn connect(
    core: &Arc<Core>,
    endpoint: &Arc<Endpoint>,
    sockets: &Arc<SocketWatch>,
    peer: &QpAddress,
    path: &PathOptions,
    waiter: &Waiter,
) -> Result<Transport, FabricError> {
    check_peer(endpoint, peer)?;
    let listener = listener_of(peer);
    if let (Some(switches), Some(device)) = (core.switches(), local_device(listener))
        && !switches.reaches(device.name())
    {
        return Err(refusal(peer, "no route to it"));
    }
    let transport = match (local_device(listener), core.options.force) {
        (Some(device), None | Some(PathKind::InProcess)) => in_process(device, endpoint, peer)?,
        (None, Some(PathKind::InProcess)) => {
            return Err(refusal(
                peer,
                "the forced path in-process is not available: it is in another process",
            ));
        }
        (_, force) => over_socket(core, endpoint, sockets, peer, path, force, waiter).await?,
    };
    if !endpoint.set_peer(*peer) {
        return Err(refusal(peer, "this queue pair is connected already"));
    }
    core.publish_connection(endpoint, peer);
    let paths = transport.paths().get();
    if core.links.is_new(listener, &paths.to_string()) {
        report!(
            debug,
            PathChosen,
            peer = listener,
            device = core.name(),
            "a queue pair is connected by {paths}"
        );
    }
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

fn in_process(device: Arc<Core>, endpoint: &Endpoint, peer: &QpAddress) -> Result<Transport, FabricError> {
    let Some(remote) = device.queue_pair(peer.qpn) else {
        return Err(refusal(peer, "this process has no such queue pair"));
    };
    endpoint.set_neighbour(&remote);
    Ok(Transport::InProcess(Box::new(Copier::within_process(remote, device))))
}

/// Dials the peer's data listener; its answer shows whether its memory can be reached directly.
async fn over_socket(
    core: &Arc<Core>,
    endpoint: &Arc<Endpoint>,
    sockets: &Arc<SocketWatch>,
    peer: &QpAddress,
    path: &PathOptions,
    force: Option<PathKind>,
    waiter: &Waiter,
) -> Result<Transport, FabricError> {
    let listener = listener_of(peer);
    let offer = Offer { sender: endpoint.address, target: peer.qpn, identity: Identity::own() };
    let key = core.options.auth_key.as_ref();
    let (stream, answer) = dial_patiently(listener, &offer, key, path.deadline, waiter)
        .await
        .map_err(|error| unreached(peer, &error))?;
    if answer.reception != Reception::Welcome {
        return Err(refusal(peer, answer.reception.explain()));
    }
    let link = match force {
        Some(PathKind::Tcp) => None,
        _ => match core.links.get(listener, &answer, path.deadline, waiter).await {
            Ok(link) if force == Some(PathKind::CrossMemory) && link.denied().any() => {
                let reason = "the forced path cross-memory is not available: the kernel denies one direction (see the \
                              log), which would take TCP";
                return Err(refusal(peer, reason));
            }
            Ok(link) => Some(link),
            Err(reason) => {
                if let Some(force) = force {
                    return Err(refusal(
                        peer,
                        &format!("the forced path {force} is not available: {reason}"),
                    ));
                }
                if core.links.is_new(listener, &reason) {
                    report!(
                        info,
                        PathDenied,
                        peer = listener,
                        device = core.name(),
                        "no cross-memory path, using TCP: {reason}"
                    );
                }
                None
            }
        },
    };
    let dialer = Dialer::new(core, sockets, listener, offer, &answer);
    let Some(link) = link else {
        let socket = WatchedSocket::new(stream, sockets, endpoint.qpn())
            .map_err(|error| refusal(peer, &format!("cannot watch its socket: {error}")))?;
        return Ok(Transport::Tcp(TcpWay::open(dialer, socket)));
    };
    // It has served its purpose.
    say_rest(stream.as_fd());
    link.process().watch(endpoint);
    endpoint.set_peer_process(link.pid().as_raw_nonzero().get().unsigned_abs());
    let tcp = TcpWay::at_rest(dialer);
    let same_host = SameHost::new(link, tcp, endpoint.qpn(), answer.slot as usize, peer.qpn, force);
    Ok(Transport::SameHost(Box::new(same_host)))
}

/// An error about `peer`, which says where its address is from if no process was found there.
fn unreached(peer: &QpAddress, error: &DialError) -> FabricError {
    let origin = match error {
        DialError::Io { attempt: CONNECTING, .. } => ANNOUNCED,
        _ => "",
    };
    refusal(peer, &format!("{error}{origin}"))
}

const ANNOUNCED: &str = " (the peer announced this address for its data: its chosen interface's, or its \
    FLAGCX_P2P_ADVERTISE with a port of its FLAGCX_P2P_PORT_RANGE)";

/// An error about `peer`.
pub(super) fn refusal(peer: &QpAddress, reason: &str) -> FabricError {
    FabricError::Peer {
        peer: format!("{} queue pair {}", listener_of(peer), peer.qpn),
        reason: reason.to_owned(),
    }
}

//! The initiator's role.

use std::net::SocketAddr;
use std::time::Instant;

use super::authenticate::authenticate;
use super::dialogue::Dialogue;
use super::error::{HandshakeError, Step};
use super::{LaneSetup, Limits, LocalSide, Peer, Role, lane_listener, lanes, notify_link, tables};
use crate::control::Stream;
use crate::control::socket::connect_once;
use crate::control::wire::SocketKind;

/// Goes through the handshake on `bootstrap`, which is connected to the control listener `target`. All of it ends by
/// `deadline`.
pub fn initiate(
    bootstrap: Stream,
    target: SocketAddr,
    local: &LocalSide<'_>,
    lanes: &mut dyn LaneSetup,
    limits: &Limits,
    deadline: Instant,
) -> Result<Peer, HandshakeError> {
    let abort = limits.abort.as_ref();
    let dialogue = Dialogue { stream: &bootstrap, peer: target, role: Role::Initiator, deadline };

    dialogue.write(Step::Preamble, &SocketKind::Bootstrap.encode())?;
    let nowhere = || Ok((SocketAddr::new(local.address, 0), ()));
    let (entry, ()) = authenticate(&dialogue, local, limits, nowhere)?;

    // The peer has told this address just now: if it refuses, it is gone.
    let channel = connect_once(entry.address, deadline, abort)
        .map_err(|error| dialogue.fail(Step::LaneSocket, error))?;
    let connected_host = limits.connected_hosts.add(channel.peer().ip());
    let lane_dialogue = Dialogue { stream: &channel, ..dialogue };
    let session = entry.session.as_ref();
    lane_dialogue.write(Step::LaneSocket, &lane_listener::hello(session))?;
    let (capabilities, count) = lanes::set_up(&lane_dialogue, lanes, None)?;

    let ip = entry.address.ip();
    let looks_local = ip == local.address || ip.is_loopback();
    let meta = tables::exchange_metas(&dialogue, local, entry.features.as_ref(), looks_local)?;
    let key = limits.auth.as_ref().filter(|_| session.is_some());
    let notify = (meta.notify_port != 0 && !meta.same_process)
        .then(|| notify_link::connect(&channel, meta.notify_port, key, limits, deadline))
        .flatten();
    let regions = tables::exchange_regions(&dialogue, local.regions)?;

    Ok(super::finish(
        Peer {
            control: target,
            ip,
            gpu_index: meta.gpu_index,
            local: meta.local,
            same_process: meta.same_process,
            regions,
            features: entry.features,
            capabilities,
            lanes: count,
            notify,
            channel,
            connected_host,
        },
        limits,
    ))
}

//! The initiator's role.

use std::net::SocketAddr;
use std::time::Instant;

use super::authenticate::{Entry, authenticate};
use super::dialogue::Dialogue;
use super::error::{HandshakeError, PEER_TOLD, Reason, Step};
use super::opening::{Opening, say_hello};
use super::{LaneSetup, Limits, LocalSide, Peer, Role, lane_listener, lanes, locality, notify_link, tables};
use crate::control::Stream;
use crate::control::socket::connect_from;
use crate::control::wire::SocketKind;
use crate::events::{Waiter, run_blocking};

/// Performs the handshake on `bootstrap`, which is connected to the control listener `target`. Blocks until
/// `deadline` at most.
pub fn initiate(
    bootstrap: Stream,
    target: SocketAddr,
    local: &LocalSide<'_>,
    lanes: &mut dyn LaneSetup,
    limits: &Limits,
    deadline: Instant,
) -> Result<Peer, HandshakeError> {
    let waiter = Waiter::blocking(limits.abort.as_ref());
    run_blocking(initiate_with(bootstrap, target, local, lanes, limits, deadline, &waiter))
}

async fn initiate_with(
    bootstrap: Stream,
    target: SocketAddr,
    local: &LocalSide<'_>,
    lanes: &mut dyn LaneSetup,
    limits: &Limits,
    deadline: Instant,
    waiter: &Waiter,
) -> Result<Peer, HandshakeError> {
    let (bootstrap, entry) = begin(bootstrap, target, local, limits, deadline, waiter).await?;
    let dialogue = Dialogue { stream: &bootstrap, waiter, peer: target, role: Role::Initiator, deadline };

    // The peer has just announced this address: if it refuses, the peer has ended.
    let channel = connect_from(None, entry.address, deadline, limits.abort.as_ref(), waiter).await.map_err(
        |error| dialogue.fail(Step::LaneSocket, Reason::unreached(entry.address, PEER_TOLD, error)),
    )?;
    let links = notify_link::link_names(&local.features, &entry);
    let connected_host =
        limits.connected_hosts.add(channel.peer().ip()).with_link(links.map(|[_, theirs]| theirs));
    let lane_dialogue = Dialogue { stream: &channel, ..dialogue };
    let session = entry.session.as_ref();
    lane_dialogue.write(Step::LaneSocket, &lane_listener::hello(session)).await?;
    let (capabilities, count) = lanes::set_up(&lane_dialogue, lanes, None).await?;

    let ip = entry.address.ip();
    let looks_local = locality::looks_local(local, local.address, ip, entry.features.as_ref());
    let meta = tables::exchange_metas(&dialogue, local, entry.features.as_ref(), looks_local).await?;
    let key = limits.auth.as_ref().filter(|_| session.is_some());
    let owner = notify_link::owner(entry.features.as_ref());
    let link = links.map(|[ours, _]| ours);
    let notify = match meta.notify_port {
        0 => None,
        _ if meta.same_process => None,
        port => {
            notify_link::connect(
                &channel,
                &[channel.peer().ip()],
                port,
                (key, owner, link),
                limits,
                deadline,
                waiter,
            )
            .await
        }
    };
    let (notify, notify_route) = notify.unzip();
    let extras = local.region_extras(entry.features.as_ref());
    let regions = tables::exchange_regions(&dialogue, local, extras).await?;

    Ok(super::finish(
        Peer {
            control: target,
            ip,
            gpu_index: meta.gpu_index,
            local: meta.local,
            same_process: meta.same_process,
            regions,
            proven: session.is_some(),
            key: limits.auth.clone().filter(|_| session.is_some()),
            features: entry.features,
            capabilities,
            lanes: count,
            notify,
            notify_route: notify_route.flatten(),
            channel,
            connected_host,
        },
        limits,
    ))
}

/// Exchanges handles: with the opening that the peer accepted last, and, if it closes the socket without an answer,
/// once more with the other one. Returns the socket on which that succeeded.
///
/// With a key there is one opening, and one attempt: the other one is for peers that cannot prove a key.
async fn begin(
    bootstrap: Stream,
    target: SocketAddr,
    local: &LocalSide<'_>,
    limits: &Limits,
    deadline: Instant,
    waiter: &Waiter,
) -> Result<(Stream, Entry), HandshakeError> {
    let attempt = async |bootstrap: Stream, opening| {
        let dialogue = Dialogue { stream: &bootstrap, waiter, peer: target, role: Role::Initiator, deadline };
        dialogue.write(Step::Preamble, &SocketKind::Bootstrap.encode()).await?;
        if opening == Opening::Hello {
            say_hello(&dialogue).await?;
        }
        let nowhere = async || Ok((SocketAddr::new(local.advertise.unwrap_or(local.address), 0), ()));
        let (entry, ()) = authenticate(&dialogue, local, limits, nowhere).await?;
        Ok((bootstrap, entry))
    };
    if limits.auth.is_some() {
        return attempt(bootstrap, Opening::Handle).await;
    }
    let opening = limits.openings.of(target);
    let first = match attempt(bootstrap, opening).await {
        Err(error) if opening.is_refused_by(&error) => error,
        outcome => return outcome,
    };
    tracing::debug!("{first}; trying once more with another opening");
    let opening = opening.other();
    let Ok(bootstrap) = connect_from(None, target, deadline, limits.abort.as_ref(), waiter).await else {
        return Err(first);
    };
    match attempt(bootstrap, opening).await {
        // The peer accepts neither: the first error says as much as the second.
        Err(error) if opening.is_refused_by(&error) => Err(first),
        Ok(begun) => {
            limits.openings.record(target, opening);
            Ok(begun)
        }
        error => error,
    }
}

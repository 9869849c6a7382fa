//! The responder's role.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::authenticate::{Entry, authenticate};
use super::dialogue::Dialogue;
use super::error::{HandshakeError, Reason, Step};
use super::lane_listener::LaneListener;
use super::{LaneSetup, Limits, LocalSide, Peer, Role, lanes, locality, notify_link, tables};
use crate::control::Stream;
use crate::control::wire::{Features, SocketKind};
use crate::events::{Waiter, run_blocking};

/// Answers a handshake on an accepted bootstrap socket, of which nothing has been read yet. Blocks at most for the
/// handshake timeout.
///
/// Each handshake has a lane listener of its own, so that concurrent ones do not mix up their peers; any number may
/// run at once.
pub fn respond(
    bootstrap: Stream,
    local: &LocalSide<'_>,
    lanes: &mut dyn LaneSetup,
    limits: &Limits,
) -> Result<Peer, HandshakeError> {
    run_blocking(respond_with(bootstrap, local, lanes, limits, &Waiter::blocking(limits.abort.as_ref())))
}

/// [`respond()`], with waits that need not block.
pub(crate) async fn respond_with(
    bootstrap: Stream,
    local: &LocalSide<'_>,
    lanes: &mut dyn LaneSetup,
    limits: &Limits,
    waiter: &Waiter,
) -> Result<Peer, HandshakeError> {
    let deadline = Instant::now() + limits.handshake_timeout;
    let control = bootstrap.peer();
    let dialogue = Dialogue { stream: &bootstrap, waiter, peer: control, role: Role::Responder, deadline };

    dialogue.with_short_deadline().expect_preamble(SocketKind::Bootstrap).await?;
    // A peer cannot connect to the unspecified address; it can to the one by which it has reached this host.
    let own = if local.address.is_unspecified() { bootstrap.local().ip() } else { local.address };
    let told = local.advertise.unwrap_or(own);
    // A forwarder may connect to any address that this side listens on.
    let address = if local.advertise.is_some() { local.address } else { own };
    let bind = async || {
        bootstrap.begin_permit(DESCRIPTORS);
        let listener = LaneListener::bind(address, limits, waiter).await?;
        Ok((SocketAddr::new(told, listener.local().port()), listener))
    };
    let (entry, listener) = authenticate(&dialogue, local, limits, bind).await?;

    let session = entry.session.as_ref();
    let announced = SocketAddr::new(told, listener.local().port());
    let (channel, offer) =
        listener.accept(&dialogue, session).await.map_err(|error| match is_question(&entry, &error) {
            true => dialogue.fail(Step::Preamble, Reason::Question),
            false => dialogue.fail(Step::LaneSocket, Reason::not_found(announced, error)),
        })?;
    match session {
        Some(_) => channel.release_permit(),
        None => channel.begin_permit(1),
    }
    let links = notify_link::link_names(&local.features, &entry);
    let connected_host =
        limits.connected_hosts.add(channel.peer().ip()).with_link(links.map(|[_, theirs]| theirs));
    let lane_dialogue = Dialogue { stream: &channel, ..dialogue };
    let (capabilities, count) = lanes::set_up(&lane_dialogue, lanes, Some(offer)).await?;

    let ip = channel.peer().ip();
    let looks_local = locality::looks_local(local, own, ip, entry.features.as_ref());
    // Only the initiator's caller states whether both ends are in one process.
    let local = &LocalSide { same_process: false, ..*local };
    let meta = tables::exchange_metas(&dialogue, local, entry.features.as_ref(), looks_local).await?;
    let key = limits.auth.as_ref().filter(|_| session.is_some());
    let owner = notify_link::owner(entry.features.as_ref());
    let link = links.map(|[ours, _]| ours);
    let notify = match meta.notify_port {
        0 => None,
        _ if meta.same_process => None,
        port => {
            let hosts = notification_hosts(ip, &entry);
            notify_link::connect(&channel, &hosts, port, (key, owner, link), limits, deadline, waiter).await
        }
    };
    let (notify, notify_route) = notify.unzip();
    let extras = local.region_extras(entry.features.as_ref());
    let regions = tables::exchange_regions(&dialogue, local, extras).await?;

    Ok(super::finish(
        Peer {
            control,
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

/// Whether the client has named no address of its own and left: it wanted to know what listens here.
fn is_question(entry: &Entry, error: &io::Error) -> bool {
    let nowhere = entry.address.ip().is_unspecified() && entry.address.port() == 0;
    nowhere && matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)
}

/// Descriptors of a handshake besides its lane socket, which has a permit of its own: bootstrap socket, lane
/// listener, and our notification socket.
const DESCRIPTORS: usize = 3;

/// Addresses at which an initiator may have its notification receiver. The lane socket's source leads back to its
/// host, but its listeners are bound to the address that it announces, which is another one if the host has several
/// interfaces. An advertised address is that of a forwarder, and the source may then be another host's.
fn notification_hosts(source: IpAddr, entry: &Entry) -> Vec<IpAddr> {
    let told = entry.address.ip();
    match &entry.features {
        Some(features) if features.has(Features::ADVERTISED) => vec![told],
        Some(_) if told != source && !told.is_unspecified() && !told.is_loopback() => vec![source, told],
        _ => vec![source],
    }
}

//! The responder's role.

use std::time::{Duration, Instant};

use super::dialogue::Dialogue;
use super::door::{self, Session};
use super::error::{HandshakeError, Step};
use super::lane_listener::LaneListener;
use super::{LaneSetup, Limits, LocalSide, Peer, Role, lanes, notify_link, tables};
use crate::control::Stream;
use crate::control::wire::SocketKind;

/// How long a client of the control listener may be silent.
const SILENCE_LIMIT: Duration = Duration::from_secs(2);

/// Answers a handshake on an accepted bootstrap socket, of which nothing has been read yet. Blocks at most for the
/// handshake timeout.
///
/// Each handshake has a lane listener of its own, so that concurrent ones never mix up their peers; any number may
/// run at once.
pub fn respond(
    bootstrap: Stream,
    local: &LocalSide<'_>,
    lanes: &mut dyn LaneSetup,
    limits: &Limits,
) -> Result<Peer, HandshakeError> {
    let deadline = Instant::now() + limits.handshake_timeout;
    let control = bootstrap.peer();
    let dialogue = Dialogue { stream: &bootstrap, peer: control, role: Role::Responder, deadline };

    // A peer says what it is at once; whoever does not may not take a place for as long as a handshake may take.
    Dialogue { deadline: deadline.min(Instant::now() + SILENCE_LIMIT), ..dialogue }
        .expect_preamble(SocketKind::Bootstrap)?;
    // "Any address" is none that a peer could connect to; the one under which it has found us is.
    let address = if local.address.is_unspecified() { bootstrap.local().ip() } else { local.address };
    let listener =
        LaneListener::bind(address, limits).map_err(|error| dialogue.fail(Step::LaneSocket, error))?;
    let entry = door::pass(&dialogue, local, limits, listener.local())?;

    let Session { id, key } = &entry.session;
    let proof = key.as_ref().map(|key| key.prove("lanes", &[id]));
    let (channel, offer) = listener
        .accept(&bootstrap, proof.as_ref(), deadline)
        .map_err(|error| dialogue.fail(Step::LaneSocket, error))?;
    let lane_dialogue = Dialogue { stream: &channel, ..dialogue };
    let (capabilities, count) = lanes::set_up(&lane_dialogue, lanes, Some(offer))?;

    let ip = channel.peer().ip();
    let looks_local = ip == address || ip.is_loopback();
    // Only the initiator's caller knows whether both ends are in one process.
    let local = &LocalSide { same_process: false, ..*local };
    let meta = tables::exchange_metas(&dialogue, local, entry.features.as_ref(), looks_local)?;
    let notify = (meta.notify_port != 0 && !meta.same_process)
        .then(|| {
            let receiver = super::with_port(channel.peer(), meta.notify_port);
            let abort = limits.abort.as_ref();
            notify_link::connect(receiver, &entry.session, limits.auth.as_ref(), deadline, abort)
        })
        .flatten();
    let regions = tables::exchange_regions(&dialogue, local.regions)?;

    Ok(super::finish(
        Peer {
            control,
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
        },
        limits,
    ))
}

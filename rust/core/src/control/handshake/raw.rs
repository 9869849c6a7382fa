//! The lane part alone: what the adaptor table's `connect` and `accept` do, without bootstrap socket and tables.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use super::dialogue::Dialogue;
use super::error::{HandshakeError, Reason, Step};
use super::{LaneSetup, Limits, PeerCapabilities, Role, lanes};
use crate::control::Stream;
use crate::control::socket::connect;
use crate::control::wire::{Handle, SocketKind};

/// A peer of the raw functions.
#[derive(Debug)]
pub struct RawPeer {
    /// What its lanes can do.
    pub capabilities: PeerCapabilities,
    /// Lanes agreed.
    pub lanes: u32,
    /// The lane socket; it stays open, and its end is the peer's end.
    pub stream: Stream,
}

/// Connects to the raw listener that `handle` names (its first 40 bytes count).
pub fn initiate_raw(
    handle: &[u8],
    lanes: &mut dyn LaneSetup,
    limits: &Limits,
) -> Result<RawPeer, HandshakeError> {
    let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let target =
        Handle::decode_raw(handle).map_err(|error| HandshakeError::new(nowhere, Step::Handles, error))?;
    check_no_key(target, limits)?;
    let stream = connect(target, Instant::now() + limits.connect_timeout, limits.abort.as_ref())
        .map_err(|error| HandshakeError::new(target, Step::Connect, error))?;
    let deadline = Instant::now() + limits.handshake_timeout;
    let dialogue = Dialogue { stream: &stream, peer: target, role: Role::Initiator, deadline };
    dialogue.write(Step::Preamble, &SocketKind::Lanes.encode())?;
    let (capabilities, count) = lanes::set_up(&dialogue, lanes)?;
    finish(stream, capabilities, count, limits)
}

/// Answers on an accepted socket, of which nothing has been read yet. [`HandshakeError::is_stray`] tells whether an
/// acceptor should go on waiting.
pub fn respond_raw(
    stream: Stream,
    lanes: &mut dyn LaneSetup,
    limits: &Limits,
) -> Result<RawPeer, HandshakeError> {
    check_no_key(stream.peer(), limits)?;
    let deadline = Instant::now() + limits.handshake_timeout;
    let dialogue = Dialogue { stream: &stream, peer: stream.peer(), role: Role::Responder, deadline };
    dialogue.expect_preamble(SocketKind::Lanes)?;
    let (capabilities, count) = lanes::set_up(&dialogue, lanes)?;
    finish(stream, capabilities, count, limits)
}

/// The raw functions have no place for a proof.
fn check_no_key(peer: SocketAddr, limits: &Limits) -> Result<(), HandshakeError> {
    match limits.auth {
        Some(_) if !limits.allow_original => Err(HandshakeError::new(
            peer,
            Step::Authentication,
            Reason::Refused("connections of the adaptor table cannot prove the key that is set"),
        )),
        _ => Ok(()),
    }
}

fn finish(
    stream: Stream,
    capabilities: PeerCapabilities,
    lanes: u32,
    limits: &Limits,
) -> Result<RawPeer, HandshakeError> {
    let stream = super::long_lived(stream, limits);
    Ok(RawPeer { capabilities, lanes, stream })
}

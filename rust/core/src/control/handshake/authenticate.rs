//! The exchange of handles, with proofs of the key where there is one.
//!
//! Without a key both sides send their handles, as the original engine does:
//!
//! ```text
//! initiator                               responder
//!   handle ─────────────────────────────▶
//!     ◀───────────────────────────── handle
//! ```
//!
//! With a key neither side sends its address or identity before the other one has proven the key. The first
//! handles are blank: they carry a random number and the bit that a key exists, and nothing else.
//!
//! ```text
//! initiator                               responder
//!   blank handle ───────────────────────▶
//!     ◀─────────────────────── blank handle
//!   proof ──────────────────────────────▶  wrong: closes without another byte
//!     ◀─────────────── proof, sealed handle  opens its lane listener first
//!   sealed handle ──────────────────────▶
//! ```
//!
//! The last handle adds no round trip: the initiator opens the lane socket right after it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use super::dialogue::Dialogue;
use super::error::{HandshakeError, Reason, Step};
use super::opening::receive_opening;
use super::psk::prove;
use super::{Limits, LocalSide, Role, locality};
use crate::auth::{AuthError, AuthKey, Nonce, Nonces, Session, random};
use crate::control::wire::{Features, HANDLE_SIZE, Handle, Tag};
use crate::fork::PerProcess;
use crate::process::ProcessIdentity;

/// The peer's handle, and the session if there is a key.
#[derive(Debug)]
pub(super) struct Entry {
    /// Where the peer's lane socket listens; from an initiator its address, with port 0.
    pub(super) address: SocketAddr,
    /// Its features.
    pub(super) features: Option<Features>,
    /// The session, when both sides have proven the key.
    pub(super) session: Option<Session>,
    /// The random number of this end.
    pub(super) own_nonce: Nonce,
}

impl Entry {
    fn new(handle: Handle, session: Option<Session>, own_nonce: Nonce) -> Self {
        Self { address: handle.address, features: handle.features, session, own_nonce }
    }
}

/// Exchanges handles, with proofs of the key when there is one. `bind` opens our lane listener and returns its
/// address: called once, when the address is to be sent, so that an unauthenticated client opens nothing here.
pub(super) async fn authenticate<L>(
    dialogue: &Dialogue<'_>,
    local: &LocalSide<'_>,
    limits: &Limits,
    bind: impl AsyncFnOnce() -> io::Result<(SocketAddr, L)>,
) -> Result<(Entry, L), HandshakeError> {
    let features = own_features(local, limits).map_err(|error| dialogue.fail(Step::Handles, error))?;
    let make = async || {
        let (address, listener) = bind().await.map_err(|error| dialogue.fail(Step::LaneSocket, error))?;
        Ok((Handle { address, features: Some(features) }, listener))
    };
    match &limits.auth {
        None => exchange(dialogue, (local, limits), features.nonce, make).await,
        Some(key) => exchange_with_psk(dialogue, (local, limits), features, make, key).await,
    }
}

fn own_features(local: &LocalSide<'_>, limits: &Limits) -> io::Result<Features> {
    let auth = if limits.auth.is_some() { Features::AUTH } else { 0 };
    let advertised = if local.advertise.is_some() { Features::ADVERTISED } else { 0 };
    Ok(Features {
        bits: local.features.bits & !(Features::AUTH | Features::ADVERTISED) | auth | advertised,
        process: process_token(),
        host: locality::host_token(),
        identity: ProcessIdentity::own(),
        nonce: random()?,
        ..local.features
    })
}

/// Without a key: exchanges handles.
async fn exchange<L>(
    dialogue: &Dialogue<'_>,
    (local, limits): (&LocalSide<'_>, &Limits),
    own_nonce: Nonce,
    make: impl AsyncFnOnce() -> Result<(Handle, L), HandshakeError>,
) -> Result<(Entry, L), HandshakeError> {
    let (theirs, listener) = match dialogue.role {
        Role::Initiator => {
            let (handle, listener) = make().await?;
            let answer = dialogue.open(Step::Handles, Tag::Handle, &handle.encode(), HANDLE_SIZE).await?;
            (decode(dialogue, &answer)?, listener)
        }
        Role::Responder => {
            let theirs = receive_opening(dialogue, local, limits).await?;
            let (handle, listener) = make().await?;
            send_handle(dialogue, &handle).await?;
            (theirs, listener)
        }
    };
    if theirs.features.is_some_and(|features| features.has(Features::AUTH)) {
        return Err(dialogue.fail(Step::Authentication, AuthError::KeyRequired));
    }
    Ok((Entry::new(theirs, None, own_nonce), listener))
}

/// With a key: exchanges random numbers, then proofs, then handles.
async fn exchange_with_psk<L>(
    dialogue: &Dialogue<'_>,
    (local, limits): (&LocalSide<'_>, &Limits),
    ours: Features,
    make: impl AsyncFnOnce() -> Result<(Handle, L), HandshakeError>,
    key: &AuthKey,
) -> Result<(Entry, L), HandshakeError> {
    let theirs = match dialogue.role {
        Role::Initiator => {
            send_handle(dialogue, &blank(ours)).await?;
            receive_handle(dialogue).await?
        }
        Role::Responder => {
            let theirs = receive_opening(&dialogue.with_short_deadline(), local, limits).await?;
            // Sent also to a peer of this kind without a key, which learns from it that one is required. Not sent to
            // an original engine, which would read it as an address.
            if theirs.features.is_some() {
                send_handle(dialogue, &blank(ours)).await?;
            }
            theirs
        }
    };
    match theirs.features {
        Some(features) if features.has(Features::AUTH) => {
            let nonces = nonces(dialogue.role, ours, features);
            let (handle, session, listener) = prove(dialogue, make, key, nonces).await?;
            dialogue.stream.release_permit();
            Ok((Entry::new(handle, Some(session), ours.nonce), listener))
        }
        Some(_) => Err(dialogue.fail(Step::Authentication, AuthError::KeyMissing)),
        None if limits.allow_original => {
            let (handle, listener) = make().await?;
            if dialogue.role == Role::Responder {
                send_handle(dialogue, &handle).await?;
            }
            Ok((Entry::new(theirs, None, ours.nonce), listener))
        }
        None => Err(dialogue.fail(
            Step::Authentication,
            Reason::Refused(
                "the peer runs the original engine, which has no key; FLAGCX_P2P_AUTH_ALLOW_ORIGINAL=1 accepts it",
            ),
        )),
    }
}

async fn send_handle(dialogue: &Dialogue<'_>, handle: &Handle) -> Result<(), HandshakeError> {
    dialogue.send_frame(Step::Handles, Tag::Handle, &handle.encode()).await
}

async fn receive_handle(dialogue: &Dialogue<'_>) -> Result<Handle, HandshakeError> {
    let bytes = dialogue.receive_frame(Step::Handles, Tag::Handle, HANDLE_SIZE).await?;
    decode(dialogue, &bytes)
}

fn decode(dialogue: &Dialogue<'_>, handle: &[u8]) -> Result<Handle, HandshakeError> {
    Handle::decode(handle).map_err(|error| dialogue.fail(Step::Handles, error))
}

/// A blank handle: random number and the key bit, no address, no incarnation.
fn blank(ours: Features) -> Handle {
    let features = Features { bits: Features::AUTH, nonce: ours.nonce, ..Features::default() };
    Handle { address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), features: Some(features) }
}

fn nonces(role: Role, ours: Features, theirs: Features) -> Nonces {
    match role {
        Role::Initiator => Nonces { initiator: ours.nonce, responder: theirs.nonce },
        Role::Responder => Nonces { initiator: theirs.nonce, responder: ours.nonce },
    }
}

/// Random per process, the same for all its engines.
pub(super) fn process_token() -> u64 {
    static TOKEN: PerProcess<u64> = PerProcess::new(|| random().map(u64::from_le_bytes).unwrap_or(0));
    // Without random numbers the handshake fails at the nonce, so that two processes never share the token 0.
    *TOKEN.get()
}

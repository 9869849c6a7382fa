//! The exchange of handles, and with it authentication: who must prove what before an address leaves this process.
//!
//! With a key, the first handles carry a nonce and no address. Each side then sends a proof over both of them and over
//! its real handle, the initiator first; a responder that gets no valid proof closes without another word.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use super::dialogue::Dialogue;
use super::error::{HandshakeError, Reason, Step};
use super::{Limits, LocalSide, Role};
use crate::control::wire::{Features, HANDLE_SIZE, Handle, Tag, WireError};
use crate::control::{AuthKey, PROOF_SIZE, random};

const PROOF_FRAME_SIZE: usize = PROOF_SIZE + HANDLE_SIZE;
const PURPOSES: [&str; 2] = ["initiator", "responder"];

/// What the peer has said of itself.
#[derive(Debug)]
pub(super) struct Entry {
    /// Where the peer's lane socket listens; meaningless from an initiator.
    pub(super) address: SocketAddr,
    /// What it says about itself.
    pub(super) features: Option<Features>,
    /// Names the session, the same on both sides.
    pub(super) session: Session,
}

/// The session's secrets, as far as it has any.
#[derive(Debug)]
pub(super) struct Session {
    /// Both nonces, the initiator's first. All zero with an original engine.
    pub(super) id: [u8; 32],
    /// The session's own key, when both sides have proven to know the shared one.
    pub(super) key: Option<AuthKey>,
}

/// Exchanges handles, with proofs of the key when there is one. `bind` opens our lane socket and says where it listens: called once, when that is to be told,
/// so that who may not know it makes us open nothing.
pub(super) fn authenticate<L>(
    dialogue: &Dialogue<'_>,
    local: &LocalSide<'_>,
    limits: &Limits,
    bind: impl FnOnce() -> io::Result<(SocketAddr, L)>,
) -> Result<(Entry, L), HandshakeError> {
    let features = own_features(local, limits).map_err(|error| dialogue.fail(Step::Handles, error))?;
    let make = || {
        let (address, listener) = bind().map_err(|error| dialogue.fail(Step::LaneSocket, error))?;
        Ok((Handle { address, features: Some(features) }, listener))
    };
    match &limits.auth {
        None => exchange(dialogue, features, make),
        Some(key) => exchange_with_psk(dialogue, features, make, key, limits.allow_original),
    }
}

fn own_features(local: &LocalSide<'_>, limits: &Limits) -> io::Result<Features> {
    let auth = if limits.auth.is_some() { Features::AUTH } else { 0 };
    Ok(Features {
        bits: local.features.bits & !Features::AUTH | auth,
        process: process_token(),
        nonce: random()?,
        ..local.features
    })
}

/// Without a key: handles are exchanged, and that is all.
fn exchange<L>(
    dialogue: &Dialogue<'_>,
    ours: Features,
    make: impl FnOnce() -> Result<(Handle, L), HandshakeError>,
) -> Result<(Entry, L), HandshakeError> {
    let hinted = |error| hint_at_key(error, dialogue.role);
    let (theirs, listener) = match dialogue.role {
        Role::Initiator => {
            let (handle, listener) = make()?;
            send_handle(dialogue, &handle.encode()).map_err(hinted)?;
            (receive_handle(dialogue).map_err(hinted)?, listener)
        }
        Role::Responder => {
            let theirs = receive_handle(dialogue)?;
            let (handle, listener) = make()?;
            send_handle(dialogue, &handle.encode())?;
            (theirs, listener)
        }
    };
    let Handle { address, features } = decode(dialogue, &theirs)?;
    if features.is_some_and(|features| features.has(Features::AUTH)) {
        return Err(dialogue.fail(
            Step::Handles,
            Reason::Refused("the peer requires a key; set FLAGCX_P2P_AUTH_KEY_FILE to the same key"),
        ));
    }
    Ok((Entry { address, features, session: session(dialogue.role, ours, features, None) }, listener))
}

fn send_handle(dialogue: &Dialogue<'_>, handle: &[u8]) -> Result<(), HandshakeError> {
    dialogue.send_frame(Step::Handles, Tag::Handle, handle)
}

fn receive_handle(dialogue: &Dialogue<'_>) -> Result<Vec<u8>, HandshakeError> {
    dialogue.receive_frame(Step::Handles, Tag::Handle, HANDLE_SIZE)
}

/// With a key: nonces first, then proofs, then addresses.
fn exchange_with_psk<L>(
    dialogue: &Dialogue<'_>,
    ours: Features,
    make: impl FnOnce() -> Result<(Handle, L), HandshakeError>,
    key: &AuthKey,
    allow_original: bool,
) -> Result<(Entry, L), HandshakeError> {
    let blank = blank(ours);
    let (theirs, sent) = match dialogue.role {
        Role::Initiator => {
            send_handle(dialogue, &blank)?;
            (receive_handle(dialogue)?, true)
        }
        Role::Responder => (receive_handle(&dialogue.impatient())?, false),
    };
    let decoded = decode(dialogue, &theirs)?;
    let peer_has_key = match decoded.features {
        Some(features) if features.has(Features::AUTH) => true,
        Some(_) => {
            return Err(
                dialogue.fail(Step::Authentication, Reason::Refused("the peer has no key, and we do"))
            );
        }
        None if allow_original => false,
        None => {
            return Err(dialogue.fail(
                Step::Authentication,
                Reason::Refused(
                    "the peer runs the original engine, which has no key; FLAGCX_P2P_AUTH_ALLOW_ORIGINAL=1 lets it in",
                ),
            ));
        }
    };
    if !peer_has_key {
        let (handle, listener) = make()?;
        if !sent {
            send_handle(dialogue, &handle.encode())?;
        }
        let Handle { address, features } = decoded;
        let session = session(dialogue.role, ours, features, None);
        return Ok((Entry { address, features, session }, listener));
    }
    if !sent {
        send_handle(dialogue, &blank)?;
    }
    let (Handle { address, features }, listener) = prove(dialogue, make, key, &blank, &theirs)?;
    let session = session(dialogue.role, ours, decoded.features, Some(key));
    Ok((Entry { address, features, session }, listener))
}

/// Exchanges proofs and real handles.
fn prove<L>(
    dialogue: &Dialogue<'_>,
    make: impl FnOnce() -> Result<(Handle, L), HandshakeError>,
    key: &AuthKey,
    our_blank: &[u8],
    their_blank: &[u8],
) -> Result<(Handle, L), HandshakeError> {
    let step = Step::Authentication;
    let [initiator, responder] = PURPOSES;
    let (ours, theirs, first, second) = match dialogue.role {
        Role::Initiator => (initiator, responder, our_blank, their_blank),
        Role::Responder => (responder, initiator, their_blank, our_blank),
    };
    let send = || {
        let (handle, listener) = make()?;
        let handle = handle.encode();
        let mut frame = key.prove(ours, &[first, second, &handle]).to_vec();
        frame.extend_from_slice(&handle);
        dialogue.send_frame(step, Tag::Proof, &frame).map(|()| listener)
    };
    let receive = |dialogue: &Dialogue<'_>| {
        let frame = dialogue.receive_frame(step, Tag::Proof, PROOF_FRAME_SIZE)?;
        let valid = frame
            .split_at_checked(PROOF_SIZE)
            .filter(|(proof, handle)| key.verify(theirs, &[first, second, handle], proof));
        match valid {
            Some((_, handle)) => decode(dialogue, handle),
            None => Err(dialogue.fail(step, Reason::Refused("the peer does not know our key"))),
        }
    };
    match dialogue.role {
        Role::Initiator => {
            let listener = send()?;
            let peer = receive(dialogue).map_err(|mut error| {
                if let Reason::Closed(hint) = &mut error.reason {
                    *hint = "; its key is probably another one";
                }
                error
            })?;
            Ok((peer, listener))
        }
        Role::Responder => {
            let peer = receive(&dialogue.impatient())?;
            Ok((peer, send()?))
        }
    }
}

/// A handle that says only that there is a key: nonce, no address, no incarnation.
fn blank(ours: Features) -> [u8; HANDLE_SIZE] {
    let features = Features { bits: Features::AUTH, nonce: ours.nonce, ..Features::default() };
    Handle { address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), features: Some(features) }.encode()
}

fn decode(dialogue: &Dialogue<'_>, bytes: &[u8]) -> Result<Handle, HandshakeError> {
    Handle::decode(bytes).map_err(|error: WireError| dialogue.fail(Step::Handles, error))
}

fn session(role: Role, ours: Features, theirs: Option<Features>, key: Option<&AuthKey>) -> Session {
    let theirs = theirs.map(|features| features.nonce).unwrap_or_default();
    let (first, second) = match role {
        Role::Initiator => (ours.nonce, theirs),
        Role::Responder => (theirs, ours.nonce),
    };
    let mut id = [0; 32];
    for (place, byte) in id.iter_mut().zip(first.into_iter().chain(second)) {
        *place = byte;
    }
    Session { id, key: key.map(|key| key.session(&first, &second)) }
}

/// A responder that closes right after our handle has most likely a key, and does not say so.
fn hint_at_key(mut error: HandshakeError, role: Role) -> HandshakeError {
    if let (Role::Initiator, Reason::Closed(hint)) = (role, &mut error.reason) {
        *hint = "; if it requires a key, set FLAGCX_P2P_AUTH_KEY_FILE";
    }
    error
}

/// Random per process, the same for all its engines.
pub(super) fn process_token() -> u64 {
    static TOKEN: once_cell::sync::OnceCell<u64> = once_cell::sync::OnceCell::new();
    // Without randomness the handshake fails at the nonce, so that 0 never meets another 0.
    *TOKEN.get_or_init(|| random().map(u64::from_le_bytes).unwrap_or(0))
}

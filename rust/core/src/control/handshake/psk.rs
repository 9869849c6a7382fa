//! Proofs of the pre-shared key on the bootstrap socket, and the sealed handles that follow them.

use super::dialogue::Dialogue;
use super::error::{HandshakeError, Reason, Step};
use super::{Handle, Role};
use crate::auth::{AuthError, AuthKey, Initiator, Nonces, PROOF_SIZE, Proof, Purpose, Responder, Session};
use crate::control::wire::{HANDLE_SIZE, Tag, WireError};

/// Exchanges proofs, the initiator's first, and then handles, the responder's first. `make` opens the lane listener
/// and makes our handle; a responder calls it after the peer has proven the key.
pub(super) async fn prove<L>(
    dialogue: &Dialogue<'_>,
    make: impl AsyncFnOnce() -> Result<(Handle, L), HandshakeError>,
    key: &AuthKey,
    nonces: Nonces,
) -> Result<(Handle, Session, L), HandshakeError> {
    let fail = |error: AuthError| dialogue.fail(Step::Authentication, error);
    match dialogue.role {
        Role::Initiator => {
            let (initiator, proof) = Initiator::prove(key, Purpose::CONTROL, nonces);
            send_proof(dialogue, &proof).await.map_err(refused)?;
            let theirs = receive_proof(dialogue).await.map_err(refused)?;
            let session = initiator.verify(&theirs).map_err(fail)?;
            let peer = receive_handle(dialogue, &session).await?;
            let (handle, listener) = make().await?;
            send_handle(dialogue, &session, &handle).await?;
            Ok((peer, session, listener))
        }
        Role::Responder => {
            let responder = Responder::new(key, Purpose::CONTROL, nonces);
            let theirs = receive_proof(&dialogue.with_short_deadline()).await?;
            let (session, proof) = responder.verify(&theirs).map_err(fail)?;
            let (handle, listener) = make().await?;
            send_proof(dialogue, &proof).await?;
            send_handle(dialogue, &session, &handle).await?;
            let peer = receive_handle(dialogue, &session).await?;
            Ok((peer, session, listener))
        }
    }
}

async fn send_proof(dialogue: &Dialogue<'_>, proof: &Proof) -> Result<(), HandshakeError> {
    dialogue.send_frame(Step::Authentication, Tag::Proof, proof).await
}

async fn receive_proof(dialogue: &Dialogue<'_>) -> Result<Proof, HandshakeError> {
    let bytes = dialogue.receive_frame(Step::Authentication, Tag::Proof, PROOF_SIZE).await?;
    Proof::try_from(bytes).map_err(|bytes| {
        let problem = format!("{} bytes, expected {PROOF_SIZE}", bytes.len());
        dialogue.fail(Step::Authentication, WireError::new("proof", problem))
    })
}

async fn send_handle(
    dialogue: &Dialogue<'_>,
    session: &Session,
    handle: &Handle,
) -> Result<(), HandshakeError> {
    let handle = handle.encode();
    let frame = [&session.seal(LABEL, &handle)[..], &handle].concat();
    dialogue.send_frame(Step::Authentication, Tag::SealedHandle, &frame).await
}

async fn receive_handle(dialogue: &Dialogue<'_>, session: &Session) -> Result<Handle, HandshakeError> {
    let step = Step::Authentication;
    let frame = dialogue.receive_frame(step, Tag::SealedHandle, PROOF_SIZE + HANDLE_SIZE).await?;
    let (seal, handle) = frame
        .split_first_chunk()
        .ok_or_else(|| dialogue.fail(step, WireError::new("sealed handle", "shorter than its seal")))?;
    session.verify(LABEL, handle, seal).map_err(|error| dialogue.fail(step, error))?;
    Handle::decode(handle).map_err(|error| dialogue.fail(step, error))
}

/// A responder that rejects our proof closes the socket without an answer.
fn refused(mut error: HandshakeError) -> HandshakeError {
    if matches!(error.reason, Reason::Closed) {
        error.reason = AuthError::Refused.into();
    }
    error
}

const LABEL: &str = "handle";

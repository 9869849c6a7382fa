//! The first frame of a bootstrap socket.
//!
//! Engines of this kind and today's original begin with their handles. FlagCX's next version exchanges a [`Hello`] before
//! that, and refuses a peer that does not. So a responder accepts both, and an initiator tries one and then the other:
//!
//! ```text
//! initiator                               responder
//!   hello ──────────────────────────────▶
//!     ◀────────────────────────────── hello
//!   handle ─────────────────────────────▶  from here on as ever
//! ```
//!
//! A client that begins with a request of the runtime control is not a peer; see [`super::runtime_control`].

use super::dialogue::Dialogue;
use super::error::{HandshakeError, Reason, Step};
use super::{Limits, LocalSide, runtime_control};
use crate::control::wire::{HANDLE_SIZE, HELLO_SIZE, Handle, Hello, Tag};

/// The first frame of a bootstrap socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// A handle.
    Handle,
    /// A hello.
    Hello,
}

impl Opening {
    /// The other one.
    pub(super) fn other(self) -> Self {
        match self {
            Self::Handle => Self::Hello,
            Self::Hello => Self::Handle,
        }
    }

    /// Whether a peer may accept the other opening after its handshake failed with `error`.
    pub(super) fn is_refused_by(self, error: &HandshakeError) -> bool {
        let step = match self {
            Self::Handle => Step::Handles,
            Self::Hello => Step::Hello,
        };
        error.step == step && matches!(error.reason, Reason::Unanswered)
    }
}

/// Exchanges hellos with a responder, as its first frames.
pub(super) async fn say_hello(dialogue: &Dialogue<'_>) -> Result<(), HandshakeError> {
    let ours = Hello::OURS.encode();
    check(dialogue, &dialogue.open(Step::Hello, Tag::Hello, &ours, HELLO_SIZE).await?)
}

/// Receives the handle of an initiator, with either opening. Fails with [`Reason::RuntimeControl`] once the request
/// of a runtime control client is answered.
pub(super) async fn receive_opening(
    dialogue: &Dialogue<'_>,
    local: &LocalSide<'_>,
    limits: &Limits,
) -> Result<Handle, HandshakeError> {
    let mut header = dialogue.receive_header(Step::Handles).await?;
    if header.has(Tag::RuntimeControl) {
        return Err(runtime_control::answer(dialogue, header, local, limits).await);
    }
    if header.has(Tag::Hello) {
        // Nothing is sent before a proof: see `docs/security.md`.
        if limits.requires_key() {
            return Err(dialogue.fail(Step::Hello, Reason::Refused(NO_KEY)));
        }
        let theirs = dialogue.receive_payload(Step::Hello, header, Tag::Hello, HELLO_SIZE).await?;
        // A peer of another version gets our hello too, so that both sides can report the mismatch.
        if Hello::decode(&theirs).is_ok() {
            dialogue.send_frame(Step::Hello, Tag::Hello, &Hello::OURS.encode()).await?;
        }
        check(dialogue, &theirs)?;
        header = dialogue.receive_header(Step::Handles).await?;
    }
    let bytes = dialogue.receive_payload(Step::Handles, header, Tag::Handle, HANDLE_SIZE).await?;
    Handle::decode(&bytes).map_err(|error| dialogue.fail(Step::Handles, error))
}

fn check(dialogue: &Dialogue<'_>, theirs: &[u8]) -> Result<(), HandshakeError> {
    let checked = Hello::decode(theirs).and_then(|hello| hello.check());
    checked.map_err(|error| dialogue.fail(Step::Hello, error))
}

const NO_KEY: &str = "the peer's hello (FXP1) says that it runs FlagCX's engine, which has no key; \
                      FLAGCX_P2P_AUTH_ALLOW_ORIGINAL=1 accepts it";

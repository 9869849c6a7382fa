//! What two processes say to each other before bytes flow. No input or output in here.
//!
//! ```text
//! initiator                               responder
//!   hello{random number} ────────────▶
//!     ◀───────────── hello{random number}
//!   [with a key:
//!   proof ──────────────────────────────▶  wrong: closes without another byte
//!     ◀─────────────────────────────── proof]
//!   offer ──────────────────────────────▶
//!     ◀────────────────────────────── answer
//! ```
//!
//! An offer names the process and a place of its memory, so it waits until the responder has proven the key. That is a
//! round trip more with a key, once for each connection; without one there are two. Hellos say which
//! version their sender speaks and whether it has a key: with different keys, or with one on one side only, both sides
//! can say what is wrong. With a key, offer and answer carry the session's seal, else zeros in its place.

mod fields;
mod message;
mod responder;
#[cfg(test)]
mod wire_bytes;

use crate::auth::AuthError;

pub(super) use message::{
    ANSWER_SIZE, DataHello, HELLO_SIZE, HelloAnswer, OFFER_SIZE, Offer, Reception, SocketName,
};
pub use responder::replies_to;
pub(super) use responder::{HelloResponder, Received, Refusal};

/// Changes with the hello, the frames, or the layout of the shared tables.
pub(super) const VERSION: u16 = 5;

/// Why a message is not acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HelloError {
    #[error("what answers there is not a software fabric of this engine")]
    NotOurs,
    #[error(
        "it speaks version {0} of the software fabric's hello, this side {VERSION}: use the same release on both"
    )]
    Version(u16),
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error("its hello is malformed")]
    Malformed,
}

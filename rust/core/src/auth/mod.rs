//! Authentication: two sides prove that they hold the same pre-shared key, without sending it.
//!
//! One exchange serves every socket: the control plane's, the software fabric's and the notification receiver's.
//!
//! ```text
//! initiator                                responder
//!   random number ───────────────────────▶
//!     ◀──────────────────────── random number
//!   proof ───────────────────────────────▶  wrong: closes without another byte
//!     ◀──────────────────────────────── proof
//!   messages, each with a seal ◀─────────▶
//! ```
//!
//! The initiator proves first, so that a client without the key gets a random number and nothing else. In particular
//! it gets no proof that guesses of the key could be tested against. A [`Responder`] makes its proof only after it
//! has verified the initiator's.
//!
//! A proof covers the purpose of the socket, the role of its sender and both random numbers: it is invalid on another
//! socket, in the other direction, or at another time. After both proofs each side has the same [`Session`]; its
//! seals cover the messages that follow.
//!
//! This module does no input or output and uses nothing of the rest of the crate.

mod error;
mod exchange;
mod key;
mod random;
mod session;

pub use error::AuthError;
pub use exchange::{Initiator, Nonces, Purpose, Responder};
pub use key::{AuthKey, PROOF_SIZE, Proof};
pub use random::{NONCE_SIZE, Nonce, random};
pub use session::Session;

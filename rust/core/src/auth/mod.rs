//! Authentication: two sides prove that they know the same pre-shared key, without ever sending it.
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
//! The initiator proves first, so that a client without the key gets a random number and nothing else. In particular it
//! gets no proof, which it could test guesses of the key against. A [`Responder`] has no proof to give before it has
//! verified one.
//!
//! A proof covers the purpose of the socket, the role of its sender and both random numbers: it is worth nothing on
//! another socket, in the other direction, or at another time. After both proofs each side has the same [`Session`],
//! whose seals cover what is said next.
//!
//! There is no input or output in here, and nothing of the rest of the crate.

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

//! The TCP path: frames over one socket per direction of a queue pair, which is open while it is used.
//!
//! The initiator sends requests and reads answers inside `poll`; the peer's data thread serves them. Every request
//! is answered after its bytes are in memory, so a completion means the same as on the other paths.

pub(super) mod frame;
pub(super) mod initiator;
pub(super) mod server;
pub(super) mod way;

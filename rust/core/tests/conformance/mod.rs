//! What every provider must do, as functions over the provider contract alone.
//!
//! A [`Rig`] is a device on this side and a [`Peer`] to do one-sided operations on: the peer lives in this process
//! ([`LocalPeer`]) or in another one ([`remote::RemotePeer`]). [`run`] walks [`CASES`], each on a fresh rig.
#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test binary uses its part of the suite")]
#![allow(missing_debug_implementations, missing_docs, reason = "helpers of tests")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is how it tells"
)]

mod cases;
pub mod detached;
pub mod initiator;
pub mod peer;
pub mod remote;

pub use cases::CASES;
pub use detached::Detached;
pub use initiator::{Initiator, PATIENCE, Window, caps};
pub use peer::{LocalPeer, Peer};

use std::sync::Arc;

use flagcx_p2p::internals::fabric::{Device, PathKind};

/// One setting to test in.
pub struct Rig {
    /// Initiates.
    pub device: Arc<dyn Device>,
    /// Is read and written.
    pub peer: Box<dyn Peer>,
    /// How the bytes must travel.
    pub path: PathKind,
}

/// Runs the whole suite, naming each case on failure.
pub fn run(make: impl Fn() -> Rig) {
    for (name, case) in CASES {
        let started = std::time::Instant::now();
        println!("conformance: {name}");
        case(&mut make());
        println!("conformance: {name} took {:?}", started.elapsed());
    }
}

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
pub mod memory;
pub mod peer;
mod probes;
pub mod remote;

pub use cases::CASES;
pub use detached::Detached;
pub use initiator::{Initiator, PATIENCE, Window, caps};
pub use memory::Kind;
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

/// The cases that ask for posting and completions alone, not for keys, rights or a peer.
const POSTING: &[&str] = &[
    "write keeps to its window",
    "read keeps to its window",
    "large transfers arrive whole",
    "scatter and gather",
    "zero length",
    "order within a queue pair",
    "unsignaled requests give no completion",
    "ids wrap",
    "flush after set_error",
    "send queue full",
    "completion queue filled to its depth",
    "inline",
    "two queue pairs share a completion queue",
];

/// Runs the whole suite, naming each case on failure.
pub fn run(make: impl Fn() -> Rig) {
    run_cases(make, |_| true);
}

/// Runs what concerns the posting half of the contract.
pub fn run_posting(make: impl Fn() -> Rig) {
    assert!(POSTING.iter().all(|wanted| CASES.iter().any(|(name, _)| name == wanted)));
    run_cases(make, |name| POSTING.contains(&name));
}

fn run_cases(make: impl Fn() -> Rig, wanted: impl Fn(&str) -> bool) {
    for (name, case) in CASES.iter().filter(|(name, _)| wanted(name)) {
        let started = std::time::Instant::now();
        println!("conformance: {name}");
        case(&mut make());
        println!("conformance: {name} took {:?}", started.elapsed());
    }
}

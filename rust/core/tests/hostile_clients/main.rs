//! Hostile clients, at every listener of an engine. They encode the wire format by hand, because they must send what
//! an engine would not.
//!
//! The engine under attack runs in a process of its own ([`victim`]), so that its limits and its descriptors are its own.
#![allow(unsafe_code, reason = "a thread takes another uid")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod answers;
mod descriptors;
mod fairness;
mod keys;
mod notices;
mod notifications;
mod silence;
mod stopped;
#[path = "../support/mod.rs"]
mod support;
mod tables;
mod victim;
mod wire;

/// What the process under attack runs; see [`victim::Victim`].
#[test]
fn victim_process() {
    victim::play();
}

//! The point-to-point engine of FlagCX: one-sided READ and WRITE of registered memory between two processes.
//!
//! ```text
//!   caller ── Iov ──▶ transfer ── Slice ──▶ pool ── WorkRequest ──▶ fabric (verbs | software)
//!          ◀─ Outcome ─        ◀──────────      ◀── Completion ──
//! ```
//!
//! * [`engine`] owns registered memory, listeners and sessions; [`connection`] is the way to one peer;
//! * [`transfer`] cuts what the caller asked for and remembers how it ended; [`pool`] posts and polls;
//! * [`fabric`] is the contract a provider fulfils: real RDMA devices, or a software fabric without a NIC.
//!
//! Dependencies point down that list only; `auth`, `config`, `memory`, `topology`, `device`, `control`, `notify`, `ports`,
//! `process`, `fork` and `observe` stand beside it and never call back up (`tests/layering.rs` holds the table).
#![deny(unsafe_code)]

/// The README's Rust, run as a test of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

pub(crate) mod admission;
pub mod auth;
pub mod config;
pub mod connection;
pub mod control;
pub mod device;
pub mod engine;
pub mod events;
pub mod fabric;
pub mod fork;
pub mod memory;
pub mod notify;
pub mod observe;
pub mod pool;
pub mod ports;
pub mod process;
pub(crate) mod sync;
pub mod topology;
pub mod transfer;

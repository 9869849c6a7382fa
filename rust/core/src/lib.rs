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
mod auth;
mod config;
mod connection;
mod control;
mod engine;
mod events;
mod fabric;
mod fork;
mod gpu;
mod memory;
mod notify;
mod observe;
mod pool;
mod ports;
mod process;
pub(crate) mod sync;
mod topology;
mod transfer;

pub use config::{Config, ConfigError};
pub use connection::{Connection, ConnectionInfo, Ended, PeerInfo, Transfer};
pub use engine::{Accepted, Engine, EngineError, EngineOptions, RegisterOptions, RegisteredBuffer};
pub use fabric::{Access, CompletionStatus, DmaBuf, FabricError, Opcode, PathKind, Paths};
pub use fork::Forked;
pub use memory::{MemoryKind, RegionId, RegistryError};
pub use notify::{LargeMessage, Message, Notification, NotifyError};
pub use pool::PoolError;
pub use transfer::{Failure, Iov, IovSource, Outcome, RemoteRange, Status, SubmitError, TransferId};

/// What the crates of this workspace use of the engine beside its public interface. No promise is made about it.
#[doc(hidden)]
pub mod internals {
    #[allow(missing_docs, reason = "documented where it is")]
    pub mod auth {
        pub use crate::auth::*;
    }
    #[allow(missing_docs, reason = "documented where it is")]
    pub mod config {
        pub use crate::config::*;
    }
    #[allow(missing_docs, reason = "documented where it is")]
    pub mod connection {
        pub use crate::connection::*;
    }
    #[allow(missing_docs, reason = "documented where it is")]
    pub mod control {
        pub use crate::control::*;
    }
    #[allow(missing_docs, reason = "documented where it is")]
    pub mod gpu {
        pub use crate::gpu::*;
    }
    #[allow(missing_docs, reason = "documented where it is")]
    pub mod engine {
        pub use crate::engine::*;
    }
    #[allow(missing_docs, reason = "documented where it is")]
    pub mod events {
        pub use crate::events::*;
    }
    #[allow(missing_docs, reason = "documented where it is")]
    pub mod fabric {
        pub use crate::fabric::*;
    }
    #[allow(missing_docs, reason = "documented where it is")]
    pub mod fork {
        pub use crate::fork::*;
    }
    #[allow(missing_docs, reason = "documented where it is")]
    pub mod memory {
        pub use crate::memory::*;
    }
    #[allow(missing_docs, reason = "documented where it is")]
    pub mod notify {
        pub use crate::notify::*;
    }
    #[allow(missing_docs, reason = "documented where it is")]
    pub mod observe {
        pub use crate::observe::*;
    }
    #[allow(missing_docs, reason = "documented where it is")]
    pub mod pool {
        pub use crate::pool::*;
    }
    #[allow(missing_docs, reason = "documented where it is")]
    pub mod ports {
        pub use crate::ports::*;
    }
    #[allow(missing_docs, reason = "documented where it is")]
    pub mod process {
        pub use crate::process::*;
    }
    #[allow(missing_docs, reason = "documented where it is")]
    pub mod topology {
        pub use crate::topology::*;
    }
    #[allow(missing_docs, reason = "documented where it is")]
    pub mod transfer {
        pub use crate::transfer::*;
    }
}

//! Moves registered memory between two processes by one-sided READ and WRITE: over RDMA where there is a NIC, and over a
//! software fabric where there is none.
//!
//! ```text
//!  this process                                                  its peer
//!  Engine ── allocate, register ──▶ RegisteredBuffer, RegionId
//!     └──── session, connect ─────▶ Connection ◀── accept ────── Engine
//!                                       │ describe_remote ─▶ RemoteRange
//!            submit(Opcode, &[Iov]) ─▶ TransferId ─▶ Outcome     memory, announced to its peers
//! ```
//!
//! * An [`Engine`] owns memory, listeners and connections; there may be several in a process.
//! * A [`Connection`] leads to one peer. [`Iov`] names a piece of local memory and a piece of the peer's.
//! * A transfer ends exactly once, with an [`Outcome`]; nothing touches its memory any more then. A caller may wait, ask, await
//!   a [`Transfer`], or take what has ended from a queue with a descriptor, [`Ended`].
//! * [`Config`] has the settings, most often those of the environment.
//!
//! [`Engine`] has an example, and `examples/` has programs: `hello` between two machines, `two_processes`, `futures`,
//! `event_loop`.
//!
//! Every type may be used from any thread. The calls that block say so, and for how long. What a call is refused for is a
//! typed error, and loses nothing. Units are bytes, addresses are those of the process that owns the memory.
//!
//! Runs on Linux, x86-64. The feature `verbs`, on by default, is the provider for RDMA devices: it needs the headers of
//! libibverbs to build, and finds the library when it runs.
//!
//! The API is what this page lists; [semantic versioning](https://semver.org) holds for that.
// How the modules depend on each other: docs/design.md, held by tests/layering.rs.
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
mod endpoint;
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
mod rails;
pub(crate) mod sync;
mod topology;
mod transfer;

pub use config::{Config, ConfigError};
pub use connection::{Connection, ConnectionInfo, Ended, PeerInfo, Remote, Request, Transfer, WhenFull};
pub use engine::{
    Accepted, AllocateOptions, Engine, EngineError, EngineOptions, RegisterOptions, RegisteredBuffer,
};
pub use fabric::{Access, CompletionStatus, DmaBuf, FabricError, Opcode, PathKind, Paths, SharedFile};
pub use fork::Forked;
pub use gpu::IpcInfo;
pub use memory::{
    AllocationError, Inaccessible, InaccessibleReason, MemoryKind, RegionId, RegistryError, SharedFileError,
};
pub use notify::{LargeMessage, Message, Notification, NotifyError};
pub use observe::{Direction, RailInfo, RailPause, RailStatus, SlowTransfer};
pub use pool::PoolError;
pub use rails::PauseReason;
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
    #[cfg(feature = "metrics-endpoint")]
    pub mod endpoint {
        pub use crate::endpoint::*;
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
    pub mod rails {
        pub use crate::rails::*;
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

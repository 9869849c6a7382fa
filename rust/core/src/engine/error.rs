//! Why an engine call failed.

use crate::config::ConfigError;
use crate::fabric::FabricError;
use crate::fork::Forked;
use crate::memory::{AllocationError, RegistryError, SharedFileError};
use crate::pool::PoolError;

/// Why an engine call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// The fabric could not do it.
    #[error(transparent)]
    Fabric(#[from] FabricError),
    /// A setting with which no engine may open.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The worker pool could not be started or extended.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A memory range cannot be registered.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Memory cannot be allocated or freed.
    #[error(transparent)]
    Allocation(#[from] AllocationError),
    /// Memory cannot be registered by the file that it is to be mapped from.
    #[error(transparent)]
    SharedFile(#[from] SharedFileError),
    /// The engine is of a process from which this one was forked.
    #[error(transparent)]
    Forked(#[from] Forked),
    /// The engine was closed, before the call or during it.
    #[error("cannot {attempted}: the engine is closed; open another one")]
    Closed {
        /// What was attempted.
        attempted: &'static str,
    },
    /// A memory range cannot be named so.
    #[error("memory {address:#x}+{length}: {problem}")]
    Memory {
        /// Start.
        address: u64,
        /// Bytes.
        length: u64,
        /// What is wrong.
        problem: String,
    },
    /// A peer cannot be reached or its handshake failed.
    #[error("{operation} {peer}: {reason}")]
    Peer {
        /// What was attempted (`connect to`, `accept from`).
        operation: &'static str,
        /// The peer, `host:port`.
        peer: String,
        /// Why not.
        reason: String,
    },
    /// The engine is stopped, or has nothing to do this with.
    #[error("{0}")]
    Unavailable(String),
    /// An argument is invalid; the text says which and why.
    #[error("{0}")]
    Invalid(String),
}

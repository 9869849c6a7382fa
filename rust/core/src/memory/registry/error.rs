//! Why memory is not registered.

use crate::fabric::{Access, FabricError};
use crate::memory::inspect::Inaccessible;

/// Why a range was not registered.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RegistryError {
    /// Address 0, length 0, or a range that wraps around the address space.
    #[error(
        "memory {address:#x}+{length} is not a range: address and length must be more than zero and not wrap"
    )]
    NotARange {
        /// Start.
        address: u64,
        /// Bytes.
        length: u64,
    },
    /// The same start is registered with another length.
    #[error("memory at {address:#x} is registered with {registered} bytes already, {length} were asked for")]
    OtherLength {
        /// Start.
        address: u64,
        /// Bytes asked for.
        length: u64,
        /// Bytes registered.
        registered: u64,
    },
    /// The same range is registered with other rights.
    #[error(
        "memory {address:#x}+{length} is registered with other rights already: {registered}; asked for were: {asked}. \
         Deregister it first"
    )]
    OtherRights {
        /// Start.
        address: u64,
        /// Bytes.
        length: u64,
        /// The rights that it has.
        registered: Access,
        /// Those asked for.
        asked: Access,
    },
    /// The CPU cannot access it, or a part of it.
    #[error(transparent)]
    Inaccessible(#[from] Inaccessible),
    /// It is not one range of GPU memory, or the GPU's runtime does not answer.
    #[error("GPU memory was not registered: {reason}")]
    Gpu {
        /// What the runtime says, with the range.
        reason: String,
    },
    /// It belongs to memory that the engine has allocated and that is being freed.
    #[error(
        "memory {address:#x}+{length} was not registered: the memory that the engine has allocated there is being freed; register it \
         before that, or allocate other memory"
    )]
    BeingFreed {
        /// Start.
        address: u64,
        /// Bytes.
        length: u64,
    },
    /// The engine is closed, or was while this range was being registered.
    #[error(
        "memory {address:#x}+{length} was not registered: the engine is closed; register it with another one"
    )]
    Closed {
        /// Start.
        address: u64,
        /// Bytes.
        length: u64,
    },
    /// The provider refused.
    #[error(transparent)]
    Fabric(#[from] FabricError),
}

/// Why no memory is registered with a further NIC.
#[derive(Debug, thiserror::Error)]
pub enum FurtherNicError {
    /// No thread can be started.
    #[error("no thread can be started that registers memory with it: {0}")]
    NoThread(std::io::Error),
    /// The engine is closed.
    #[error("the engine is closed")]
    Closed,
}

//! Why memory was not allocated or freed, and why a descriptor is not that of a range.

use std::os::fd::RawFd;

/// Why memory was not allocated, or not freed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AllocationError {
    /// A size of zero, or one that no file can have.
    #[error("cannot allocate {bytes} bytes: {problem}")]
    Size {
        /// Bytes asked for.
        bytes: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// There is not as much memory left. Nothing was tried: the kernel would end processes to make room.
    #[error("cannot allocate {bytes} bytes of memory: {available} are left {limit}; {hint}")]
    Exhausted {
        /// Bytes asked for, in whole pages.
        bytes: u64,
        /// Bytes that are left.
        available: u64,
        /// Of what: the host's memory, the container's.
        limit: String,
        /// What to try.
        hint: &'static str,
    },
    /// A system call failed.
    #[error("cannot allocate {bytes} bytes of {kind}: {call}: {source_text} (errno {errno}); {hint}")]
    Call {
        /// Bytes asked for, in whole pages.
        bytes: u64,
        /// `shared memory` or `shared memory in huge pages`.
        kind: &'static str,
        /// The system call.
        call: &'static str,
        /// errno.
        errno: i32,
        /// Its text.
        source_text: String,
        /// What to try.
        hint: &'static str,
    },
    /// Nothing that the engine has allocated begins at the address.
    #[error(
        "{address:#x} is not the start of memory that this engine has allocated and that is not freed yet: pass the address \
         that the allocation returned, once"
    )]
    NotAllocated {
        /// The address.
        address: u64,
    },
    /// No memory that has outlived its engine begins at the address.
    #[error(
        "{address:#x} is not the start of memory that has outlived its engine and that is not freed yet: destroy the engine first, or \
         free it with its engine; pass the address that the allocation returned, once"
    )]
    NotKept {
        /// The address.
        address: u64,
    },
    /// The program has registered the memory, or a part of it, by itself.
    #[error(
        "memory {address:#x}+{bytes} is not freed: {registrations} further registrations of it or of parts of it have not \
         ended; end them first"
    )]
    Registered {
        /// Start of the allocation.
        address: u64,
        /// Its bytes.
        bytes: u64,
        /// How many.
        registrations: usize,
    },
}

impl AllocationError {
    /// Whether the system forbids shared memory, or has none, rather than lacks memory.
    pub(crate) fn is_denied(&self) -> bool {
        const DENIED: [i32; 4] = [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EOPNOTSUPP];
        matches!(self, Self::Call { errno, .. } if DENIED.contains(errno))
    }
}

/// A descriptor is not that of the file which is mapped at a range of memory, or of none that can be shared.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot register memory {address:#x}+{length} by descriptor {fd} at offset {offset}: {problem}")]
pub struct SharedFileError {
    /// Start of the range.
    pub address: u64,
    /// Its bytes.
    pub length: u64,
    /// The descriptor.
    pub fd: RawFd,
    /// Offset of the range in the file.
    pub offset: u64,
    /// What is wrong, and what to do.
    pub problem: String,
}

//! What lies at a range of addresses: asked of the kernel when the range is registered, and no page is touched.
//!
//! The answer is that of the moment: memory that the program unmaps, protects or truncates afterwards is an error of the
//! transfer that meets it. Not seen: the size of a file that is deleted or a memfd, unless the process has a descriptor of
//! it or the capability to look (`CAP_SYS_ADMIN` or `CAP_CHECKPOINT_RESTORE`, for `/proc/self/map_files`); protection
//! keys; guard pages of `MADV_GUARD_INSTALL`; a full file system or an empty pool of huge pages.

mod file_size;
mod judge;
mod mapping;
mod source;

/// What the CPU may do with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuAccess {
    /// Read and write it.
    ReadWrite,
    /// Read it: some of it is not writable.
    ReadOnly,
}

/// What a range is, all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// What the CPU may do with every byte of it.
    pub access: CpuAccess,
    /// All of it is private anonymous memory: heap, stack, `mmap` with `MAP_PRIVATE | MAP_ANONYMOUS`. Its bytes stay
    /// accessible until the program itself unmaps or protects them. A file can be truncated by others, and so can what
    /// looks like one to the kernel: memfds, shared anonymous memory, System V and POSIX shared memory; huge pages may be
    /// short when they are first used. False if it is not known.
    pub anonymous: bool,
    /// Some of it is mapped by a driver: the CPU may be allowed to access it and fail all the same.
    pub device: bool,
}

/// Nobody can access a range: the first byte that cannot be read, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot register memory {address:#x}+{length}: Bad address (EFAULT) from byte {offset} on: {reason}")]
pub struct Inaccessible {
    /// Start.
    pub address: u64,
    /// Bytes.
    pub length: u64,
    /// The first byte that cannot be accessed, counted from `address`.
    pub offset: u64,
    /// Why not.
    pub reason: InaccessibleReason,
}

/// Why memory cannot be accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InaccessibleReason {
    /// There is no mapping.
    #[error("no memory is mapped there; register what mmap or the allocator gave, and no more")]
    NotMapped,
    /// The mapping has no `PROT_READ`.
    #[error(
        "the mapping there is not readable (mmap or mprotect without PROT_READ); allow reading before registering"
    )]
    NotReadable,
    /// The mapping is longer than its file.
    #[error(
        "the mapping there lies beyond the end of its file of {file_size} bytes; extend the file before registering"
    )]
    BeyondEndOfFile {
        /// Bytes that the file has now.
        file_size: u64,
    },
}

/// Asks the kernel what lies at `address..address + length`, a range of at least one byte that does not wrap.
///
/// Costs three system calls, one more for each further mapping in the range, and one or two for each file, where the kernel
/// can be asked about one mapping (the `PROCMAP_QUERY` ioctl of Linux 6.11): 7 to 13 us on a virtual machine. An older
/// kernel's `/proc/thread-self/maps` is read up to the range: 0.5 us for each mapping before it, 40 us in a process of 37,
/// 0.9 ms in one of 2,036. Nothing is remembered from one call to the next: what is mapped changes without notice.
///
/// `Ok(None)`: the kernel does not say, as where /proc is not mounted.
pub fn inspect(address: u64, length: u64) -> Result<Option<Inspection>, Inaccessible> {
    source::with_mappings(&|covering| judge::judge(address, length, covering, file_size::of))
}

#[cfg(test)]
#[cfg(not(flagcx_p2p_loom))]
mod tests;

//! Inspection of a range of addresses by the kernel's tables when it is registered; no page is touched.
//!
//! The result holds at that moment: memory that the program unmaps, protects or truncates afterwards fails the
//! transfer that accesses it. Not detected: the size of a deleted file or a memfd, unless the process has a
//! descriptor of it or the capability (`CAP_SYS_ADMIN` or `CAP_CHECKPOINT_RESTORE`, for `/proc/self/map_files`);
//! protection keys; guard pages of `MADV_GUARD_INSTALL`; a full file system or an empty pool of huge pages.

use rustix::param::page_size;

mod file_size;
mod judge;
mod mapped_from;
mod mapping;
mod source;

pub(super) use mapped_from::{MappedFrom, mapped_from};

/// What the CPU may do with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuAccess {
    /// Read and write it.
    ReadWrite,
    /// Read it: some of it is not writable.
    ReadOnly,
}

/// The properties of a whole range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// What the CPU may do with every byte of it.
    pub access: CpuAccess,
    /// All of it is private anonymous memory: heap, stack, `mmap` with `MAP_PRIVATE | MAP_ANONYMOUS`. Its bytes stay
    /// accessible until the program itself unmaps or protects them. False for files, which others can truncate, and
    /// for what is a file to the kernel: memfds, shared anonymous memory, System V and POSIX shared memory, and huge
    /// pages, which may run out at first use. False if it is not known.
    pub anonymous: bool,
    /// Some of it is mapped by a driver: a CPU access may fail although the mapping permits it.
    pub device: bool,
}

/// A range is inaccessible: the first byte that cannot be read, and the reason.
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
    #[error("no memory is mapped there; register only memory that mmap or the allocator has returned")]
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

/// Inspects `address..address + length`, a range of at least one byte that does not wrap, by the kernel's tables.
///
/// Costs three system calls, one more for each further mapping in the range, and one or two for each file, where the
/// kernel can query one mapping (the `PROCMAP_QUERY` ioctl of Linux 6.11): 7 to 13 us on a virtual machine. An older
/// kernel's `/proc/thread-self/maps` is read up to the range: 0.5 us for each mapping before it, 40 us in a process
/// of 37, 0.9 ms in one of 2,036. Nothing is cached between calls: mappings change without notice.
///
/// `Ok(None)`: not known, as where /proc is not mounted.
pub fn inspect(address: u64, length: u64) -> Result<Option<Inspection>, Inaccessible> {
    let page = page_size() as u64;
    source::with_mappings(&|covering| judge::judge(address, length, page, covering, file_size::of))
}

#[cfg(test)]
#[cfg(not(flagcx_p2p_loom))]
mod tests;

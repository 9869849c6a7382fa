//! GPU memory of other processes of this host by file descriptors: what the legacy IPC handles do not name, memory of
//! `cuMemCreate` and of pools.
//!
//! The owner opens a file for each allocation of a range, and writes the numbers of these descriptors into a list, a memfd,
//! behind a random token: an [`Offer`]. Its [`FileReference`] names process, list and token in the 64 bytes of a handle. Another
//! process of the same user takes list and files out of the owner with `pidfd_getfd`: [`take`]. The owner erases the
//! token before it closes a file. So files that were taken before the token was read once more are those of the range, whatever
//! other files have got their numbers since; and what a process that has the owner's pid now offers has another token.

mod offer;
mod owner;
mod reference;

use std::os::fd::OwnedFd;

pub(super) use offer::Offer;
pub use owner::Owner;
pub(super) use owner::take;
pub use reference::FileReference;

/// Allocations of one range, at most: each needs a file descriptor of its owner for as long as the range is registered.
pub(super) const MOST_FILES: usize = 1024;

/// Bytes by which a pool names one of its allocations, `CUmemPoolPtrExportData`.
pub const POOL_POINTER_BYTES: usize = 64;

/// The allocations of a range of GPU memory, as files.
#[derive(Debug)]
pub struct MemoryFiles {
    /// Where the first allocation begins in the owner's process. 0 in what was taken of another process.
    pub base: u64,
    /// In the order of addresses, without gaps.
    pub files: Vec<MemoryFile>,
    /// The only file is that of a pool, which has the allocation by this name.
    pub pool_pointer: Option<[u8; POOL_POINTER_BYTES]>,
}

impl MemoryFiles {
    /// Bytes of all allocations together; `None` if they are more than an address space has.
    pub fn length(&self) -> Option<u64> {
        self.files.iter().try_fold(0_u64, |sum, file| sum.checked_add(file.length))
    }
}

/// A file that stands for one allocation.
#[derive(Debug)]
pub struct MemoryFile {
    /// What the GPU's runtime imports.
    pub file: OwnedFd,
    /// Bytes of the allocation.
    pub length: u64,
}

/// Random bytes by which a list is known.
type Token = [u8; 16];

/// The fields of the list, in the byte order of the host: the token, the number of files, 1 for a pool, and for each file its
/// descriptor and its length; behind them the name of a pool's allocation.
mod list {
    use rustix::fs::SealFlags;

    pub(super) const HEADER: usize = 16 + 4 + 4;
    pub(super) const FILE: usize = 4 + 4 + 8;

    /// Of the file of every list. It may be written to, for the token is erased.
    pub(super) fn seals() -> SealFlags {
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL
    }
}

//! A region of a peer, mapped here from the file that the peer has sent; nothing that the peer says of it is believed.
#![allow(unsafe_code, reason = "maps memory")]

use std::ffi::c_void;
use std::os::fd::{AsFd as _, OwnedFd};
use std::ptr::{NonNull, null_mut};

use rustix::fs::{FileType, SealFlags, Stat, fcntl_get_seals, fstat};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use super::mapping_budget::{Budget, Share};
use crate::fabric::{page_of_file, whole_pages};

/// What is to be mapped, as the peer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Address of the region in the peer.
    pub(super) base: u64,
    /// Bytes.
    pub(super) length: u64,
    /// Where it begins in the file.
    pub(super) offset: u64,
    /// The file is sealed and its pages are reserved. `false` is always safe.
    pub(super) is_own: bool,
    /// For WRITEs, too.
    pub(super) writable: bool,
}

/// Why a region is not mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unmappable {
    pub(super) reason: String,
    /// It may be tried again: something has run out.
    pub(super) passes: bool,
}

/// The mapping. Dropping it unmaps.
#[derive(Debug)]
pub(super) struct FileMapping {
    /// As wanted, but own only if the file proves it.
    pub(super) region: Wanted,
    /// Where the region's first byte lies here.
    pub(super) start: u64,
    address: NonNull<c_void>,
    size: usize,
    /// Given back after the drop below has unmapped.
    _share: Share,
}

// SAFETY: it owns the mapping; the memory is accessed by address only, as registered memory is.
unsafe impl Send for FileMapping {}

impl FileMapping {
    pub(super) fn make(file: &OwnedFd, wanted: Wanted) -> Result<Self, Unmappable> {
        let page = page_of_file(file.as_fd()).map_err(|errno| failed("fstatfs", errno))?;
        Self::make_in_pages(file, wanted, page)
    }

    /// `page`: bytes of a page of the file, a multiple of the kernel's.
    fn make_in_pages(file: &OwnedFd, wanted: Wanted, page: u64) -> Result<Self, Unmappable> {
        // Before the size: a file with these seals keeps it.
        let seals = fcntl_get_seals(file).unwrap_or(SealFlags::empty());
        let status = fstat(file).map_err(|errno| failed("fstat", errno))?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err(refused("it has sent something else than a regular file"));
        }
        let size = u64::try_from(status.st_size).unwrap_or(0);
        if wanted.offset.checked_add(wanted.length).is_none_or(|end| end > size) || wanted.length == 0 {
            return Err(refused("its file is shorter than the region"));
        }
        let is_own =
            wanted.is_own && seals.contains(SealFlags::SHRINK | SealFlags::SEAL) && is_reserved(&status);
        let (first, bytes) =
            whole_pages(wanted.offset, wanted.length, page).ok_or_else(|| refused("too long"))?;
        let lead = wanted.offset - first;
        let size = usize::try_from(bytes).map_err(|_| refused("too long"))?;
        let share =
            Budget::own().acquire(size as u64).map_err(|reason| Unmappable { reason, passes: true })?;
        let protection = if wanted.writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a fresh mapping at an address that the kernel chooses aliases no Rust object.
        let address = unsafe { mmap(null_mut(), size, protection, MapFlags::SHARED, file, first) };
        let address = address.map_err(|errno| failed("mmap", errno))?;
        let address = NonNull::new(address).ok_or_else(|| failed("mmap", Errno::NOMEM))?;
        let start = address.as_ptr() as u64 + lead;
        let mapping = Self { region: Wanted { is_own, ..wanted }, start, address, size, _share: share };
        mapping.keep_to_this_process();
        Ok(mapping)
    }

    /// Bytes of address space.
    pub(super) fn size(&self) -> u64 {
        self.size as u64
    }

    /// Neither core dumps nor children of this process need the peer's memory. What a kernel does not know is no loss.
    fn keep_to_this_process(&self) {
        for advice in [Advice::LinuxDontDump, Advice::LinuxDontFork] {
            // SAFETY: this mapping alone, and no page of it changes in this process.
            if let Err(errno) = unsafe { madvise(self.address.as_ptr(), self.size, advice) } {
                tracing::debug!(%errno, ?advice, "no advice for a mapping");
            }
        }
    }
}

impl Drop for FileMapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by this object with exactly this size, and its users pin it.
        if let Err(errno) = unsafe { munmap(self.address.as_ptr(), self.size) } {
            tracing::warn!(%errno, "cannot unmap a region of a peer");
        }
    }
}

/// Whether each page of the file is there: an access to one that is not could find no memory.
fn is_reserved(status: &Stat) -> bool {
    u64::try_from(status.st_blocks).unwrap_or(0).saturating_mul(512) >= status.st_size as u64
}

fn refused(reason: &str) -> Unmappable {
    Unmappable { reason: reason.to_owned(), passes: false }
}

fn failed(call: &str, errno: Errno) -> Unmappable {
    let hint = match errno {
        Errno::NOMEM => ": see ulimit -v, vm.max_map_count and vm.overcommit_memory",
        _ => "",
    };
    Unmappable { reason: format!("{call}: {errno}{hint}"), passes: errno == Errno::NOMEM }
}

#[cfg(test)]
mod tests;

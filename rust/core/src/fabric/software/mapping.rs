//! Arrays of atomics in memory that two processes can share.
#![allow(unsafe_code, reason = "maps memory and hands out references into it")]

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{NonNull, null_mut};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::io::{Errno, retry_on_intr};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use super::denial;
use crate::sync::{SequentialU32, SequentialU64};

/// What a [`SharedArray`] may hold.
///
/// # Safety
/// The type is `repr(C)` (or `repr(transparent)`), consists of atomics and padding integers only, is valid for every
/// bit pattern, and is never accessed but through those atomics.
pub(super) unsafe trait Shared: Send + Sync {}

// SAFETY: one atomic integer, valid for every bit pattern.
unsafe impl Shared for SequentialU32 {}
// SAFETY: as above.
unsafe impl Shared for SequentialU64 {}

/// `len` elements of zeroed memory, alone in this process or shared through a memfd. Sparse: pages that no process
/// touched take no memory.
#[derive(Debug)]
pub(super) struct SharedArray<T: Shared> {
    elements: NonNull<T>,
    len: usize,
}

// SAFETY: the array owns its mapping, and its elements are `Sync` by the promise of `Shared`.
unsafe impl<T: Shared> Send for SharedArray<T> {}
// SAFETY: as above; only shared references to the elements are handed out.
unsafe impl<T: Shared> Sync for SharedArray<T> {}

impl<T: Shared> SharedArray<T> {
    /// Memory of this process only.
    pub(super) fn private(len: usize) -> io::Result<Self> {
        let bytes = Self::bytes(len)?;
        // SAFETY: a fresh anonymous mapping at an address that the kernel chooses aliases nothing.
        let address = unsafe {
            mmap_anonymous(
                null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        };
        Self::from_address(address, len)
    }

    /// Memory that this process writes. A process that receives the returned descriptor can only read it: the seals refuse
    /// further writable mappings, and resizing, which would make the other side's accesses fault.
    pub(super) fn published(name: &str, len: usize) -> io::Result<(Self, OwnedFd)> {
        let bytes = Self::bytes(len)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = retry_on_intr(|| memfd_create(name, flags))?;
        retry_on_intr(|| ftruncate(&file, bytes as u64))?;
        let array = Self::map(file.as_fd(), len, ProtFlags::READ | ProtFlags::WRITE)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
        retry_on_intr(|| fcntl_add_seals(&file, seals))?;
        Ok((array, file))
    }

    /// [`SharedArray::published`], or without a descriptor where the system denies what that needs: then no peer can see it.
    pub(super) fn published_if_allowed(name: &str, len: usize) -> io::Result<(Self, Option<OwnedFd>)> {
        match Self::published(name, len) {
            Ok((array, file)) => Ok((array, Some(file))),
            Err(error) if is_exhausted(&error) => Err(error),
            Err(error) => {
                denial::tell("memfd_create", &error.to_string(), "peers of this host use TCP");
                Ok((Self::private(len)?, None))
            }
        }
    }

    /// The read-only view of an array that another process published.
    ///
    /// Refuses (`EINVAL`) a file of another size, or one that its owner could still shrink under us.
    pub(super) fn open(file: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        let size = u64::try_from(fstat(file)?.st_size).unwrap_or(0);
        let seals = fcntl_get_seals(file)?;
        if size != Self::bytes(len)? as u64 || !seals.contains(SealFlags::SHRINK | SealFlags::SEAL) {
            return Err(Errno::INVAL.into());
        }
        Self::map(file, len, ProtFlags::READ)
    }

    /// Where it lies in this process.
    pub(super) fn address(&self) -> u64 {
        self.elements.as_ptr() as u64
    }

    /// The element at `index`. Of an array from [`SharedArray::open`] it must only be loaded from.
    pub(super) fn get(&self, index: usize) -> Option<&T> {
        if index >= self.len {
            return None;
        }
        // SAFETY: `index < len`, and the mapping of `len` elements lives as long as `self`.
        Some(unsafe { self.elements.add(index).as_ref() })
    }

    fn bytes(len: usize) -> io::Result<usize> {
        len.checked_mul(size_of::<T>()).filter(|bytes| *bytes > 0).ok_or_else(|| Errno::INVAL.into())
    }

    fn map(file: BorrowedFd<'_>, len: usize, protection: ProtFlags) -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address that the kernel chooses aliases no Rust object; the file is as long
        // as the mapping and sealed against shrinking (or is about to be, by its creator).
        let address = unsafe {
            mmap(null_mut(), Self::bytes(len)?, protection, MapFlags::SHARED | MapFlags::NORESERVE, file, 0)?
        };
        Self::from_address(address, len)
    }

    fn from_address(address: *mut c_void, len: usize) -> io::Result<Self> {
        let elements = NonNull::new(address.cast()).ok_or(Errno::NOMEM)?;
        Ok(Self { elements, len })
    }
}

/// Whether a call has failed for want of memory or descriptors, which may come back.
fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOSPC))
}

impl<T: Shared> Drop for SharedArray<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by this object with exactly this size, and no reference outlives it.
        let unmapped = unsafe { munmap(self.elements.as_ptr().cast(), self.len * size_of::<T>()) };
        if let Err(errno) = unmapped {
            tracing::warn!(%errno, "cannot unmap a shared array");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_array_is_seen_by_its_reader_and_cannot_be_written_through_the_descriptor() {
        let (owner, file) = SharedArray::<SequentialU32>::published("test", 1024).unwrap();
        let reader = SharedArray::<SequentialU32>::open(file.as_fd(), 1024).unwrap();
        owner.get(7).unwrap().store(42);
        assert_eq!(reader.get(7).unwrap().load(), 42);
        assert!(reader.get(1024).is_none());
        assert!(
            SharedArray::<SequentialU32>::map(file.as_fd(), 1024, ProtFlags::WRITE | ProtFlags::READ)
                .is_err()
        );
    }

    #[test]
    fn a_file_of_the_wrong_size_or_without_seals_is_refused() {
        let (_owner, file) = SharedArray::<SequentialU32>::published("test", 1024).unwrap();
        assert!(SharedArray::<SequentialU32>::open(file.as_fd(), 2048).is_err());
        let unsealed = memfd_create("unsealed", MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&unsealed, 4096).unwrap();
        assert!(SharedArray::<SequentialU32>::open(unsealed.as_fd(), 1024).is_err());
    }
}

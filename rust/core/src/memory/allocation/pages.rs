//! Mapped pages of an allocation.
#![allow(unsafe_code, reason = "maps and unmaps memory")]

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::ptr::{NonNull, null_mut};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use rustix::param::page_size;

use super::error::AllocationError;
use super::memfd;

/// Memory that is mapped until [`Pages::unmap`] or [`Pages::empty`]; a value that is dropped stays mapped.
#[derive(Debug)]
pub(super) struct Pages {
    start: NonNull<u8>,
    length: usize,
    /// Of memory that peers can map.
    file: Option<OwnedFd>,
}

// SAFETY: the memory belongs to no thread, and this module makes no references into it.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

const READ_WRITE: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

impl Pages {
    /// Zeroed memory of a memfd, for this process and its peers. `read_only`: for peers.
    pub(super) fn shared(bytes: u64, huge: bool, read_only: bool) -> Result<Self, AllocationError> {
        let (file, size) = memfd::create(bytes, huge)?;
        let failed = |call| move |errno| memfd::failure(size, huge, call, errno);
        let length = usize::try_from(size).map_err(|_| failed("mmap")(Errno::NOMEM))?;
        // SAFETY: a mapping at an address that the kernel chooses overlaps nothing; the file is as long.
        let start = unsafe { mmap(null_mut(), length, READ_WRITE, MapFlags::SHARED, &file, 0) };
        let start = NonNull::new(start.map_err(failed("mmap"))?.cast());
        let pages = Self { start: start.ok_or_else(|| failed("mmap")(Errno::FAULT))?, length, file: None };
        match memfd::seal(file.as_fd(), read_only) {
            Ok(()) => Ok(Self { file: Some(file), ..pages }),
            Err(errno) => {
                // SAFETY: mapped above, and nothing has its address.
                unsafe { pages.unmap() };
                Err(failed("fcntl(F_ADD_SEALS)")(errno))
            }
        }
    }

    /// Zeroed memory of this process alone.
    pub(super) fn anonymous(bytes: u64) -> Result<Self, AllocationError> {
        if bytes == 0 {
            return Err(AllocationError::Size { bytes, problem: "ask for at least one" });
        }
        let size = usize::try_from(bytes).ok().and_then(|bytes| bytes.checked_next_multiple_of(page_size()));
        let length = size.ok_or(AllocationError::Size { bytes, problem: "no memory is as long" })?;
        let failed = |errno| memfd::failure(bytes, false, "mmap", errno);
        // SAFETY: as above.
        let start = unsafe { mmap_anonymous(null_mut(), length, READ_WRITE, MapFlags::PRIVATE) };
        let start = NonNull::new(start.map_err(failed)?.cast()).ok_or_else(|| failed(Errno::FAULT))?;
        Ok(Self { start, length, file: None })
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// In whole pages.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// The file that peers can map.
    pub(super) fn fd(&self) -> Option<RawFd> {
        self.file.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Gives pages and addresses back.
    ///
    /// # Safety
    /// Nothing uses the memory any more.
    pub(super) unsafe fn unmap(self) {
        // SAFETY: mapped by this module with this length; otherwise the caller's promise.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
        if let Err(errno) = unmapped {
            tracing::warn!(%errno, "cannot unmap {} bytes of allocated memory", self.length);
        }
    }

    /// Gives the pages back, and keeps the addresses for good: they do not become those of something else, and an access finds
    /// new pages. No hole is made in the file: a stopped process may have mapped it, and goes on copying there.
    ///
    /// # Safety
    /// What the memory holds is not needed any more. Another process may still access it by a copy of the kernel.
    pub(super) unsafe fn empty(self) {
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: in the place of what this module has mapped with this length; otherwise the caller's promise.
        let emptied = unsafe { mmap_anonymous(self.start.as_ptr().cast(), self.length, READ_WRITE, flags) };
        let pages =
            emptied.map_or_else(|errno| format!(", and so do its pages ({errno})"), |_| String::new());
        tracing::info!(
            "{:#x}+{} stays mapped{pages}: another process may still access it",
            self.start.as_ptr() as u64,
            self.length
        );
    }
}

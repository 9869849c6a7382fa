//! The file that a region's memory is mapped from, as the region's owner keeps it and gives it to a peer.
#![allow(unsafe_code, reason = "borrows a descriptor by its number")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::{Errno, fcntl_dupfd_cloexec, retry_on_intr};

use super::kept_files::{KeptFile, KeptFiles, NoDescriptor};
use crate::fabric::{MemoryRange, SharedFile};

/// A descriptor that the caller cannot close, and where the region begins in the file.
#[derive(Debug)]
pub(super) struct RegionFile {
    file: Arc<KeptFile>,
    pub(super) offset: u64,
    pub(super) is_own: bool,
    /// Peers may write to the region. A mapping for writing can be read as well: the process that checks rights is the peer's, as
    /// for copies by the kernel.
    is_writable: bool,
}

/// Why a file is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotKept {
    /// It cannot be the file of the range; what to look at.
    Wrong(Errno, &'static str),
    /// There is no descriptor for it.
    NoDescriptor(NoDescriptor),
}

impl RegionFile {
    /// Keeps the file of `range` among `files`; checks it as far as the range can tell.
    pub(super) fn keep(
        files: &Arc<KeptFiles>,
        shared: &SharedFile,
        range: &MemoryRange,
    ) -> Result<Self, NotKept> {
        if shared.fd < 0 {
            return Err(NotKept::Wrong(Errno::BADF, BAD_DESCRIPTOR));
        }
        // SAFETY: the caller lends the descriptor for this call; a number that is none is answered by the kernel.
        let borrowed = unsafe { BorrowedFd::borrow_raw(shared.fd) };
        let status = fstat(borrowed).map_err(|errno| NotKept::Wrong(errno, BAD_DESCRIPTOR))?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err(NotKept::Wrong(Errno::INVAL, "its file must be a regular one, as a memfd is"));
        }
        let end = shared.offset.checked_add(range.length);
        if end.is_none_or(|end| end > u64::try_from(status.st_size).unwrap_or(0)) {
            return Err(NotKept::Wrong(Errno::INVAL, "its file is shorter than the offset and the range"));
        }
        let page = rustix::param::page_size() as u64;
        if range.address % page != shared.offset % page {
            let hint = "address and offset differ within a page: the range is not mapped from there";
            return Err(NotKept::Wrong(Errno::INVAL, hint));
        }
        let file = files.keep(borrowed, &status).map_err(NotKept::NoDescriptor)?;
        let SharedFile { offset, is_own, .. } = *shared;
        Ok(Self { file, offset, is_own, is_writable: range.access.remote_write })
    }

    /// A descriptor for a peer: for reading only, if the peer may not write.
    pub(super) fn for_peer(&self) -> Result<OwnedFd, Errno> {
        if self.is_writable {
            return fcntl_dupfd_cloexec(&self.file, 0);
        }
        let path = format!("/proc/self/fd/{}", self.file.as_fd().as_raw_fd());
        retry_on_intr(|| open(&*path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()))
    }
}

const BAD_DESCRIPTOR: &str = "the descriptor of its file cannot be used";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::{Access, Backing};
    use rustix::fs::{MemfdFlags, fcntl_getfl, ftruncate, memfd_create};

    fn range(access: Access) -> MemoryRange {
        MemoryRange {
            address: 0x10000,
            length: 8192,
            access,
            dma_buf: None,
            file: None,
            cpu_address: None,
            backing: Backing::Mapped,
            announced: true,
        }
    }

    fn memfd(size: u64) -> OwnedFd {
        let file = memfd_create("region", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, size).unwrap();
        file
    }

    fn shared(fd: i32, offset: u64) -> SharedFile {
        SharedFile { fd, offset, is_own: false }
    }

    #[test]
    fn a_peer_that_may_not_write_is_given_a_descriptor_for_reading() {
        let file = memfd(8192);
        let mode = |access| {
            let kept =
                RegionFile::keep(&Arc::default(), &shared(file.as_raw_fd(), 0), &range(access)).unwrap();
            fcntl_getfl(kept.for_peer().unwrap()).unwrap() & OFlags::RWMODE
        };
        assert_eq!(mode(Access::FULL), OFlags::RDWR);
        assert_eq!(mode(Access::READ_ONLY), OFlags::RDONLY);
    }

    #[test]
    fn a_file_that_cannot_be_that_of_the_range_is_refused() {
        let refused =
            |fd, offset| match RegionFile::keep(&Arc::default(), &shared(fd, offset), &range(Access::FULL)) {
                Err(NotKept::Wrong(errno, hint)) => (errno, hint),
                other => panic!("{other:?}"),
            };
        let short = memfd(8191);
        assert_eq!(refused(-1, 0).0, Errno::BADF);
        assert_eq!(refused(1 << 20, 0).0, Errno::BADF);
        assert!(refused(short.as_raw_fd(), 0).1.contains("shorter"));
        let long = memfd(1 << 20);
        assert!(refused(long.as_raw_fd(), u64::MAX).1.contains("shorter"));
        assert!(refused(long.as_raw_fd(), 12).1.contains("differ within a page"));
        let directory = std::fs::File::open("/").unwrap();
        assert!(refused(directory.as_raw_fd(), 0).1.contains("regular"));
    }
}

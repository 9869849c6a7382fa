//! One descriptor of each file that regions are mapped from, however many regions a file has; and no more than a quarter of those
//! that the process may have open.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use rustix::fs::{OFlags, Stat, fcntl_getfl};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Resource, getrlimit};

use crate::sync::{Mutex, lock};

/// Device and inode of a file, and the access mode of the descriptor. No other file has the inode while the descriptor is open.
type Identity = (u64, u64, u32);

/// The files of a device's regions.
#[derive(Debug, Default)]
pub(super) struct KeptFiles(Mutex<BTreeMap<Identity, Weak<KeptFile>>>);

/// Closed with the last region that is mapped from it.
#[derive(Debug)]
pub(super) struct KeptFile {
    descriptor: OwnedFd,
    identity: Identity,
    files: Arc<KeptFiles>,
}

/// Why no descriptor is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoDescriptor {
    /// The process has none left.
    Failed(Errno),
    /// So many are kept already.
    Enough(usize),
}

impl KeptFiles {
    /// The kept descriptor of the file of `lent`, of which `status` tells.
    pub(super) fn keep(
        self: &Arc<Self>,
        lent: BorrowedFd<'_>,
        status: &Stat,
    ) -> Result<Arc<KeptFile>, NoDescriptor> {
        self.keep_at_most(lent, status, most())
    }

    fn keep_at_most(
        self: &Arc<Self>,
        lent: BorrowedFd<'_>,
        status: &Stat,
        most: usize,
    ) -> Result<Arc<KeptFile>, NoDescriptor> {
        let mode = fcntl_getfl(lent).map_err(NoDescriptor::Failed)? & OFlags::RWMODE;
        let identity = (status.st_dev, status.st_ino, mode.bits());
        let mut kept = lock(&self.0);
        if let Some(file) = kept.get(&identity).and_then(Weak::upgrade) {
            return Ok(file);
        }
        if kept.len() >= most {
            return Err(NoDescriptor::Enough(kept.len()));
        }
        let descriptor = fcntl_dupfd_cloexec(lent, 0).map_err(NoDescriptor::Failed)?;
        let file = Arc::new(KeptFile { descriptor, identity, files: Arc::clone(self) });
        kept.insert(identity, Arc::downgrade(&file));
        Ok(file)
    }
}

impl AsFd for KeptFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for KeptFile {
    fn drop(&mut self) {
        let mut kept = lock(&self.files.0);
        // Otherwise the file has been kept anew meanwhile.
        if kept.get(&self.identity).is_some_and(|file| file.strong_count() == 0) {
            kept.remove(&self.identity);
        }
    }
}

/// Connections need the others.
fn most() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit / 4).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, fstat, memfd_create};

    fn memfd() -> OwnedFd {
        memfd_create("kept", MemfdFlags::CLOEXEC).unwrap()
    }

    fn keep(files: &Arc<KeptFiles>, file: &OwnedFd, most: usize) -> Result<Arc<KeptFile>, NoDescriptor> {
        files.keep_at_most(file.as_fd(), &fstat(file).unwrap(), most)
    }

    #[test]
    fn a_file_is_kept_once_until_its_last_user_ends() {
        let (files, file) = (Arc::<KeptFiles>::default(), memfd());
        let first = keep(&files, &file, 1).unwrap();
        let again = keep(&files, &file.try_clone().unwrap(), 1).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let other = memfd();
        assert_eq!(keep(&files, &other, 1).unwrap_err(), NoDescriptor::Enough(1));
        drop(first);
        assert!(keep(&files, &other, 1).is_err());
        drop(again);
        keep(&files, &other, 1).unwrap();
        assert!(lock(&files.0).is_empty());
    }

    /// A peer that may write needs a descriptor for writing.
    #[test]
    fn a_descriptor_for_reading_does_not_stand_for_one_for_writing() {
        use std::os::fd::AsRawFd;
        let (files, file) = (Arc::<KeptFiles>::default(), memfd());
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let for_reading = OwnedFd::from(std::fs::File::open(path).unwrap());
        let first = keep(&files, &for_reading, 2).unwrap();
        let second = keep(&files, &file, 2).unwrap();
        assert_eq!(fcntl_getfl(first).unwrap() & OFlags::RWMODE, OFlags::RDONLY);
        assert_eq!(fcntl_getfl(second).unwrap() & OFlags::RWMODE, OFlags::RDWR);
    }
}

//! A file that is being received.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FallocateFlags, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, retry_on_intr};

use super::{Directory, FileName, StoreError, TEMPORARY};

/// Disk space that is reserved before the first data.
const FIRST: u64 = 1 << 20;
/// Most that is reserved beyond the data at once. In a tmpfs it takes memory: a gigabyte at once stops the transfer for 0.3 s,
/// because the ring of slots is full long before.
const STEP: u64 = 32 << 20;

/// A file that is being received. It gets its name in [`Incoming::commit`]; dropped before that, it leaves nothing.
///
/// The file has no name at all while it is written (`O_TMPFILE`), so that even a killed process leaves nothing
/// behind; file systems without that get a temporary name.
#[derive(Debug)]
pub(crate) struct Incoming {
    directory: Directory,
    name: FileName,
    file: File,
    /// Its temporary name, if it has one.
    temporary: Option<String>,
    force: bool,
    size: u64,
    written: u64,
    /// Disk space that it has: more is reserved as data arrives. A client that sends nothing holds almost none.
    reserved: u64,
}

impl Incoming {
    pub(super) fn new(
        directory: Directory,
        name: FileName,
        size: u64,
        force: bool,
    ) -> Result<Self, StoreError> {
        let open = || if has_proc() { open_unnamed(&directory) } else { open_temporary(&directory) };
        let (fd, temporary) = open().or_else(|_| open_temporary(&directory)).map_err(|errno| {
            StoreError::io("create a file in", directory.path.display().to_string(), errno)
        })?;
        let file = File::from(fd);
        let mut incoming = Self { directory, name, file, temporary, force, size, written: 0, reserved: 0 };
        if incoming.reserve(size.min(FIRST))? {
            incoming.check_space()?;
        }
        Ok(incoming)
    }

    /// Appends.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let end = self.written + bytes.len() as u64;
        if end > self.reserved {
            self.reserve(self.size.min(end.saturating_add(end.min(STEP))).max(end))?;
        }
        self.file.write_all(bytes).map_err(|error| self.failed("write", error))?;
        self.written = end;
        Ok(())
    }

    /// Syncs the file to disk, gives it its name, and syncs the directory.
    pub(crate) fn commit(mut self) -> Result<(), StoreError> {
        self.file.sync_all().map_err(|error| self.failed("sync", error))?;
        let temporary = self.named()?;
        self.rename(&temporary)?;
        self.temporary = None;
        retry_on_intr(|| rustix::fs::fsync(&*self.directory.fd))
            .map_err(|errno| self.failed("sync the directory of", errno))
    }

    /// Reserves space for the first `size` bytes. False: the file system cannot, and a full disk shows later.
    fn reserve(&mut self, size: u64) -> Result<bool, StoreError> {
        // Only what is new: a tmpfs looks at each page of the range.
        let (start, more) = (self.reserved, size.saturating_sub(self.reserved));
        if more == 0 {
            return Ok(true);
        }
        match retry_on_intr(|| rustix::fs::fallocate(&self.file, FallocateFlags::empty(), start, more)) {
            Ok(()) => {
                self.reserved = size;
                Ok(true)
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.reserved = u64::MAX;
                Ok(false)
            }
            Err(errno) => Err(self.failed("reserve space for", errno)),
        }
    }

    /// Refuses a file that the disk has no space for, before its data is sent.
    fn check_space(&self) -> Result<(), StoreError> {
        let free = self.directory.free_space()?;
        if self.size - self.reserved > free {
            let path = self.directory.path_of(&self.name);
            return Err(StoreError::Full { path, needed: self.size, free: free + self.reserved });
        }
        Ok(())
    }

    /// Makes sure that there is a temporary name to rename from.
    fn named(&mut self) -> Result<String, StoreError> {
        if let Some(name) = &self.temporary {
            return Ok(name.clone());
        }
        let name = temporary_name().map_err(|errno| self.failed("name", errno))?;
        let source = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        rustix::fs::linkat(CWD, source, &*self.directory.fd, name.as_str(), AtFlags::SYMLINK_FOLLOW)
            .map_err(|errno| self.failed("name", errno))?;
        self.temporary = Some(name.clone());
        Ok(name)
    }

    fn rename(&self, temporary: &str) -> Result<(), StoreError> {
        let (directory, name) = (&*self.directory.fd, self.name.as_str());
        let renamed = if self.force {
            rustix::fs::renameat(directory, temporary, directory, name)
        } else {
            match rustix::fs::renameat_with(directory, temporary, directory, name, RenameFlags::NOREPLACE) {
                // The file system cannot rename so; a hard link refuses a taken name just as well.
                Err(Errno::INVAL | Errno::NOSYS) => {
                    rustix::fs::linkat(directory, temporary, directory, name, AtFlags::empty())
                        .and_then(|()| rustix::fs::unlinkat(directory, temporary, AtFlags::empty()))
                }
                renamed => renamed,
            }
        };
        renamed.map_err(|errno| match errno {
            Errno::EXIST => StoreError::Exists(self.directory.path_of(&self.name)),
            errno => self.failed("rename to", errno),
        })
    }

    fn failed(&self, operation: &'static str, error: impl Into<std::io::Error>) -> StoreError {
        StoreError::io(operation, self.directory.path_of(&self.name), error)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(name) = &self.temporary
            && let Err(error) = rustix::fs::unlinkat(&*self.directory.fd, name.as_str(), AtFlags::empty())
        {
            tracing::warn!(name, %error, "cannot remove a temporary file");
        }
    }
}

/// Whether an open file can be given a name, which goes through /proc.
fn has_proc() -> bool {
    rustix::fs::access("/proc/self/fd", rustix::fs::Access::EXISTS).is_ok()
}

fn open_unnamed(directory: &Directory) -> Result<(OwnedFd, Option<String>), Errno> {
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(&*directory.fd, ".", flags, Mode::from_raw_mode(0o644));
    let fd = retry_on_intr(open)?;
    lock(&fd)?;
    Ok((fd, None))
}

fn open_temporary(directory: &Directory) -> Result<(OwnedFd, Option<String>), Errno> {
    let name = temporary_name()?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(&*directory.fd, name.as_str(), flags, Mode::from_raw_mode(0o644));
    let fd = retry_on_intr(open)?;
    lock(&fd)?;
    // A server that starts may have taken it for one without a writer, before it was locked.
    if rustix::fs::fstat(&fd)?.st_nlink == 0 {
        return Err(Errno::AGAIN);
    }
    Ok((fd, Some(name)))
}

/// Marks the file as one that a running process writes to.
fn lock(fd: &OwnedFd) -> Result<(), Errno> {
    match rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive) {
        // Where there are no locks, nothing is removed as stale either.
        Err(Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => Ok(()),
        locked => locked,
    }
}

#[cfg(test)]
pub(super) fn named_for_test(directory: &Directory) -> Incoming {
    let (fd, temporary) = open_temporary(directory).unwrap();
    let (directory, name) = (directory.clone(), FileName::new("a").unwrap());
    let file = File::from(fd);
    Incoming { directory, name, file, temporary, force: false, size: 0, written: 0, reserved: 0 }
}

/// A file of which no byte can be written.
#[cfg(test)]
pub(crate) fn unwritable_for_test() -> Incoming {
    let directory = Directory::open(std::path::Path::new("/tmp")).unwrap();
    let (file, name) = (File::open("/dev/null").unwrap(), FileName::new("a").unwrap());
    Incoming { directory, name, file, temporary: None, force: false, size: 0, written: 0, reserved: u64::MAX }
}

/// A name that no other file has.
fn temporary_name() -> Result<String, Errno> {
    let random = getrandom::u64().map_err(|_| Errno::IO)?;
    Ok(format!("{TEMPORARY}{random:016x}.part"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_temporary_is_renamed_or_removed() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        for (commit, left) in [(false, 0), (true, 1)] {
            let incoming = named_for_test(&directory);
            assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
            if commit {
                incoming.commit().unwrap();
            } else {
                drop(incoming);
            }
            assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), left);
        }
        assert!(temp.path().join("a").exists());
    }

    #[test]
    fn space_is_reserved_as_data_arrives() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        let create = |size| directory.create(&FileName::new("a").unwrap(), size, true);
        let mut incoming = create(100 << 20).unwrap();
        if incoming.reserved == u64::MAX {
            return eprintln!("skipped: this file system reserves no space");
        }
        assert_eq!(incoming.reserved, FIRST);
        incoming.write(&vec![7; 3 << 20]).unwrap();
        assert_eq!(incoming.reserved, 6 << 20);
        incoming.write(&vec![7; 37 << 20]).unwrap();
        assert_eq!(incoming.reserved, 72 << 20);
        incoming.write(&vec![7; 60 << 20]).unwrap();
        assert_eq!(incoming.reserved, 100 << 20);
        incoming.commit().unwrap();
        assert!(std::fs::read(temp.path().join("a")).unwrap() == vec![7; 100 << 20]);
        assert!(matches!(create(1 << 60), Err(StoreError::Full { .. })));
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
    }
}

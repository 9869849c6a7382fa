//! A file that is being received.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, retry_on_intr};

use super::{Directory, FileName, StoreError, TEMPORARY};

/// A file that is being received. It gets its name in [`Incoming::commit`]; dropped before, nothing of it stays.
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
}

impl Incoming {
    pub(super) fn new(
        directory: Directory,
        name: FileName,
        size: u64,
        force: bool,
    ) -> Result<Self, StoreError> {
        let (fd, temporary) =
            open_unnamed(&directory).or_else(|_| open_temporary(&directory)).map_err(|errno| {
                StoreError::io("create a file in", directory.path.display().to_string(), errno)
            })?;
        let incoming = Self { directory, name, file: File::from(fd), temporary, force };
        incoming.reserve(size)?;
        Ok(incoming)
    }

    /// Appends.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes).map_err(|error| self.failed("write", error))
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

    /// Reserves space, so that a full disk shows before the data is sent.
    fn reserve(&self, size: u64) -> Result<(), StoreError> {
        if size == 0 {
            return Ok(());
        }
        match retry_on_intr(|| rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, size)) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(errno) => Err(self.failed("reserve space for", errno)),
        }
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

fn open_unnamed(directory: &Directory) -> Result<(OwnedFd, Option<String>), Errno> {
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(&*directory.fd, ".", flags, Mode::from_raw_mode(0o644));
    Ok((retry_on_intr(open)?, None))
}

fn open_temporary(directory: &Directory) -> Result<(OwnedFd, Option<String>), Errno> {
    let name = temporary_name()?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(&*directory.fd, name.as_str(), flags, Mode::from_raw_mode(0o644));
    Ok((retry_on_intr(open)?, Some(name)))
}

/// A name that nobody else has.
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
            let (fd, temporary) = open_temporary(&directory).unwrap();
            let name = FileName::new("a").unwrap();
            let incoming = Incoming {
                directory: directory.clone(),
                name,
                file: File::from(fd),
                temporary,
                force: false,
            };
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
}

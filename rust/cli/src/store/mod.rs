//! Files in one directory, by name: no link is followed, and a new file appears whole or not at all.

mod content;
mod incoming;
mod name;

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

pub(crate) use content::Content;
pub(crate) use incoming::Incoming;
#[cfg(test)]
pub(crate) use incoming::unwritable_for_test;
pub(crate) use name::FileName;

/// Prefix of the names of temporary files.
const TEMPORARY: &str = ".flagcx-p2p-";

/// Why a file cannot be read or stored.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("name \"{name}\" {problem}")]
    Name { name: String, problem: &'static str },
    #[error("{0} exists already; use --force to replace it")]
    Exists(String),
    #[error("{0} is a symbolic link, and links are not followed")]
    Link(String),
    #[error("{0} is not a regular file")]
    NotAFile(String),
    #[error(
        "{0} has more than {most} MiB and reports another size, as files of /proc do; copy it to a regular file first",
        most = content::MOST >> 20
    )]
    SizeUnknown(String),
    #[error("{name} changed while it was read: {what}; nothing was stored")]
    Changed { name: String, what: String },
    #[error("no space for {path}: {needed} bytes are needed, {free} are free")]
    Full { path: String, needed: u64, free: u64 },
    #[error("cannot {operation} {path}: {reason}")]
    Io { operation: &'static str, path: String, reason: String },
}

impl StoreError {
    fn io(operation: &'static str, path: impl Into<String>, error: impl Into<io::Error>) -> Self {
        Self::Io { operation, path: path.into(), reason: error.into().to_string() }
    }
}

/// An open directory. Cheap to clone; files are reached relative to it, so renaming a parent changes nothing.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    fd: Arc<OwnedFd>,
    path: PathBuf,
}

impl Directory {
    /// Opens a directory.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| rustix::fs::openat(CWD, path, flags, Mode::empty()))
            .map_err(|errno| StoreError::io("open directory", path.display().to_string(), errno))?;
        Ok(Self { fd: Arc::new(fd), path: path.to_owned() })
    }

    /// Opens a file for reading. Links and anything that is no regular file are refused.
    pub(crate) fn read(&self, name: &FileName) -> Result<Content, StoreError> {
        // NONBLOCK: opening a FIFO must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| rustix::fs::openat(&*self.fd, name.as_str(), flags, Mode::empty()))
            .map_err(|errno| match errno {
                Errno::LOOP => StoreError::Link(self.path_of(name)),
                Errno::NXIO => StoreError::NotAFile(self.path_of(name)), // A socket.
                errno => StoreError::io("open", self.path_of(name), errno),
            })?;
        Content::new(File::from(fd), self.path_of(name))
    }

    /// Starts a new file of `size` bytes. An existing name is refused unless `force`.
    pub(crate) fn create(&self, name: &FileName, size: u64, force: bool) -> Result<Incoming, StoreError> {
        self.check_free(name, force)?;
        Incoming::new(self.clone(), name.clone(), size, force)
    }

    /// Whether [`Directory::create`] would accept this name now.
    pub(crate) fn check_free(&self, name: &FileName, force: bool) -> Result<(), StoreError> {
        match rustix::fs::statat(&*self.fd, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(StoreError::io("look up", self.path_of(name), errno)),
            Ok(_) if !force => Err(StoreError::Exists(self.path_of(name))),
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile => {
                Err(StoreError::NotAFile(self.path_of(name)))
            }
            Ok(_) => Ok(()),
        }
    }

    /// Removes temporary files of processes that were killed. Those of running processes are locked, and stay.
    pub(crate) fn remove_stale(&self) {
        // An entry that cannot be listed or removed stays.
        let Ok(entries) = rustix::fs::Dir::read_from(&*self.fd) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let is_temporary =
                name.to_bytes().starts_with(TEMPORARY.as_bytes()) && name.to_bytes().ends_with(b".part");
            if is_temporary && self.remove_unlocked(name).is_ok() {
                tracing::info!(?name, "removed the temporary file of a killed process");
            }
        }
    }

    fn remove_unlocked(&self, name: &CStr) -> Result<(), Errno> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&*self.fd, name, flags, Mode::empty())?;
        rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)?;
        rustix::fs::unlinkat(&*self.fd, name, AtFlags::empty())
    }

    /// Bytes that an unprivileged process may still write here.
    pub(crate) fn free_space(&self) -> Result<u64, StoreError> {
        let stat = rustix::fs::fstatvfs(&*self.fd)
            .map_err(|errno| StoreError::io("query free space of", self.path.display().to_string(), errno))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn path_of(&self, name: &FileName) -> String {
        self.path.join(name.as_str()).display().to_string()
    }
}

/// Opens a file of the command line; links are followed there.
pub(crate) fn open_local(path: &Path) -> Result<Content, StoreError> {
    let text = path.display().to_string();
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd =
        retry_on_intr(|| rustix::fs::openat(CWD, path, flags, Mode::empty())).map_err(
            |errno| match errno {
                Errno::NXIO => StoreError::NotAFile(text.clone()), // A socket.
                errno => StoreError::io("open", text.as_str(), errno),
            },
        )?;
    Content::new(File::from(fd), text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn name(name: &str) -> FileName {
        FileName::new(name).unwrap()
    }

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn reads_regular_files_only() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        fs::write(temp.path().join("file"), b"12345").unwrap();
        symlink("file", temp.path().join("link")).unwrap();
        fs::create_dir(temp.path().join("dir")).unwrap();
        rustix::fs::mkfifoat(CWD, temp.path().join("fifo"), Mode::RWXU).unwrap();
        assert_eq!(directory.read(&name("file")).unwrap().size(), 5);
        assert!(matches!(directory.read(&name("link")), Err(StoreError::Link(_))));
        assert!(matches!(directory.read(&name("dir")), Err(StoreError::NotAFile(_))));
        assert!(matches!(directory.read(&name("fifo")), Err(StoreError::NotAFile(_))));
        assert!(matches!(directory.read(&name("none")), Err(StoreError::Io { .. })));
        assert_eq!(open_local(&temp.path().join("link")).unwrap().size(), 5);
        assert!(matches!(open_local(temp.path()), Err(StoreError::NotAFile(_))));
        fs::write(temp.path().join("empty"), b"").unwrap();
        assert_eq!(open_local(&temp.path().join("empty")).unwrap().size(), 0);
    }

    #[test]
    fn only_the_files_of_killed_processes_are_stale() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        for left in [".flagcx-p2p-0123.part", "mine.part", ".flagcx-p2p-notes"] {
            fs::write(temp.path().join(left), b"x").unwrap();
        }
        let living = incoming::named_for_test(&directory);
        directory.remove_stale();
        assert_eq!(names(temp.path()).len(), 3, "{:?}", names(temp.path()));
        drop(living);
        assert_eq!(names(temp.path()), [".flagcx-p2p-notes", "mine.part"]);
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        let mut incoming = directory.create(&name("a"), 3, false).unwrap();
        incoming.write(b"abc").unwrap();
        assert!(!temp.path().join("a").exists());
        drop(incoming);
        assert_eq!(names(temp.path()), [""; 0]);

        let mut incoming = directory.create(&name("a"), 3, false).unwrap();
        incoming.write(b"abc").unwrap();
        incoming.commit().unwrap();
        assert_eq!(names(temp.path()), ["a"]);
        assert_eq!(fs::read(temp.path().join("a")).unwrap(), b"abc");
    }

    #[test]
    fn an_existing_name_is_kept_without_force() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        fs::write(temp.path().join("a"), b"old").unwrap();
        assert!(matches!(directory.create(&name("a"), 1, false), Err(StoreError::Exists(_))));
        let mut incoming = directory.create(&name("a"), 1, true).unwrap();
        incoming.write(b"n").unwrap();
        incoming.commit().unwrap();
        assert_eq!(fs::read(temp.path().join("a")).unwrap(), b"n");
        assert_eq!(names(temp.path()), ["a"]);
    }

    #[test]
    fn a_name_taken_meanwhile_is_kept() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        let incoming = directory.create(&name("a"), 0, false).unwrap();
        fs::write(temp.path().join("a"), b"other").unwrap();
        assert!(matches!(incoming.commit(), Err(StoreError::Exists(_))));
        assert_eq!(names(temp.path()), ["a"]);
        assert_eq!(fs::read(temp.path().join("a")).unwrap(), b"other");
    }

    #[test]
    fn links_and_directories_are_never_replaced() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        fs::write(temp.path().join("target"), b"precious").unwrap();
        symlink("target", temp.path().join("link")).unwrap();
        fs::create_dir(temp.path().join("dir")).unwrap();
        for (force, taken) in [(false, "link"), (true, "link"), (false, "dir"), (true, "dir")] {
            assert!(directory.create(&name(taken), 1, force).is_err(), "{taken} {force}");
        }
        assert_eq!(fs::read(temp.path().join("target")).unwrap(), b"precious");
    }

    #[test]
    fn a_file_too_large_for_the_disk_is_refused_at_once() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        assert!(directory.free_space().unwrap() > 0);
        let error = directory.create(&name("a"), 1 << 60, false).unwrap_err();
        assert!(matches!(error, StoreError::Full { .. }), "{error}");
        assert_eq!(names(temp.path()), [""; 0]);
    }
}

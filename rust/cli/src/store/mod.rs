//! Files in one directory, by name: no link is followed, and a new file appears whole or not at all.

mod incoming;
mod name;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

pub(crate) use incoming::Incoming;
pub(crate) use name::FileName;

/// How the names of temporary files begin.
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
    #[error("{0} says that it is empty and is not, as files of /proc do; copy it to a regular file first")]
    SizeUnknown(String),
    #[error("{name} changed while it was read: {had} of {expected} bytes were there")]
    Changed { name: String, expected: u64, had: u64 },
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

    /// Opens a file for reading and says how long it is. Links and anything that is no regular file are refused.
    pub(crate) fn read(&self, name: &FileName) -> Result<(File, u64), StoreError> {
        // NONBLOCK: opening a FIFO must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| rustix::fs::openat(&*self.fd, name.as_str(), flags, Mode::empty()))
            .map_err(|errno| match errno {
                Errno::LOOP => StoreError::Link(self.path_of(name)),
                errno => StoreError::io("open", self.path_of(name), errno),
            })?;
        regular(File::from(fd), &self.path_of(name))
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

/// Opens a file that the user named on the command line; links are the user's own business there.
pub(crate) fn open_local(path: &Path) -> Result<(File, u64), StoreError> {
    let text = path.display().to_string();
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = retry_on_intr(|| rustix::fs::openat(CWD, path, flags, Mode::empty()))
        .map_err(|errno| StoreError::io("open", text.as_str(), errno))?;
    regular(File::from(fd), &text)
}

fn regular(file: File, path: &str) -> Result<(File, u64), StoreError> {
    let metadata = file.metadata().map_err(|error| StoreError::io("query", path, error))?;
    if !metadata.is_file() {
        return Err(StoreError::NotAFile(path.to_owned()));
    }
    // What is moved is what the file says to be its size.
    if metadata.len() == 0
        && retry_on_intr(|| rustix::io::pread(&file, &mut [0_u8], 0)).is_ok_and(|bytes| bytes > 0)
    {
        return Err(StoreError::SizeUnknown(path.to_owned()));
    }
    Ok((file, metadata.len()))
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
        assert_eq!(directory.read(&name("file")).unwrap().1, 5);
        assert!(matches!(directory.read(&name("link")), Err(StoreError::Link(_))));
        assert!(matches!(directory.read(&name("dir")), Err(StoreError::NotAFile(_))));
        assert!(matches!(directory.read(&name("fifo")), Err(StoreError::NotAFile(_))));
        assert!(matches!(directory.read(&name("none")), Err(StoreError::Io { .. })));
        assert_eq!(open_local(&temp.path().join("link")).unwrap().1, 5);
        assert!(matches!(open_local(temp.path()), Err(StoreError::NotAFile(_))));
        fs::write(temp.path().join("empty"), b"").unwrap();
        assert_eq!(open_local(&temp.path().join("empty")).unwrap().1, 0);
        assert!(matches!(open_local(Path::new("/proc/version")), Err(StoreError::SizeUnknown(_))));
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
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
        assert_eq!(names(temp.path()), [""; 0]);
    }
}

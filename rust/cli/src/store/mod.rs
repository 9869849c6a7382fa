//! Files below one directory, by name: no link is followed, and a new file appears whole or not at all.

mod attributes;
mod commit;
mod content;
mod incoming;
mod last_folder;
mod name;
mod prefix;
mod relative_name;
mod temporary;
mod walk;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

pub(crate) use attributes::Attributes;
#[cfg(test)]
pub(crate) use attributes::Time;
pub(crate) use commit::{Committer, GROUP};
pub(crate) use content::Content;
#[cfg(test)]
pub(crate) use incoming::unwritable_for_test;
pub(crate) use incoming::{Incoming, RESUMABLE};
pub(crate) use last_folder::LastFolder;
pub(crate) use name::FileName;
pub(crate) use prefix::Prefix;
pub(crate) use relative_name::RelativeName;
pub(crate) use walk::{Entry, Listed};

use prefix::hash_prefix;
use temporary::TEMPORARY;

/// Why a file cannot be read or stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("name \"{name}\" {problem}")]
    Name { name: String, problem: &'static str },
    #[error("{0} exists already; use --force to replace it")]
    Exists(String),
    #[error("{0} is a symbolic link, and links are not followed")]
    Link(String),
    #[error("{0} is a symbolic link or a file, where a folder is needed")]
    NotAFolder(String),
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
    path: Arc<Path>,
}

impl Directory {
    /// Opens a directory.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| rustix::fs::openat(CWD, path, flags, Mode::empty()))
            .map_err(|errno| StoreError::io("open directory", path.display().to_string(), errno))?;
        Ok(Self { fd: Arc::new(fd), path: path.into() })
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

    /// Opens a folder of this directory. Links are refused.
    pub(crate) fn folder(&self, name: &FileName) -> Result<Self, StoreError> {
        let path = self.path.join(name.as_str());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| rustix::fs::openat(&*self.fd, name.as_str(), flags, Mode::empty()))
            .map_err(|errno| match errno {
                Errno::LOOP | Errno::NOTDIR => StoreError::NotAFolder(path.display().to_string()),
                errno => StoreError::io("open folder", path.display().to_string(), errno),
            })?;
        Ok(Self { fd: Arc::new(fd), path: path.into() })
    }

    /// The folder that a file is in, and its name there.
    pub(crate) fn folder_of(&self, name: &RelativeName) -> Result<(Self, FileName), StoreError> {
        let folder = name.folders().iter().try_fold(self.clone(), |at, name| at.folder(name))?;
        Ok((folder, name.file().clone()))
    }

    /// The folder that a file is in, made if it is missing, and its name there.
    pub(crate) fn make_folder_of(&self, name: &RelativeName) -> Result<(Self, FileName), StoreError> {
        let folder = name.folders().iter().try_fold(self.clone(), |at, name| {
            match rustix::fs::mkdirat(&*at.fd, name.as_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) => at.sync()?,
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(StoreError::io("make folder", at.path_of(name), errno)),
            }
            at.folder(name)
        })?;
        Ok((folder, name.file().clone()))
    }

    /// Starts a new file of `size` bytes, if that is known. An existing name is refused unless `force`.
    pub(crate) fn create(
        &self,
        name: &FileName,
        size: Option<u64>,
        force: bool,
    ) -> Result<Incoming, StoreError> {
        self.check_free(name, force)?;
        Incoming::new(self.clone(), name.clone(), size, force)
    }

    /// Starts a new file without what was kept of it. An existing name is refused in [`Incoming::commit`], unless `force`.
    pub(crate) fn create_anew(
        &self,
        name: &FileName,
        size: u64,
        force: bool,
    ) -> Result<Incoming, StoreError> {
        if force {
            self.check_free(name, force)?;
        }
        Incoming::resumable(self.clone(), name.clone(), size, force, false)
    }

    /// Starts a new file that is kept if its transfer is interrupted, or with `resume` continues one that was kept.
    pub(crate) fn create_resumable(
        &self,
        name: &FileName,
        size: u64,
        force: bool,
        resume: bool,
    ) -> Result<Incoming, StoreError> {
        self.check_free(name, force)?;
        Incoming::resumable(self.clone(), name.clone(), size, force, resume)
    }

    /// Bytes of the kept part of a file.
    pub(crate) fn partial_size(&self, name: &FileName) -> Option<u64> {
        temporary::partial_size(self, name)
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

    /// Whether it has not been removed.
    fn exists(&self) -> bool {
        rustix::fs::fstat(&*self.fd).is_ok_and(|stat| stat.st_nlink > 0)
    }

    /// Syncs the names in this directory to disk.
    fn sync(&self) -> Result<(), StoreError> {
        retry_on_intr(|| rustix::fs::fsync(&*self.fd))
            .map_err(|errno| StoreError::io("sync folder", self.path.display().to_string(), errno))
    }

    /// Removes temporary files of processes that were killed, and old partial files, here and in all folders below.
    pub(crate) fn remove_stale(&self) {
        temporary::remove_stale(self, relative_name::MAX_DEPTH);
    }

    /// Removes old partial files and those of killed processes, here alone.
    pub(crate) fn remove_old_partials(&self) {
        temporary::remove_stale(self, 0);
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
        assert_eq!(directory.read(&name("file")).unwrap().size(), Some(5));
        assert!(matches!(directory.read(&name("link")), Err(StoreError::Link(_))));
        assert!(matches!(directory.read(&name("dir")), Err(StoreError::NotAFile(_))));
        assert!(matches!(directory.read(&name("fifo")), Err(StoreError::NotAFile(_))));
        assert!(matches!(directory.read(&name("none")), Err(StoreError::Io { .. })));
        assert_eq!(open_local(&temp.path().join("link")).unwrap().size(), Some(5));
        assert!(matches!(open_local(temp.path()), Err(StoreError::NotAFile(_))));
        fs::write(temp.path().join("empty"), b"").unwrap();
        assert_eq!(open_local(&temp.path().join("empty")).unwrap().size(), Some(0));
    }

    #[test]
    fn folders_are_made_and_links_are_no_folders() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        let relative = RelativeName::new("a/b/c").unwrap();
        assert!(directory.folder_of(&relative).is_err());
        for _ in 0..2 {
            let (folder, file) = directory.make_folder_of(&relative).unwrap();
            folder.create(&file, Some(0), true).unwrap().commit().unwrap();
        }
        let (folder, file) = directory.folder_of(&relative).unwrap();
        assert_eq!(folder.read(&file).unwrap().size(), Some(0));
        assert!(temp.path().join("a/b/c").is_file());
        symlink("/", temp.path().join("root")).unwrap();
        for bad in ["root/c", "root/tmp/c", "a/b/c/d"] {
            let relative = RelativeName::new(bad).unwrap();
            assert!(matches!(directory.folder_of(&relative), Err(StoreError::NotAFolder(_))), "{bad}");
            assert!(matches!(directory.make_folder_of(&relative), Err(StoreError::NotAFolder(_))), "{bad}");
        }
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        let mut incoming = directory.create(&name("a"), Some(3), false).unwrap();
        incoming.write(b"abc").unwrap();
        assert!(!temp.path().join("a").exists());
        drop(incoming);
        assert_eq!(names(temp.path()), [""; 0]);

        let mut incoming = directory.create(&name("a"), Some(3), false).unwrap();
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
        assert!(matches!(directory.create(&name("a"), Some(1), false), Err(StoreError::Exists(_))));
        let mut incoming = directory.create(&name("a"), Some(1), true).unwrap();
        incoming.write(b"n").unwrap();
        incoming.commit().unwrap();
        assert_eq!(fs::read(temp.path().join("a")).unwrap(), b"n");
        assert_eq!(names(temp.path()), ["a"]);
    }

    #[test]
    fn a_name_taken_meanwhile_is_kept() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        let incoming = directory.create(&name("a"), Some(0), false).unwrap();
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
            assert!(directory.create(&name(taken), Some(1), force).is_err(), "{taken} {force}");
        }
        assert_eq!(fs::read(temp.path().join("target")).unwrap(), b"precious");
    }

    #[test]
    fn a_file_too_large_for_the_disk_is_refused_at_once() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        assert!(directory.free_space().unwrap() > 0);
        let error = directory.create(&name("a"), Some(1 << 60), false).unwrap_err();
        assert!(matches!(error, StoreError::Full { .. }), "{error}");
        assert_eq!(names(temp.path()), [""; 0]);
    }
}

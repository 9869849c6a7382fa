//! Files without their name yet: with no name at all, with a random one, or as a partial file that a later run continues.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::{Directory, FileName};

/// Prefix of the names of temporary files.
pub(super) const TEMPORARY: &str = ".flagcx-p2p-";
/// Partial files that nothing has written to for as long are removed.
pub(crate) const KEEP: Duration = Duration::from_secs(24 * 3600);
const PARTIAL: &str = ".partial";
const PART: &str = ".part";

/// A new file, and its temporary name if it has one.
pub(super) fn open(directory: &Directory) -> Result<(File, Option<String>), Errno> {
    let open = || if has_proc() { open_unnamed(directory) } else { open_named(directory) };
    open().or_else(|_| open_named(directory))
}

/// The partial file of `name`: an earlier one, or a new one. `None`: another process or session writes to it.
pub(super) fn open_partial(directory: &Directory, name: &FileName) -> Result<Option<(File, String)>, Errno> {
    let partial = partial_name(name);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(&*directory.fd, partial.as_str(), flags, Mode::from_raw_mode(0o644));
    let fd = retry_on_intr(open)?;
    match lock(&fd) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(errno) => return Err(errno),
    }
    let stat = rustix::fs::fstat(&fd)?;
    // A file with a second name, or none, may not be ours.
    let is_ours = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1;
    Ok(is_ours.then(|| (File::from(fd), partial)))
}

/// Bytes of the partial file of `name`, if there is one.
pub(super) fn partial_size(directory: &Directory, name: &FileName) -> Option<u64> {
    let stat = rustix::fs::statat(&*directory.fd, partial_name(name).as_str(), AtFlags::SYMLINK_NOFOLLOW);
    u64::try_from(stat.ok()?.st_size).ok()
}

/// Removes the partial file of `name`, unless another process or session writes to it.
pub(super) fn remove_partial(directory: &Directory, name: &FileName) {
    if partial_size(directory, name).is_some()
        && let Ok(Some((_file, partial))) = open_partial(directory, name)
        && let Err(error) = rustix::fs::unlinkat(&*directory.fd, partial.as_str(), AtFlags::empty())
    {
        tracing::warn!(partial, %error, "cannot remove a partial file");
    }
}

/// Removes temporary files of killed processes, and partial files that are older than [`KEEP`], in this directory and in those
/// below. Those of running processes are locked, and stay.
pub(super) fn remove_stale(directory: &Directory, depth: usize) {
    // An entry that cannot be listed or removed stays.
    let Ok(entries) = rustix::fs::Dir::read_from(&*directory.fd) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if entry.file_type() == FileType::Directory && depth > 0 {
            let folder = name.to_str().ok().and_then(|name| FileName::new(name).ok());
            if let Some(Ok(folder)) = folder.map(|folder| directory.folder(&folder)) {
                remove_stale(&folder, depth - 1);
            }
        }
        if is_stale(name) && remove_unlocked(directory, name).is_ok() {
            tracing::info!(?name, "removed the temporary file of an ended process");
        }
    }
}

fn is_stale(name: &CStr) -> bool {
    let name = name.to_bytes();
    let ends = name.ends_with(PART.as_bytes()) || name.ends_with(PARTIAL.as_bytes());
    name.starts_with(TEMPORARY.as_bytes()) && ends
}

fn remove_unlocked(directory: &Directory, name: &CStr) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(&*directory.fd, name, flags, Mode::empty())?;
    rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)?;
    if name.to_bytes().ends_with(PARTIAL.as_bytes()) && !is_old(rustix::fs::fstat(&fd)?.st_mtime) {
        return Err(Errno::AGAIN);
    }
    rustix::fs::unlinkat(&*directory.fd, name, AtFlags::empty())
}

fn is_old(seconds: i64) -> bool {
    let written = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    written.elapsed().is_ok_and(|age| age > KEEP)
}

/// Whether an open file can be given a name, which goes through /proc.
fn has_proc() -> bool {
    static HAS_PROC: OnceLock<bool> = OnceLock::new();
    *HAS_PROC.get_or_init(|| rustix::fs::access("/proc/self/fd", rustix::fs::Access::EXISTS).is_ok())
}

fn open_unnamed(directory: &Directory) -> Result<(File, Option<String>), Errno> {
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(&*directory.fd, ".", flags, Mode::from_raw_mode(0o644));
    Ok((File::from(retry_on_intr(open)?), None))
}

pub(super) fn open_named(directory: &Directory) -> Result<(File, Option<String>), Errno> {
    let name = new_name()?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(&*directory.fd, name.as_str(), flags, Mode::from_raw_mode(0o644));
    let fd = retry_on_intr(open)?;
    lock(&fd)?;
    // A server that starts may have taken it for one without a writer, before it was locked.
    if rustix::fs::fstat(&fd)?.st_nlink == 0 {
        return Err(Errno::AGAIN);
    }
    Ok((File::from(fd), Some(name)))
}

/// Marks the file as one that a running process writes to.
pub(super) fn lock(fd: impl AsFd) -> Result<(), Errno> {
    match rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive) {
        // Where there are no locks, nothing is removed as stale either.
        Err(Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => Ok(()),
        locked => locked,
    }
}

/// A name that no other file has.
pub(super) fn new_name() -> Result<String, Errno> {
    let random = getrandom::u64().map_err(|_| Errno::IO)?;
    Ok(format!("{TEMPORARY}{random:016x}{PART}"))
}

/// The one name of the partial file of `name`: names may be too long to have something appended.
fn partial_name(name: &FileName) -> String {
    let hash = blake3::hash(name.as_str().as_bytes()).to_hex();
    format!("{TEMPORARY}{}{PARTIAL}", hash.get(..32).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(directory: &Directory) -> Vec<String> {
        let entries = fs::read_dir(&directory.path).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_the_files_of_ended_processes_are_stale() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        fs::create_dir(temp.path().join("sub")).unwrap();
        for left in [".flagcx-p2p-0123.part", "sub/.flagcx-p2p-0123.part", "mine.part", ".flagcx-p2p-notes"] {
            fs::write(temp.path().join(left), b"x").unwrap();
        }
        let living = open_named(&directory).unwrap();
        remove_stale(&directory, 1);
        assert_eq!(names(&directory).len(), 4, "{:?}", names(&directory));
        assert!(fs::read_dir(temp.path().join("sub")).unwrap().next().is_none());
        fs::remove_file(temp.path().join(living.1.unwrap())).unwrap();
        assert_eq!(names(&directory), [".flagcx-p2p-notes", "mine.part", "sub"]);
    }

    #[test]
    fn partial_files_stay_for_a_day() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        let name = FileName::new("a").unwrap();
        let (file, _) = open_partial(&directory, &name).unwrap().unwrap();
        assert!(open_partial(&directory, &name).unwrap().is_none(), "one writer");
        remove_partial(&directory, &name);
        assert_eq!(partial_size(&directory, &name), Some(0), "it has a writer");
        let yesterday = SystemTime::now() - KEEP - Duration::from_secs(5);
        file.set_modified(yesterday).unwrap();
        remove_stale(&directory, 0);
        assert_eq!(names(&directory).len(), 1, "it has a writer");
        drop(file);
        let (file, _) = open_partial(&directory, &name).unwrap().unwrap();
        file.set_modified(SystemTime::now()).unwrap();
        drop(file);
        remove_stale(&directory, 0);
        assert_eq!(names(&directory).len(), 1, "it is new");
        let (file, _) = open_partial(&directory, &name).unwrap().unwrap();
        file.set_modified(yesterday).unwrap();
        drop(file);
        remove_stale(&directory, 0);
        assert!(names(&directory).is_empty());
    }
}

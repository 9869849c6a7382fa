//! A Unix socket in the file system: only its owner may connect, one that an ended process left is replaced, and it is removed
//! at its end.
//!
//! It has its path from when it listens on: it is bound to another name of the folder first, and that is linked. So a socket that
//! refuses to be connected to has been left by a process that ended. Those are removed under a lock on the folder, for the
//! socket of another process may have taken the place meanwhile. First names are made under that lock too: one that refuses then has been
//! left as well.

use std::collections::hash_map::RandomState;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File, Metadata, Permissions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::fork::{OfProcess, OwnSocket};

/// How long the lock on the folder is waited for. It is held for a few system calls, unless a process is stopped in them.
const LOCK_LIMIT: Duration = Duration::from_millis(200);
/// How often a path is tried at which each time a socket has been left.
const TRIES: u32 = 3;
/// How many files of the folder are looked at for names that were left: 10 ms.
const MOST_ENTRIES: usize = 10_000;

/// The path of a socket. Dropped, it is removed, unless another file has taken its place.
#[derive(Debug)]
pub(super) struct SocketPath(OfProcess<Made>);

#[derive(Debug)]
struct Made {
    path: PathBuf,
    /// Device and inode of the socket.
    file: (u64, u64),
}

/// Listens at `path`.
pub(super) fn listen(path: PathBuf, backlog: i32) -> io::Result<(OwnSocket<UnixListener>, SocketPath)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map(OwnSocket::new)?;
    socket.set_nonblocking(true)?;
    let first = FirstName::beside(&path);
    // Without the lock it works too, but then nothing may be removed. Released before the path is linked, which needs it.
    let locked = FolderLock::acquire(folder_of(&path)).ok();
    if locked.is_some() {
        remove_left_names(folder_of(&path));
    }
    socket.bind(&SockAddr::unix(&first.0)?)?;
    fs::set_permissions(&first.0, Permissions::from_mode(0o600))?;
    socket.listen(backlog)?;
    drop(locked);
    let file = identity(&fs::symlink_metadata(&first.0)?);
    link(&first.0, &path)?;
    let made = SocketPath(OfProcess::new(Made { path, file }));
    Ok((socket.map(UnixListener::from), made))
}

/// Gives the socket at `first` the name `path` too, in the place of one that an ended process left.
fn link(first: &Path, path: &Path) -> io::Result<()> {
    for _ in 0..TRIES {
        match fs::hard_link(first, path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => remove_stale(path)?,
            answer => return answer,
        }
    }
    Err(io::Error::from_raw_os_error(libc::EADDRINUSE))
}

/// Removes a socket at which no process listens. Another file there is an error.
fn remove_stale(path: &Path) -> io::Result<()> {
    if !is_stale(path)? {
        return Ok(());
    }
    let _locked = FolderLock::acquire(folder_of(path)).map_err(|error| {
        let text = format!(
            "cannot lock the folder to replace the socket of an ended process, which may be removed: {error}"
        );
        io::Error::new(error.kind(), text)
    })?;
    // It may have been replaced before the lock was there. Now it cannot be: a socket gets its path only while there is none.
    if is_stale(path)? { fs::remove_file(path) } else { Ok(()) }
}

/// Removes first names that processes have left which were killed before they had linked their socket. The folder is locked. Errors mean
/// that a name stays, which harms nothing.
fn remove_left_names(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().take(MOST_ENTRIES).flatten();
    for entry in entries.filter(|entry| FirstName::is_one(&entry.file_name())) {
        let path = entry.path();
        let is_own = fs::symlink_metadata(&path).is_ok_and(|found| found.uid() == geteuid().as_raw());
        if is_own && is_stale(&path).unwrap_or(false) {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Whether there is a socket at which no process listens. False: there is no file. Another file is an error, and so is a socket
/// in use. Does not wait.
fn is_stale(path: &Path) -> io::Result<bool> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        let text = "a file that is no socket has this path, and is not replaced";
        return Err(io::Error::new(ErrorKind::AlreadyExists, text));
    }
    let client = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Else it would wait for as long as the backlog is full, as that of a stopped process can be.
    client.set_nonblocking(true)?;
    match client.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
        _ => Err(io::Error::from_raw_os_error(libc::EADDRINUSE)),
    }
}

/// The name that a socket is bound to. Dropped, it is removed.
struct FirstName(PathBuf);

impl FirstName {
    /// One that no other process chooses, of 9 bytes: a path of a socket has at most 107.
    fn beside(path: &Path) -> Self {
        // Not the number of the process: that may exist twice, in containers that share a folder.
        let number = RandomState::new().build_hasher().finish() as u32;
        Self(path.with_file_name(format!(".{number:08x}")))
    }

    /// Whether a file's name has this form.
    fn is_one(name: &OsStr) -> bool {
        let digits = name.as_encoded_bytes().strip_prefix(b".").unwrap_or_default();
        digits.len() == 8 && digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    }
}

impl Drop for FirstName {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The lock on a folder, of this open file. Dropped, it is released, also where a forked child has a copy of the descriptor.
struct FolderLock(File);

impl FolderLock {
    fn acquire(folder: &Path) -> io::Result<Self> {
        let folder = File::open(folder)?;
        let begun = Instant::now();
        loop {
            match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self(folder)),
                Err(Errno::WOULDBLOCK | Errno::INTR) if begun.elapsed() < LOCK_LIMIT => {
                    thread::sleep(Duration::from_millis(1));
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

impl Drop for Made {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl fmt::Display for SocketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.path.display().fmt(f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;

//! A Unix socket in the file system: only its owner may connect, one that an ended process left is replaced, and it is removed
//! at its end.

use std::fmt;
use std::fs::{self, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::fork::{OfProcess, OwnSocket};

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
    remove_stale(&path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map(OwnSocket::new)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(&path)?)?;
    let file = identity(&fs::symlink_metadata(&path)?);
    let made = SocketPath(OfProcess::new(Made { path, file }));
    // No process can connect before `listen`.
    fs::set_permissions(&made.0.path, Permissions::from_mode(0o600))?;
    socket.listen(backlog)?;
    Ok((socket.map(UnixListener::from), made))
}

/// Removes a socket at which no process listens. Another file there is an error.
fn remove_stale(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        let text = "a file that is no socket has this path, and is not replaced";
        return Err(io::Error::new(ErrorKind::AlreadyExists, text));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::from_raw_os_error(libc::EADDRINUSE)),
    }
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
mod tests {
    use super::*;

    #[test]
    fn only_what_an_ended_process_left_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics");
        let (socket, made) = listen(path.clone(), 1).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(listen(path.clone(), 1).unwrap_err().raw_os_error(), Some(libc::EADDRINUSE));
        drop(made);
        assert!(!path.exists(), "removed at its end");
        drop(socket);

        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left behind");
        let (_socket, made) = listen(path.clone(), 1).unwrap();

        fs::remove_file(&path).unwrap();
        fs::write(&path, "text").unwrap();
        drop(made);
        assert_eq!(fs::read(&path).unwrap(), b"text", "another file is not removed");
        assert_eq!(listen(path.clone(), 1).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"text", "and not replaced");
    }
}

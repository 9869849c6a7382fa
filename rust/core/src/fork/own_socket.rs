//! Sockets that forked children do not keep open.
#![allow(unsafe_code, reason = "looks at descriptors by number, and closes them")]

use std::mem::MaybeUninit;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::OfProcess;

/// A socket of this process: a forked child closes it before `fork` returns there.
#[derive(Debug)]
pub(crate) struct OwnSocket<S: AsFd>(OfProcess<S>);

/// By descriptor: the inode of the last [`OwnSocket`] that had it; 0 for none. Closed ones stay listed, because a
/// fork copies the descriptors first and the memory later: a socket that is closed in between would stay open in the
/// child. The inode shows whether a descriptor is still that socket. Stored by the owner, read in a child, which has
/// one thread then. Relaxed: `fork` copies what was stored.
static SOCKETS: [AtomicU64; PLACES] = [const { AtomicU64::new(0) }; PLACES];

/// Length of the used part of [`SOCKETS`], all that a child checks. Only grows: Relaxed.
static USED: AtomicUsize = AtomicUsize::new(0);

/// A million descriptors, Linux's default limit (`fs.nr_open`). Sockets with higher numbers stay open in children.
const PLACES: usize = 1 << 20;

impl<S: AsFd> OwnSocket<S> {
    /// Takes over a socket that has just been opened.
    pub(crate) fn new(socket: S) -> Self {
        let fd = socket.as_fd().as_raw_fd();
        if let (Some(place), Some(inode)) = (place(fd), inode(fd)) {
            place.store(inode, Ordering::Relaxed);
            USED.fetch_max(fd as usize + 1, Ordering::Relaxed);
        }
        Self(OfProcess::new(socket))
    }

    /// Takes the socket out, so that later children keep it; `None` in a child.
    pub(crate) fn into_inner(self) -> Option<S> {
        let Self(socket) = self;
        if let (true, Some(place)) = (OfProcess::is_here(&socket), place(socket.as_fd().as_raw_fd())) {
            place.store(0, Ordering::Relaxed);
        }
        OfProcess::into_inner(socket)
    }

    /// Converts the socket's type.
    pub(crate) fn map<T: AsFd>(self, into: fn(S) -> T) -> OwnSocket<T> {
        OwnSocket(self.0.map(into))
    }
}

impl<S: AsFd> Deref for OwnSocket<S> {
    type Target = S;

    #[inline(always)]
    fn deref(&self) -> &S {
        &self.0
    }
}

impl<S: AsFd> AsFd for OwnSocket<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn place(fd: RawFd) -> Option<&'static AtomicU64> {
    SOCKETS.get(usize::try_from(fd).ok()?)
}

/// The inode of a socket; `None` for what is none.
fn inode(fd: RawFd) -> Option<u64> {
    let mut about = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the kernel fills it, or answers an error.
    let about = unsafe {
        if libc::fstat(fd, about.as_mut_ptr()) != 0 {
            return None;
        }
        about.assume_init()
    };
    (about.st_mode & libc::S_IFMT == libc::S_IFSOCK).then_some(about.st_ino)
}

/// Closes the inherited sockets in a child. Takes no lock and allocates nothing.
pub(super) fn close_inherited() {
    for (fd, place) in SOCKETS.iter().enumerate().take(USED.swap(0, Ordering::Relaxed)) {
        let fd = fd as RawFd;
        let noted = place.load(Ordering::Relaxed);
        if noted == 0 {
            // Not cleared: a write would copy the page.
            continue;
        }
        place.store(0, Ordering::Relaxed);
        if inode(fd) == Some(noted) {
            // SAFETY: a socket of the parent's engines, which this process does not use: their handles are refused
            // here.
            let _ = unsafe { libc::close(fd) };
        }
    }
}

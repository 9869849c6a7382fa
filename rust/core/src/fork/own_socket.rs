//! Sockets that do not outlive their process in its children.
#![allow(unsafe_code, reason = "closes descriptors by number, and gives sockets out of their wrapper")]

use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::OfProcess;

/// A socket of this process: a forked child closes it before `fork` returns there.
#[derive(Debug)]
pub(crate) struct OwnSocket<S: AsFd>(OfProcess<S>);

/// One bit for each descriptor that is an [`OwnSocket`]. Set after it was opened and cleared before it is closed, by its
/// owner; read in a child, which has one thread then. Relaxed: `fork` copies what was stored.
static SOCKETS: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];

/// Words of [`SOCKETS`] that were ever used: a child looks at those alone. Only grows: Relaxed.
static USED: AtomicUsize = AtomicUsize::new(0);

/// A million descriptors, as many as Linux gives a process unless it is told otherwise. Sockets beyond stay open in children.
const WORDS: usize = (1 << 20) / 64;

impl<S: AsFd> OwnSocket<S> {
    /// Takes over a socket that has just been opened.
    pub(crate) fn new(socket: S) -> Self {
        note(socket.as_fd().as_raw_fd());
        Self(OfProcess::new(socket))
    }

    /// The socket, which children will keep; `None` in a child.
    pub(crate) fn into_inner(self) -> Option<S> {
        self.untrack();
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, so that the value is moved out once.
        OfProcess::into_inner(unsafe { std::ptr::read(&raw const this.0) })
    }

    /// The same socket as another type.
    pub(crate) fn map<T: AsFd>(self, into: fn(S) -> T) -> OwnSocket<T> {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, so that the value is moved out once.
        OwnSocket(unsafe { std::ptr::read(&raw const this.0) }.map(into))
    }

    fn untrack(&self) {
        // In a child the number may be another descriptor's by now.
        if OfProcess::is_here(&self.0) {
            forget(self.0.as_fd().as_raw_fd());
        }
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

impl<S: AsFd> Drop for OwnSocket<S> {
    fn drop(&mut self) {
        self.untrack();
    }
}

fn place(fd: RawFd) -> Option<(usize, u64)> {
    let fd = usize::try_from(fd).ok()?;
    Some((fd / 64, 1 << (fd % 64)))
}

fn note(fd: RawFd) {
    let Some((index, bit)) = place(fd) else { return };
    if let Some(word) = SOCKETS.get(index) {
        USED.fetch_max(index + 1, Ordering::Relaxed);
        word.fetch_or(bit, Ordering::Relaxed);
    }
}

fn forget(fd: RawFd) {
    if let Some((index, bit)) = place(fd)
        && let Some(word) = SOCKETS.get(index)
    {
        word.fetch_and(!bit, Ordering::Relaxed);
    }
}

/// Closes, in a child, what it has inherited. Takes no lock and allocates nothing.
pub(super) fn close_inherited() {
    for (index, word) in SOCKETS.iter().enumerate().take(USED.swap(0, Ordering::Relaxed)) {
        let mut bits = word.swap(0, Ordering::Relaxed);
        while bits != 0 {
            let fd = index * 64 + bits.trailing_zeros() as usize;
            // SAFETY: a socket of the parent's engines, which nothing in this process uses: their handles are refused here.
            let _ = unsafe { libc::close(fd as RawFd) };
            bits &= bits - 1;
        }
    }
}

//! The way of a system that denies `process_vm_writev` even on oneself, as some containers' system call filters do.
#![allow(unsafe_code, reason = "system calls that take addresses")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::super::socket::Range;
use super::{CopyError, behind};

/// Copies a range through a pipe, which is made for it: where `process_vm_writev` is denied, this is not the cost that matters.
///
/// # Safety
/// As [`super::copy`].
pub(super) unsafe fn copy(mut source: Range, mut target: Range) -> Result<(), CopyError> {
    let (output, input) = make()?;
    while source.length > 0 {
        let written = write(&input, source).map_err(|errno| refused(errno, CopyError::Source))?;
        source = behind(&source, written);
        let mut left = written;
        while left > 0 {
            let piece = Range { length: left, ..target };
            // SAFETY: by the caller's promise.
            let read = unsafe { read(&output, piece) }.map_err(|errno| refused(errno, CopyError::Target))?;
            target = behind(&target, read);
            left -= read;
        }
    }
    Ok(())
}

/// Whether the kernel can read a range of at least one byte; not, if it has no pipe to say so.
pub(super) fn is_readable(range: Range) -> bool {
    make().is_ok_and(|(_output, input)| write(&input, range).is_ok())
}

/// The end to read from and the end to write to. Nothing waits: what is written is read before more is.
fn make() -> Result<(OwnedFd, OwnedFd), CopyError> {
    pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(CopyError::NoMeans)
}

fn refused(errno: Errno, fault: CopyError) -> CopyError {
    if errno == Errno::FAULT { fault } else { CopyError::NoMeans(errno) }
}

/// Writes some of a range; says how much, at least one byte.
fn write(pipe: &OwnedFd, range: Range) -> Result<usize, Errno> {
    // SAFETY: the kernel reads the range, and refuses what is not there.
    moved(|| unsafe { libc::write(pipe.as_raw_fd(), range.address as *const libc::c_void, range.length) })
}

/// Reads into a range; says how much, at least one byte.
///
/// # Safety
/// The caller may change every byte of the range.
unsafe fn read(pipe: &OwnedFd, range: Range) -> Result<usize, Errno> {
    // SAFETY: by the caller's promise; the kernel refuses what is not there.
    moved(|| unsafe { libc::read(pipe.as_raw_fd(), range.address as *mut libc::c_void, range.length) })
}

fn moved(mut call: impl FnMut() -> libc::ssize_t) -> Result<usize, Errno> {
    loop {
        match usize::try_from(call()) {
            Ok(0) => return Err(Errno::IO),
            Ok(moved) => return Ok(moved),
            Err(_) => match io::Error::last_os_error().raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::INTR) => {}
                errno => return Err(errno.unwrap_or(Errno::IO)),
            },
        }
    }
}

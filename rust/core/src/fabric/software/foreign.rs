//! Copies between this process's memory and another's.
#![allow(unsafe_code, reason = "system calls that take addresses")]

use std::io;

use rustix::io::{Errno, retry_on_intr};
use rustix::process::Pid;

use super::socket::Range;
use crate::fabric::Opcode;

/// Ranges that one call takes on either side.
pub(super) const MAX_RANGES: usize = 512;

/// Copies between `local` and `remote`, both lists of ranges of the same total; says how many bytes.
///
/// Fewer than wanted: the next byte cannot be accessed. `EFAULT`: the first one cannot; `ESRCH`: the process is gone;
/// `EPERM`: it may not be accessed.
///
/// # Safety
/// For a READ the local ranges are writable memory of which the caller may change every byte, until the call returns.
/// What the remote ranges name is the caller's business with that process; the kernel refuses what is not mapped.
pub(super) unsafe fn transfer(
    opcode: Opcode,
    pid: Pid,
    local: &[Range],
    remote: &[Range],
) -> Result<usize, Errno> {
    let call = match opcode {
        Opcode::Write => libc::process_vm_writev,
        Opcode::Read => libc::process_vm_readv,
    };
    let pid = pid.as_raw_nonzero().get();
    retry_on_intr(|| {
        // SAFETY: both lists are borrowed for the call and have iovec's layout; local memory is writable where it is
        // written to, by the caller's promise, and a WRITE only reads it.
        let moved = unsafe {
            call(
                pid,
                local.as_ptr().cast(),
                local.len() as libc::c_ulong,
                remote.as_ptr().cast(),
                remote.len() as libc::c_ulong,
                0,
            )
        };
        usize::try_from(moved).map_err(|_| {
            io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
        })
    })
}

/// Reads from another process into `to`.
pub(super) fn read(pid: Pid, from: &[Range], to: &mut [u8]) -> Result<usize, Errno> {
    let local = [Range::new(to.as_mut_ptr() as u64, to.len() as u64)];
    // SAFETY: `to` is borrowed mutably for the call.
    unsafe { transfer(Opcode::Read, pid, &local, from) }
}

/// Writes `from` into another process.
pub(super) fn write(pid: Pid, from: &[u8], to: &[Range]) -> Result<usize, Errno> {
    // SAFETY: a WRITE only reads local memory, and `from` is borrowed for the call.
    unsafe { transfer(Opcode::Write, pid, &[Range::of(from)], to) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Pid {
        rustix::process::getpid()
    }

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        let mut to = [0; 8];
        assert_eq!(read(own(), &[Range::new(8, 8)], &mut to), Err(Errno::FAULT));
    }

    #[test]
    fn bytes_come_across_in_order() {
        let mut to = [0; 5];
        let from = [Range::of(b"he"), Range::of(b"llo")];
        assert_eq!(read(own(), &from, &mut to), Ok(5));
        assert_eq!(&to, b"hello");
    }
}

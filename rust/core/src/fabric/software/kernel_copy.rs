//! Copies inside this process that the kernel makes: memory that has gone is an error, where an instruction of this process
//! would be a signal.
#![allow(unsafe_code, reason = "system calls that take addresses")]

mod pipe;

use rustix::io::Errno;
use rustix::process::getpid;

use super::foreign::{self, MAX_RANGES};
use super::socket::Range;
use crate::fabric::Opcode;

/// Why bytes were not copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CopyError {
    /// The source cannot be read.
    Source,
    /// The target cannot be written.
    Target,
    /// The kernel has no means for it now.
    NoMeans(Errno),
}

/// Copies the ranges `sources` to the ranges `targets`, each as long as the one at its place, at most [`MAX_RANGES`], in
/// order and from their starts. On an error some of it is copied.
///
/// One call of `process_vm_writev` on this process; through a pipe, in pieces, where that is denied.
///
/// # Safety
/// The caller may change every byte of the targets until the call returns. Nothing has to be mapped.
pub(super) unsafe fn copy(sources: &[Range], targets: &[Range]) -> Result<(), CopyError> {
    debug_assert!(sources.len() == targets.len() && sources.len() <= MAX_RANGES);
    // SAFETY: a WRITE only reads the first list. The second one is this process's own, which the caller may change.
    let (copied, errno) = match unsafe { foreign::transfer(Opcode::Write, getpid(), sources, targets) } {
        Ok(copied) => (copied, None),
        Err(errno) => (0, Some(errno)),
    };
    let (mut skip, mut errno) = (copied, errno);
    for (source, target) in sources.iter().zip(targets) {
        let done = skip.min(source.length);
        skip -= done;
        let (source, target) = (behind(source, done), behind(target, done));
        if source.length == 0 {
            continue;
        }
        if errno.take() == Some(Errno::FAULT) {
            return Err(at_fault(source));
        }
        // The rest: one by one, so that what cannot be copied is known to be the first byte.
        // SAFETY: as above, by the caller's promise.
        unsafe { copy_one(source, target) }?;
    }
    Ok(())
}

/// # Safety
/// As [`copy`].
unsafe fn copy_one(mut source: Range, mut target: Range) -> Result<(), CopyError> {
    while source.length > 0 {
        // SAFETY: by the caller's promise.
        match unsafe { foreign::transfer(Opcode::Write, getpid(), &[source], &[target]) } {
            Ok(copied) if copied > 0 => {
                source = behind(&source, copied);
                target = behind(&target, copied);
            }
            Err(Errno::FAULT) => return Err(at_fault(source)),
            // SAFETY: by the caller's promise.
            Ok(_) | Err(_) => return unsafe { pipe::copy(source, target) },
        }
    }
    Ok(())
}

/// Whether the kernel can read the byte at an address of this process.
pub(super) fn is_readable(address: u64) -> bool {
    let byte = Range::new(address, 1);
    match foreign::read(getpid(), &[byte], &mut [0]) {
        Ok(1) => true,
        Err(Errno::FAULT) => false,
        Ok(_) | Err(_) => pipe::is_readable(byte),
    }
}

/// Neither the first byte of `source` nor its place could be accessed together.
fn at_fault(source: Range) -> CopyError {
    if is_readable(source.address as u64) { CopyError::Target } else { CopyError::Source }
}

fn behind(range: &Range, done: usize) -> Range {
    Range { address: range.address.wrapping_add(done), length: range.length - done }
}

#[cfg(test)]
mod tests;

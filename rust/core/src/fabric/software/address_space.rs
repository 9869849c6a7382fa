//! Where the memory of a peer lies, as seen by the side that copies: the one copy for memory of this process, for memory of the
//! peer that is mapped here, and for memory of another process.
#![allow(unsafe_code, reason = "copies between ranges of memory by address")]

use rustix::io::Errno;
use rustix::process::{Pid, getpid};

use super::denial::is_denial;
use super::foreign;
use super::kernel_copy::{self, CopyError};
use super::plain_copy;
use super::socket::Range;
use crate::fabric::Opcode;

/// The address space that remote ranges are addresses of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressSpace {
    /// This process's.
    Same,
    /// This process's too: there the memory of a peer is mapped.
    Mapped,
    /// Another process's, of this host.
    Foreign(Pid),
}

/// Where a checked range of the other end is copied from or to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CheckedRange {
    pub(super) space: AddressSpace,
    /// Its first address in that space.
    pub(super) address: u64,
    /// No access to it can fault: plain instructions may copy it, if that holds for the local side as well.
    pub(super) cannot_fault: bool,
}

/// Why the first byte was not copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CopyStop {
    /// The local side cannot be accessed.
    Local,
    /// The remote side cannot be accessed.
    Remote,
    /// The kernel denies this direction; `None`: it says nothing and moves no bytes.
    Denied(Option<Errno>),
    /// It cannot now: ask again.
    Busy,
    /// The other process is gone.
    Gone,
    /// Anything else.
    Failed(Errno),
}

impl AddressSpace {
    /// Copies between the lists `local` and `remote`, of the same total, in order from their starts; answers how many bytes, at
    /// least one. `plain`: neither side can be taken away, and they are copied without the kernel.
    ///
    /// # Safety
    /// The ranges were checked against their regions, which are pinned until after the call: what the caller may change is
    /// changed only there. Remote ranges are addresses of this space. With `plain`, which never goes with
    /// [`AddressSpace::Foreign`], no access to them can fault. Both lists have a byte at least.
    #[inline]
    pub(super) unsafe fn copy(
        self,
        opcode: Opcode,
        local: &[Range],
        remote: &[Range],
        plain: bool,
    ) -> Result<u64, CopyStop> {
        let (sources, targets) = match opcode {
            Opcode::Write => (local, remote),
            Opcode::Read => (remote, local),
        };
        match self {
            // SAFETY: by the caller's promise.
            Self::Same | Self::Mapped if plain => Ok(unsafe { plain_copy::copy(sources, targets) }),
            Self::Same | Self::Mapped => {
                // SAFETY: by the caller's promise.
                unsafe { by_kernel(sources, targets) }.map_err(|error| stop(error, opcode))
            }
            // SAFETY: by the caller's promise.
            Self::Foreign(pid) => match unsafe { foreign::transfer(opcode, pid, local, remote) } {
                Ok(0) => Err(CopyStop::Denied(None)),
                Ok(moved) => Ok(moved as u64),
                Err(Errno::NOMEM | Errno::AGAIN) => Err(CopyStop::Busy),
                Err(errno) if is_denial(errno) => Err(CopyStop::Denied(Some(errno))),
                Err(Errno::FAULT) if is_local_fault(opcode, pid, local, remote) => Err(CopyStop::Local),
                Err(Errno::FAULT) => Err(CopyStop::Remote),
                Err(Errno::SRCH) => Err(CopyStop::Gone),
                Err(errno) => Err(CopyStop::Failed(errno)),
            },
        }
    }
}

/// By one call, as far as that goes; what it refuses is tried once more by itself, which finds the side that is at fault and
/// the other means.
///
/// # Safety
/// As [`AddressSpace::copy`].
unsafe fn by_kernel(sources: &[Range], targets: &[Range]) -> Result<u64, CopyError> {
    // SAFETY: a WRITE only reads the first list. The second one is this process's own, which the caller may change.
    if let Ok(moved @ 1..) = unsafe { foreign::transfer(Opcode::Write, getpid(), sources, targets) } {
        return Ok(moved as u64);
    }
    let first = |ranges: &[Range]| ranges.iter().find(|range| range.length > 0).copied().unwrap_or_default();
    let (source, target) = (first(sources), first(targets));
    let length = source.length.min(target.length);
    let (source, target) = (Range { length, ..source }, Range { length, ..target });
    // SAFETY: by the caller's promise.
    unsafe { kernel_copy::copy(&[source], &[target]) }.map(|()| length as u64)
}

fn stop(error: CopyError, opcode: Opcode) -> CopyStop {
    match (error, opcode) {
        (CopyError::Source, Opcode::Write) | (CopyError::Target, Opcode::Read) => CopyStop::Local,
        (CopyError::Source, Opcode::Read) | (CopyError::Target, Opcode::Write) => CopyStop::Remote,
        (CopyError::NoMeans(errno), _) => CopyStop::Failed(errno),
    }
}

/// Whether it is the first local byte, and not the first remote one, that the kernel could not access. The side that was to be
/// read from is asked; to ask the other one would change it.
fn is_local_fault(opcode: Opcode, pid: Pid, local: &[Range], remote: &[Range]) -> bool {
    let first = |ranges: &[Range]| Range { length: 1, ..ranges.first().copied().unwrap_or_default() };
    match opcode {
        Opcode::Read => foreign::read(pid, &[first(remote)], &mut [0]).is_ok(),
        Opcode::Write => !kernel_copy::is_readable(first(local).address as u64),
    }
}

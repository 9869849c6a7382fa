//! A memfd with a fixed size and reserved pages.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create,
};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Resource, getrlimit};

use super::available::available;
use super::error::AllocationError;
use crate::fabric::page_of_file;

/// As `/proc/PID/maps` shows it.
const NAME: &str = "flagcx-p2p-memory";

/// Bytes that are reserved by one call, which a signal undoes.
const STEP: u64 = 256 << 20;

/// A file of `bytes`, rounded up to whole pages, with all of them reserved; and its size. To be sealed once it is mapped.
pub(super) fn create(bytes: u64, huge: bool) -> Result<(OwnedFd, u64), AllocationError> {
    if bytes == 0 {
        return Err(AllocationError::Size { bytes, problem: "ask for at least one" });
    }
    let failed = |bytes, call| move |errno| failure(bytes, huge, call, errno);
    let file = open(huge).map_err(failed(bytes, "memfd_create"))?;
    let page = page_of_file(file.as_fd()).map_err(failed(bytes, "fstatfs"))?;
    let size = bytes.checked_next_multiple_of(page).filter(|size| i64::try_from(*size).is_ok());
    let size = size.ok_or(AllocationError::Size { bytes, problem: "no file is as long" })?;
    check_limits(size, huge)?;
    retry_on_intr(|| ftruncate(&file, size)).map_err(failed(size, "ftruncate"))?;
    reserve(file.as_fd(), size, page).map_err(failed(size, "fallocate"))?;
    Ok((file, size))
}

/// Fixes the size of the file, for all that have a descriptor of it. `read_only`: nothing maps it for writing any more; what
/// has mapped it writes on.
pub(super) fn seal(file: BorrowedFd<'_>, read_only: bool) -> Result<(), Errno> {
    let fixed = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    if read_only {
        match retry_on_intr(|| fcntl_add_seals(file, fixed | SealFlags::FUTURE_WRITE)) {
            // A kernel before 5.1: peers of the same user are not kept from mapping it for writing.
            Err(Errno::INVAL) => {}
            sealed => return sealed,
        }
    }
    retry_on_intr(|| fcntl_add_seals(file, fixed))
}

fn open(huge: bool) -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let flags = if huge { flags | MemfdFlags::HUGETLB } else { flags };
    match retry_on_intr(|| memfd_create(NAME, flags | MemfdFlags::NOEXEC_SEAL)) {
        // A kernel before 6.3.
        Err(Errno::INVAL) => retry_on_intr(|| memfd_create(NAME, flags)),
        opened => opened,
    }
}

/// Refuses what the kernel would not refuse: beyond `ulimit -f` it sends SIGXFSZ, which ends a process, and for memory that
/// is not there it ends some process.
fn check_limits(size: u64, huge: bool) -> Result<(), AllocationError> {
    if getrlimit(Resource::Fsize).current.is_some_and(|limit| size > limit) {
        return Err(failure(size, huge, "ftruncate", Errno::FBIG));
    }
    // Huge pages are taken from a pool of their own.
    let left = if huge { None } else { available(Path::new("/")) };
    match left.filter(|left| size > left.bytes) {
        None => Ok(()),
        Some(left) => Err(AllocationError::Exhausted {
            bytes: size,
            available: left.bytes,
            limit: left.limit,
            hint: left.hint,
        }),
    }
}

fn reserve(file: BorrowedFd<'_>, size: u64, page: u64) -> Result<(), Errno> {
    let (mut at, mut step) = (0, STEP.max(page));
    while at < size {
        let length = step.min(size - at);
        match fallocate(file, FallocateFlags::empty(), at, length) {
            Ok(()) => at += length,
            // Shorter steps get done between two signals, however often these come.
            Err(Errno::INTR) => step = (step / 2).next_multiple_of(page),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

pub(super) fn failure(bytes: u64, huge: bool, call: &'static str, errno: Errno) -> AllocationError {
    let text = std::io::Error::from(errno).to_string();
    AllocationError::Call {
        bytes,
        kind: if huge { "shared memory in huge pages" } else { "shared memory" },
        call,
        errno: errno.raw_os_error(),
        source_text: text.split(" (os error").next().unwrap_or_default().to_owned(),
        hint: hint(huge, errno),
    }
}

fn hint(huge: bool, errno: Errno) -> &'static str {
    match errno {
        Errno::MFILE => "raise the limit of descriptors of the process (ulimit -n)",
        Errno::NFILE => "raise the limit of descriptors of the host (sysctl fs.file-max)",
        Errno::FBIG => "raise the limit of the size of files (ulimit -f), which counts for memfds too",
        Errno::PERM | Errno::ACCESS => {
            "allow memfd_create, fallocate and fcntl in the container's seccomp profile, and see sysctl vm.memfd_noexec"
        }
        Errno::NOSPC | Errno::NOMEM if huge => {
            "the pool of huge pages has not as many free: add some (sysctl vm.nr_hugepages, or \
             /sys/kernel/mm/hugepages), raise the container's limit of them (hugetlb.*.max), or allocate without huge pages"
        }
        Errno::NOSPC | Errno::NOMEM => {
            "ask for less, or raise the container's memory limit (memory.max) or that of addresses (ulimit -v)"
        }
        Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL if huge => {
            "this kernel has no huge pages for memfds (CONFIG_HUGETLBFS, Linux 4.14): allocate without"
        }
        Errno::NOSYS | Errno::OPNOTSUPP => "this kernel has no shared memory without a file",
        _ => "see the kernel's log (dmesg)",
    }
}

//! The pages that a file is mapped in.

use std::os::fd::BorrowedFd;

use rustix::fs::fstatfs;
use rustix::io::Errno;
use rustix::param::page_size;

/// Bytes of a page of a mapping of `file`: offset and length of a mapping are multiples of it. The system's, but for a file in huge
/// pages.
pub(crate) fn page_of_file(file: BorrowedFd<'_>) -> Result<u64, Errno> {
    let system = fstatfs(file)?;
    let huge = u64::try_from(system.f_bsize).ok().filter(|block| block.is_power_of_two());
    let huge = huge.filter(|_| system.f_type == libc::HUGETLBFS_MAGIC);
    Ok(huge.unwrap_or_else(|| page_size() as u64))
}

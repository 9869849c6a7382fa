//! Is a range of addresses memory that may be used? Asked when it is registered.
#![allow(unsafe_code, reason = "system calls that take an address")]

use std::ffi::c_void;
use std::io;

use rustix::io::Errno;

use crate::fabric::whole_pages;

/// Pages asked about in one call.
const CHUNK_PAGES: usize = 16 * 1024;

/// Refuses with `EFAULT` a range that is not mapped from end to end. Touches no page.
pub(super) fn check_mapped(address: u64, length: u64) -> Result<(), Errno> {
    let page = rustix::param::page_size() as u64;
    let (start, length) = whole_pages(address, length, page).ok_or(Errno::FAULT)?;
    let mut residency = vec![0_u8; CHUNK_PAGES.min(usize::try_from(length / page).unwrap_or(CHUNK_PAGES))];
    let chunk = residency.len() as u64 * page;
    let mut done = 0;
    while done < length {
        let size = chunk.min(length - done) as usize;
        // SAFETY: mincore only looks at the page tables of the range, whatever is there, and writes one byte per
        // page into `residency`, which has one for each page of `size`.
        let answer =
            unsafe { libc::mincore((start + done) as *mut c_void, size, residency.as_mut_ptr().cast()) };
        match (answer, io::Error::last_os_error().raw_os_error()) {
            (0, _) => {}
            (_, Some(libc::ENOMEM)) => return Err(Errno::FAULT),
            (_, Some(libc::EAGAIN | libc::EINTR)) => continue,
            // Denied.
            _ => return check_synced(start, length),
        }
        done += size as u64;
    }
    Ok(())
}

/// What `mincore` would say, of a call that asks nothing to be written in an ordinary mapping and refuses one with holes.
fn check_synced(start: u64, length: u64) -> Result<(), Errno> {
    // SAFETY: MS_ASYNC changes nothing; the kernel looks the range up, whatever is there.
    let answer = unsafe { libc::msync(start as *mut c_void, length as usize, libc::MS_ASYNC) };
    let has_hole = answer != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOMEM);
    if has_hole { Err(Errno::FAULT) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
    use std::ptr::null_mut;

    /// A multiple of the page of each kernel.
    const PAGE: usize = 64 << 10;

    fn map(pages: usize) -> u64 {
        // SAFETY: a fresh private mapping.
        let address = unsafe {
            mmap_anonymous(null_mut(), pages * PAGE, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        };
        address.unwrap() as u64
    }

    #[test]
    fn a_hole_is_found_wherever_it_is() {
        let start = map(8);
        assert_eq!(check_mapped(start + 1, 8 * PAGE as u64 - 2), Ok(()));
        // SAFETY: the page belongs to this test.
        unsafe { munmap((start + 5 * PAGE as u64) as *mut _, PAGE) }.unwrap();
        assert_eq!(check_synced(start, 5 * PAGE as u64), Ok(()));
        assert_eq!(check_synced(start, 8 * PAGE as u64), Err(Errno::FAULT));
        assert_eq!(check_mapped(start, 5 * PAGE as u64), Ok(()));
        assert_eq!(check_mapped(start, 5 * PAGE as u64 + 1), Err(Errno::FAULT));
        assert_eq!(check_mapped(start, 8 * PAGE as u64), Err(Errno::FAULT));
        assert_eq!(check_mapped(0, 1), Err(Errno::FAULT));
        assert_eq!(check_mapped(u64::MAX - 10, 100), Err(Errno::FAULT));
        assert_eq!(check_mapped(u64::MAX - 100, 50), Err(Errno::FAULT));
    }
}

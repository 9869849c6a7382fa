//! A check whether the CPU can read a range, made once when it is registered.
#![allow(unsafe_code, reason = "a system call that takes an address")]

use std::ffi::c_void;

use crate::events::uninterrupted;

/// Whether the CPU may read the first and the last byte of a range of at least one. False too where the kernel does
/// not answer, as in a container that denies the call.
///
/// The GPU runtime alone is not enough: FlagCX's table recognises GPU memory by exporting it to another process,
/// which fails for the memory of some allocators.
pub(super) fn is_readable(address: u64, length: u64) -> bool {
    [address, address.saturating_add(length - 1)].into_iter().all(|address| {
        let mut byte = 0_u8;
        let here = libc::iovec { iov_base: (&raw mut byte).cast::<c_void>(), iov_len: 1 };
        let there = libc::iovec { iov_base: address as *mut c_void, iov_len: 1 };
        let copied = uninterrupted(|| {
            // SAFETY: the kernel writes one byte into `byte`; for what it cannot read it returns EFAULT.
            let copied =
                unsafe { libc::process_vm_readv(libc::getpid(), &raw const here, 1, &raw const there, 1, 0) };
            if copied < 0 { Err(std::io::Error::last_os_error()) } else { Ok(copied) }
        });
        copied.is_ok_and(|copied| copied == 1)
    })
}

#[cfg(test)]
#[cfg(not(flagcx_p2p_loom))]
mod tests {
    use std::ptr::null_mut;

    use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect};

    use super::*;

    #[test]
    fn both_ends_count() {
        const PAGE: usize = 64 << 10;
        // SAFETY: a fresh private mapping, never unmapped.
        let start =
            unsafe { mmap_anonymous(null_mut(), 2 * PAGE, ProtFlags::READ, MapFlags::PRIVATE) }.unwrap();
        let (address, page) = (start as u64, PAGE as u64);
        assert!(is_readable(address, 2 * page) && is_readable(address + 7, 1));
        // SAFETY: the page belongs to this test.
        unsafe { mprotect(start.wrapping_byte_add(PAGE), PAGE, MprotectFlags::empty()) }.unwrap();
        assert!(is_readable(address, page));
        assert!(!is_readable(address, page + 1) && !is_readable(address + page, 1));
        assert!(!is_readable(u64::MAX - 1, 2));
    }
}

//! Copies inside this process, by address.
//!
//! Registered memory is shared with its owner, who may look at it or change it at any time, as with a NIC: what a
//! concurrent access sees is unspecified, and nothing here depends on it.
#![allow(unsafe_code, reason = "reads and writes memory that callers registered by address")]

use crate::fabric::Sge;

/// Copies `length` bytes from `source` to `target`, which may overlap.
///
/// # Safety
/// Both ranges are mapped in this process, the source readable and the target writable, until the call returns.
pub(super) unsafe fn copy(source: u64, target: u64, length: u64) {
    // SAFETY: mapped by the caller's promise; `copy` allows overlap.
    unsafe { std::ptr::copy(source as *const u8, target as *mut u8, length as usize) };
}

/// Collects the bytes of `entries` into `payload`, which is as long as they are together.
///
/// Whoever posts an inline request promises that its entries can be read now (contract of `QueuePair::post`).
pub(super) fn gather(entries: &[Sge], payload: &mut [u8]) {
    let mut rest = payload;
    for entry in entries {
        let Some((head, tail)) = rest.split_at_mut_checked(entry.length as usize) else { return };
        if !head.is_empty() {
            // SAFETY: readable by the poster's promise; `head` is ours alone and `entry.length` bytes long.
            unsafe {
                std::ptr::copy_nonoverlapping(entry.address as *const u8, head.as_mut_ptr(), head.len())
            };
        }
        rest = tail;
    }
}

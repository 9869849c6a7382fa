//! Copies inside this process, by address.
//!
//! Registered memory is shared with its owner, which may look at it or change it at any time, as with a NIC: what a
//! concurrent access sees is unspecified, and nothing here depends on it.
#![allow(unsafe_code, reason = "reads and writes memory that callers registered by address")]

/// Copies `length` bytes from `source` to `target`, which may overlap.
///
/// # Safety
/// Both ranges are mapped in this process, the source readable and the target writable, until the call returns.
pub(super) unsafe fn copy(source: u64, target: u64, length: u64) {
    // SAFETY: mapped by the caller's promise; `copy` allows overlap.
    unsafe { std::ptr::copy(source as *const u8, target as *mut u8, length as usize) };
}

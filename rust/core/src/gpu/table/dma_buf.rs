//! The dma-buf of a range, by the table's callbacks.
#![allow(unsafe_code, reason = "calls the host program's C callbacks")]

use std::ffi::{c_int, c_void};
use std::os::fd::{FromRawFd, OwnedFd};

use super::super::pages::Pages;
use super::super::{DmaBufExport, GpuError, closed_on_exec};
use super::GpuTable;
use super::runtime::{NAME, check, malformed, unsupported};

/// A dma-buf of the whole pages around a range. The GPU of the range is current.
pub(super) fn export(table: &GpuTable, address: u64, length: u64) -> Result<DmaBufExport, GpuError> {
    let operation = "export a dma-buf";
    let (Some(is_supported), Some(get)) = (table.dma_support, table.get_handle_for_address_range) else {
        return Err(unsupported(operation));
    };
    let mut supported = 0;
    // SAFETY: the table's owner promised a conforming callback; the out parameter has the size of a C `bool`.
    check("dmaSupport", unsafe { is_supported(&raw mut supported) })?;
    if supported == 0 {
        return Err(unsupported(operation));
    }
    let Pages { start, bytes, offset } = Pages::around(NAME, operation, address, length)?;
    let mut fd: c_int = -1;
    // SAFETY: as above; the out parameter is an int, as the adaptors write it. The range is only looked up.
    let code = unsafe { get((&raw mut fd).cast::<c_void>(), start as *mut c_void, bytes, 0) };
    check("getHandleForAddressRange", code)?;
    if fd < 0 {
        return Err(malformed("getHandleForAddressRange", format_args!("descriptor {fd}")));
    }
    // SAFETY: the table has just made this descriptor for its caller, and nothing else knows it.
    let fd = closed_on_exec(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(DmaBufExport { fd, offset })
}

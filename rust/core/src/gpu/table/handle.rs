//! The IPC handle of an address: what other processes open, and for some tables the only sign of GPU memory.
#![allow(unsafe_code, reason = "calls the host program's C callbacks")]

use std::ffi::c_void;
use std::ptr;

use super::super::{GpuError, IPC_HANDLE_BYTES};
use super::GpuTable;
use super::runtime::{NAME, SUCCESS, check};

/// What the table makes of an address.
#[derive(Clone, Copy, Debug)]
pub(super) enum IpcProbe {
    /// GPU memory, with its handle.
    Handle([u8; IPC_HANDLE_BYTES]),
    /// It makes handles, and none for this address.
    Refused,
    /// It makes none at all: callbacks are missing, or creating the object fails, as in adaptors of which that part is not
    /// written.
    NoHandles,
}

/// Fills a handle object for `address`.
pub(super) fn probe(table: &GpuTable, address: u64) -> Result<IpcProbe, GpuError> {
    let (Some(create), Some(get), Some(free)) =
        (table.ipc_mem_handle_create, table.ipc_mem_handle_get, table.ipc_mem_handle_free)
    else {
        return Ok(IpcProbe::NoHandles);
    };
    let (mut handle, mut size) = (ptr::null_mut(), 0);
    // SAFETY: the table's owner promised a conforming callback; both out parameters are valid for it.
    if unsafe { create(&raw mut handle, &raw mut size) } != SUCCESS {
        clear_error(table);
        return Ok(IpcProbe::NoHandles);
    }
    // SAFETY: as above; `handle` came from `create`, and `address` is only looked up, not accessed.
    let code = unsafe { get(handle, address as *mut c_void) };
    let mut bytes = [0; IPC_HANDLE_BYTES];
    let usable = !handle.is_null() && size <= IPC_HANDLE_BYTES;
    if code == SUCCESS && usable {
        // SAFETY: `create` says that the object has `size` bytes, and `bytes` has room for them.
        unsafe { ptr::copy_nonoverlapping(handle.cast::<u8>(), bytes.as_mut_ptr(), size) };
    }
    // SAFETY: `handle` came from `create` and is not used again.
    let freed = unsafe { free(handle) };
    if code != SUCCESS {
        clear_error(table);
        return Ok(IpcProbe::Refused);
    }
    if !usable {
        let answer = format!("a handle of {size} bytes, at most {IPC_HANDLE_BYTES} fit");
        return Err(GpuError::Malformed { runtime: NAME, operation: "ipcMemHandleCreate", answer });
    }
    check("ipcMemHandleFree", freed)?;
    Ok(IpcProbe::Handle(bytes))
}

/// Clears the error that a failed call has left behind.
fn clear_error(table: &GpuTable) {
    if let Some(clear) = table.get_last_error {
        // SAFETY: the table's owner promised a conforming callback.
        unsafe { clear() };
    }
}

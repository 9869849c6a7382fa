//! The GPU runtime that the host program supplies: FlagCX's device adaptor, or a table of its own.
#![allow(unsafe_code, reason = "calls the C++ function that gives the table")]

use std::mem;
use std::sync::Arc;

use flagcx_p2p::internals::gpu::{self, GpuTable, TableRuntime};

/// Writes the table as it is now.
type ReadTable = extern "C" fn(out: *mut GpuTable);

/// Takes the host program's callbacks from now on; 0 goes back to finding a runtime.
///
/// # Safety
/// `read` is 0 or the address of a function of type [`ReadTable`] that may be called from any thread, for ever, and
/// the callbacks that it gives conform to [`GpuTable`].
pub(crate) unsafe fn install_gpu_table(read: usize) {
    // SAFETY: the caller's promise; an `Option` of a function pointer has the size of one, with null for `None`.
    let read: Option<ReadTable> = unsafe { mem::transmute(read) };
    let runtime = read.map(|read| {
        let table = move || {
            let mut table = GpuTable::default();
            read(&raw mut table);
            table
        };
        // SAFETY: the caller's promise.
        Arc::new(unsafe { TableRuntime::new(table) }) as Arc<dyn gpu::GpuRuntime>
    });
    gpu::install(runtime);
}

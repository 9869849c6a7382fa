//! Memory of which an object says that it belongs to a GPU.

use flagcx_p2p::MemoryKind;
use flagcx_p2p::internals::gpu::{self, PointerKind};
use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;

use crate::errors::refused;

/// What the GPU's runtime says of the address: managed and pinned memory is memory of the host.
///
/// Memory of any GPU will do, whichever the engine's is: copies run on the GPU of the memory, by the engine's NIC between hosts.
/// Without a runtime it is refused. Nothing could move it then, and as memory of the host it never counts by an object's word alone.
pub(super) fn of_gpu(address: u64, owner: &str) -> PyResult<MemoryKind> {
    let runtime = gpu::runtime();
    if !runtime.has_memory() {
        return Err(PyBufferError::new_err(format!(
            "{owner} is memory of a GPU, at {address:#x}, and this process has not loaded the CUDA driver (libcuda.so.1), by which the \
             engine copies it. {REMEDY}"
        )));
    }
    match runtime.pointer_kind(address) {
        // Of a runtime that cannot tell, the object's word counts.
        Ok(PointerKind::Gpu(_) | PointerKind::Unknown) => Ok(MemoryKind::Gpu),
        Ok(PointerKind::Host) => Ok(MemoryKind::Host),
        Err(error) => Err(refused(format!("cannot find out where {owner} lies, at {address:#x}: {error}"))),
    }
}

/// The error of memory of a device that the engine does not know.
pub(super) fn unknown_device(owner: &str, device: &str) -> PyErr {
    PyBufferError::new_err(format!(
        "{owner} is memory of the device {device}, which the engine does not know: it registers memory of the host and of CUDA GPUs. \
         {REMEDY}"
    ))
}

const REMEDY: &str = "Register a copy in memory of the host, or, where the NIC reaches it, its address \
                      (Engine.register_address with device=True)";

//! DLPack: tensors of any library, by a C structure in a capsule.
//!
//! Specification: <https://dmlc.github.io/dlpack/latest/python_spec.html>, and `dlpack.h` 1.3. The capsule, with its structure and
//! what releases it, is the matter of the crate dlpark; here is what is asked of the object, and what its answer means.

use std::fmt;

use dlpark::ffi::DLDeviceType;
use dlpark::python::{ImportedDlpack, from_dlpack};
use dlpark::{AllocationDeleter, DlpackFlags};
use flagcx_p2p::MemoryKind;
use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict};

use super::layout::{is_contiguous, not_contiguous};
use super::{Exported, name, place, require_bytes};
use crate::kept::Keeps;

/// By `__dlpack__`; `None` of objects without it.
pub(super) fn of(object: &Bound<'_, PyAny>) -> PyResult<Option<Exported>> {
    let py = object.py();
    if !object.hasattr(intern!(py, "__dlpack__"))? {
        return Ok(None);
    }
    let (device, _): (u32, i32) = object.call_method0(intern!(py, "__dlpack_device__"))?.extract()?;
    let device = DLDeviceType(device);
    let (on_gpu, has_streams) = match device {
        DLDeviceType::CPU | DLDeviceType::CUDAHOST | DLDeviceType::ROCMHOST => (false, false),
        // Managed memory is memory of the host here.
        DLDeviceType::CUDAMANAGED => (false, true),
        DLDeviceType::CUDA | DLDeviceType::ROCM => (true, true),
        DLDeviceType(other) => {
            return Err(place::unknown_device(&name(object), &format!("type {other} of DLPack")));
        }
    };
    let capsule = exchange(object, has_streams)?;
    if !capsule.is_instance_of::<PyCapsule>() {
        return Err(malformed(object, "it gives no capsule"));
    }
    let imported = from_dlpack(capsule.as_borrowed(), None, None);
    let imported = imported.map_err(|error| malformed(object, &error.value(py).to_string()))?;
    read(object, imported, on_gpu).map(Some)
}

/// Its capsule. No stream is waited for (-1): that matters when bytes are moved, not here.
fn exchange<'py>(object: &Bound<'py, PyAny>, has_streams: bool) -> PyResult<Bound<'py, PyAny>> {
    let py = object.py();
    let method = object.getattr(intern!(py, "__dlpack__"))?;
    let before_1_0 = PyDict::new(py);
    if has_streams {
        before_1_0.set_item(intern!(py, "stream"), -1)?;
    }
    let arguments = before_1_0.copy()?;
    arguments.set_item(intern!(py, "max_version"), VERSION)?;
    arguments.set_item(intern!(py, "copy"), false)?;
    match method.call((), Some(&arguments)) {
        // Libraries from before version 1.0 do not know these arguments.
        Err(error) if error.is_instance_of::<PyTypeError>(py) => method.call((), Some(&before_1_0)),
        answer => answer,
    }
}

/// What is dropped in the case of an error releases the tensor.
fn read(object: &Bound<'_, PyAny>, imported: ImportedDlpack, on_gpu: bool) -> PyResult<Exported> {
    let malformed = |problem: &str| malformed(object, problem);
    let flags = imported.flags();
    if flags.contains(DlpackFlags::IS_COPIED) {
        return Err(malformed(
            "it gives a copy, and what is registered would be that: register the copy itself",
        ));
    }
    let tensor = imported.validate().map_err(|error| malformed(&error.to_string()))?;
    let elements = tensor.num_elements() as u64;
    let size = if flags.contains(DlpackFlags::IS_SUBBYTE_TYPE_PADDED) && tensor.dtype().bits < 8 {
        elements
            .checked_mul(u64::from(tensor.dtype().lanes))
            .ok_or_else(|| malformed("its shape is not one of memory"))?
    } else {
        tensor.num_bytes() as u64
    };
    require_bytes(object, size)?;
    if !is_contiguous(tensor.shape(), tensor.strides(), 1) {
        let remedy =
            "a contiguous copy (ascontiguousarray of its library), or the whole of which it is a view";
        return Err(not_contiguous(&name(object), remedy));
    }
    let start = tensor.data_ptr() as u64;
    let address = start.checked_add(tensor.byte_offset()).filter(|_| start != 0);
    let address = address.ok_or_else(|| malformed("its address is 0, or beyond all memory"))?;
    let kind = if on_gpu { place::of_gpu(address, &name(object))? } else { MemoryKind::Host };
    // Before version 1.0 nothing tells memory for reading only; libraries do not export it then.
    let writable = !flags.contains(DlpackFlags::READ_ONLY);
    let owner = Box::new(Tensor(Some(imported.into_deleter())));
    Ok(Exported { address, size, writable, kind, owner })
}

fn malformed(object: &Bound<'_, PyAny>, problem: &str) -> PyErr {
    PyBufferError::new_err(format!("__dlpack__ of {} cannot be used: {problem}", name(object)))
}

/// Releases the tensor once, when dropped.
struct Tensor(Option<AllocationDeleter>);

impl Keeps for Tensor {}

impl Drop for Tensor {
    fn drop(&mut self) {
        // It may give Python objects up. After the end of the interpreter there are none, and the process is about to end.
        if Python::try_attach(|_| drop(self.0.take())).is_none() {
            std::mem::forget(self.0.take());
        }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a tensor of DLPack")
    }
}

/// The version of the structures of the crate.
const VERSION: (u32, u32) = (dlpark::ffi::DLPACK_MAJOR_VERSION, dlpark::ffi::DLPACK_MINOR_VERSION);

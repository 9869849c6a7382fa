//! Buffers: `bytes`, `bytearray`, `memoryview`, `array.array`, `mmap`, numpy arrays.
//!
//! Specification: PEP 3118, and "Buffer Protocol" of the Python/C API. Until its buffer is released an object neither frees nor
//! resizes the memory: a `bytearray` raises `BufferError`, as does `mmap.close`.

use flagcx_p2p::MemoryKind;
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;
use pyo3::types::PyMemoryView;

use super::layout::not_contiguous;
use super::{Exported, name, require_bytes};

/// The buffer of an object. Arrays of `ctypes` leave strides out, which a `memoryview` of them fills in.
pub(super) fn get(object: &Bound<'_, PyAny>) -> PyResult<PyUntypedBuffer> {
    match PyUntypedBuffer::get(object) {
        Err(error) if error.is_instance_of::<PyBufferError>(object.py()) => {
            PyUntypedBuffer::get(PyMemoryView::from(object)?.as_any())
        }
        found => found,
    }
}

pub(super) fn of(object: &Bound<'_, PyAny>, buffer: PyUntypedBuffer) -> PyResult<Exported> {
    let size = buffer.len_bytes() as u64;
    require_bytes(object, size)?;
    if !buffer.is_c_contiguous() {
        let remedy = if buffer.is_fortran_contiguous() {
            "its transpose (.T), which is, or numpy.ascontiguousarray of it, which copies"
        } else {
            "a contiguous copy (numpy.ascontiguousarray, or bytes of it), or the whole of which it is a view"
        };
        return Err(not_contiguous(&name(object), remedy));
    }
    if holds_objects(buffer.format().to_bytes()) {
        return Err(PyBufferError::new_err(format!(
            "{} holds references to Python objects, which mean nothing to a peer: register their bytes (pickle.dumps)",
            name(object)
        )));
    }
    Ok(Exported {
        address: buffer.buf_ptr() as u64,
        size,
        writable: !buffer.readonly(),
        kind: MemoryKind::Host,
        owner: Box::new(buffer),
    })
}

/// Whether a format (PEP 3118) has references in it. Names of fields stand between colons.
fn holds_objects(format: &[u8]) -> bool {
    format.split(|byte| *byte == b':').step_by(2).any(|types| types.contains(&b'O'))
}

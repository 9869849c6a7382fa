//! The memory of a Python object, kept where it is.

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::prelude::*;

use crate::kept::Owner;

/// Contiguous memory that is neither freed nor resized while its owner lives.
#[derive(Debug)]
pub(crate) struct Exported {
    pub(crate) address: u64,
    pub(crate) size: u64,
    /// Whether it may be written to.
    pub(crate) writable: bool,
    /// Whether it is memory of a GPU.
    pub(crate) device: bool,
    pub(crate) owner: Owner,
}

impl Exported {
    /// Exports the memory of `object`.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = PyUntypedBuffer::get(object)?;
        if !buffer.is_c_contiguous() && !buffer.is_fortran_contiguous() {
            return Err(PyBufferError::new_err(
                "the buffer is not contiguous, and a region is one range of memory: register a contiguous copy of it \
                 (numpy.ascontiguousarray, Tensor.contiguous)",
            ));
        }
        let size = buffer.len_bytes() as u64;
        if size == 0 {
            return Err(PyValueError::new_err("an empty buffer cannot be registered"));
        }
        let (address, writable) = (buffer.buf_ptr() as u64, !buffer.readonly());
        Ok(Self { address, size, writable, device: false, owner: Box::new(buffer) })
    }
}

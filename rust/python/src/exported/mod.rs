//! The memory of a Python object, kept where it is.
//!
//! Objects describe their memory by several protocols, and many by more than one. They are asked in this order:
//!
//! 1. `torch.Tensor`, by its methods: they know tensors that DLPack has no name for (8-bit floats) or refuses to export (those
//!    that require gradients), and wait for no stream.
//! 2. The buffer protocol: the only one with which an object promises neither to free nor to resize its memory.
//! 3. `__array_interface__`, of objects that have a buffer and cannot show it, as numpy has no names for dates and bfloat16 there. Of
//!    others it may describe a copy that is not kept.
//! 4. `__cuda_array_interface__`: memory of a GPU; says whether it may be written to, and costs one attribute.
//! 5. DLPack: whatever is left.
//!
//! What the elements are does not matter: bytes are moved. They must lie in the order of their indices, without gaps: then both
//! ends agree about which byte is which.

mod array_interface;
mod buffer;
mod dlpack;
mod layout;
mod place;
mod tensor;

use flagcx_p2p::MemoryKind;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::kept::Owner;

/// A range of memory that stays where it is while its owner lives.
#[derive(Debug)]
pub(crate) struct Exported {
    pub(crate) address: u64,
    pub(crate) size: u64,
    /// Whether it may be written to.
    pub(crate) writable: bool,
    /// Of the host, or of a GPU.
    pub(crate) kind: MemoryKind,
    pub(crate) owner: Owner,
}

impl Exported {
    /// Exports the memory of `object`.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Some(found) = tensor::of(object)? {
            return Ok(found);
        }
        let no_buffer = match buffer::get(object) {
            Ok(found) => return buffer::of(object, found),
            Err(error) => error,
        };
        let has_buffer = !no_buffer.is_instance_of::<PyTypeError>(object.py());
        if has_buffer && let Some(found) = array_interface::of_host(object)? {
            return Ok(found);
        }
        if let Some(found) = array_interface::of_gpu(object)? {
            return Ok(found);
        }
        if let Some(found) = dlpack::of(object)? {
            return Ok(found);
        }
        if has_buffer {
            return Err(no_buffer);
        }
        Err(PyTypeError::new_err(format!(
            "{} has no memory that can be registered: expected a buffer (bytes, bytearray, memoryview, numpy array), a tensor, or \
             an object with __cuda_array_interface__ or __dlpack__; Engine.register_address takes an address",
            name(object)
        )))
    }
}

/// What an object is called in errors.
fn name(object: &Bound<'_, PyAny>) -> String {
    object
        .get_type()
        .name()
        .map_or_else(|_| "the object".to_owned(), |name| format!("an object of type {name}"))
}

fn require_bytes(object: &Bound<'_, PyAny>, size: u64) -> PyResult<()> {
    if size > 0 {
        return Ok(());
    }
    Err(PyValueError::new_err(format!(
        "{} is empty, and nothing of it can be registered: an empty buffer has no memory",
        name(object)
    )))
}

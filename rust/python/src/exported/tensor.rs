//! Tensors of PyTorch.
//!
//! Names: <https://docs.pytorch.org/docs/stable/tensors.html>. PyTorch is not imported here: a process without it has no tensors.

use flagcx_p2p::MemoryKind;
use pyo3::exceptions::PyBufferError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::layout::not_contiguous;
use super::{Exported, place, require_bytes};

/// The memory of a tensor; `None` of other objects. Its gradient, and whether it requires one, do not matter.
pub(super) fn of(object: &Bound<'_, PyAny>) -> PyResult<Option<Exported>> {
    let Some(class) = class(object.py())? else { return Ok(None) };
    if !object.is_instance(&class)? {
        return Ok(None);
    }
    read(object).map(Some)
}

fn class(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    let modules = py.import(intern!(py, "sys"))?.getattr(intern!(py, "modules"))?.cast_into::<PyDict>()?;
    match modules.get_item(intern!(py, "torch"))? {
        // Not there yet while the module is being imported.
        Some(torch) => torch.getattr_opt(intern!(py, "Tensor")),
        None => Ok(None),
    }
}

fn read(tensor: &Bound<'_, PyAny>) -> PyResult<Exported> {
    let py = tensor.py();
    let device: String = tensor.getattr(intern!(py, "device"))?.getattr(intern!(py, "type"))?.extract()?;
    let on_gpu = match device.as_str() {
        "cpu" => false,
        // Builds for ROCm say so too.
        "cuda" => true,
        other => return Err(place::unknown_device("the tensor", other)),
    };
    let elements: u64 = ask(tensor, intern!(py, "numel"))?;
    let element_size: u64 = ask(tensor, intern!(py, "element_size"))?;
    let size = elements.saturating_mul(element_size);
    require_bytes(tensor, size)?;
    if !ask::<bool>(tensor, intern!(py, "is_contiguous"))? {
        let remedy = "tensor.contiguous(), which copies it, or the whole of which it is a view";
        return Err(not_contiguous("the tensor", remedy));
    }
    for (property, remedy) in [("is_conj", "resolve_conj"), ("is_neg", "resolve_neg")] {
        if tensor.hasattr(property)? && ask::<bool>(tensor, property)? {
            return Err(PyBufferError::new_err(format!(
                "the tensor's values are not what its memory holds (tensor.{property}()): register tensor.{remedy}(), which copies it"
            )));
        }
    }
    let address: u64 = ask(tensor, intern!(py, "data_ptr"))?;
    require_memory(tensor, address, size)?;
    let kind = if on_gpu { place::of_gpu(address, "the tensor")? } else { MemoryKind::Host };
    // Another tensor over the same memory keeps that, also when this one is given other data.
    let owner = tensor.call_method0(intern!(py, "detach"))?.unbind();
    Ok(Exported { address, size, writable: true, kind, owner: Box::new(owner) })
}

/// Its memory may have been given back by resizing the storage, and wrappers of other tensors have none.
fn require_memory(tensor: &Bound<'_, PyAny>, address: u64, size: u64) -> PyResult<()> {
    let py = tensor.py();
    let mut held = if address == 0 { 0 } else { size };
    // Since PyTorch 2.0.
    if address != 0 && tensor.hasattr(intern!(py, "untyped_storage"))? {
        let storage: Bound<'_, PyAny> = ask(tensor, intern!(py, "untyped_storage"))?;
        let (start, bytes): (u64, u64) =
            (ask(&storage, intern!(py, "data_ptr"))?, ask(&storage, intern!(py, "nbytes"))?);
        held = start.saturating_add(bytes).saturating_sub(address);
    }
    if held >= size {
        return Ok(());
    }
    Err(PyBufferError::new_err(format!(
        "the tensor should have {size} bytes of memory, and has {held}: its storage has been resized, its elements are packed, or it \
         wraps other tensors. Register a tensor that has memory of its own (tensor.clone(), or .to_local() of a distributed one)"
    )))
}

/// What a method of it answers. Tensors without memory of their own, sparse ones for example, raise.
fn ask<'py, T>(
    object: &Bound<'py, PyAny>,
    method: impl IntoPyObject<'py, Target = pyo3::types::PyString>,
) -> PyResult<T>
where
    T: for<'a> FromPyObject<'a, 'py>,
{
    let py = object.py();
    let failed = |error: PyErr| {
        let refusal = PyBufferError::new_err(format!(
            "the tensor has no memory that can be registered: {}",
            error.value(py)
        ));
        refusal.set_cause(py, Some(error));
        refusal
    };
    object.call_method0(method).map_err(failed)?.extract().map_err(|error| failed(Into::<PyErr>::into(error)))
}

//! Memory that the engine allocates.
#![allow(
    unsafe_code,
    reason = "shows allocated memory as a buffer, and frees it when nothing shows it any more"
)]

use std::ffi::c_int;
use std::sync::{Arc, Mutex, PoisonError};

use flagcx_p2p::internals::engine::free_kept;
use flagcx_p2p::{Access, AllocateOptions};
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyMemoryView;

use crate::engine::Shared;
use crate::errors::refused;
use crate::region::Region;

/// See `_native.pyi`.
#[pyclass(frozen, extends = Region, module = "flagcx_p2p")]
#[derive(Debug)]
pub(crate) struct SharedMemory {
    /// Until it is closed.
    bytes: Mutex<Option<Py<SharedBytes>>>,
}

impl SharedMemory {
    pub(crate) fn allocate(
        py: Python<'_>,
        shared: &Arc<Shared>,
        size: usize,
        huge_pages: bool,
        announced: bool,
        read_only: bool,
    ) -> PyResult<Py<Self>> {
        if size == 0 || isize::try_from(size).is_err() {
            return Err(PyValueError::new_err(format!(
                "memory of {size} bytes cannot be allocated: at least one, and less than 2**63"
            )));
        }
        let core = shared.core()?;
        let access = if read_only { Access::READ_ONLY } else { Access::FULL };
        let options = AllocateOptions { huge_pages, access, announced };
        let (address, id) = py.detach(|| core.allocate_at_address(size, options, true)).map_err(refused)?;
        let bytes = Py::new(py, SharedBytes { shared: Arc::clone(shared), address, size })?;
        let region = Region::new(shared, id, None, address, size as u64);
        let memory = PyClassInitializer::from(region).add_subclass(Self { bytes: Mutex::new(Some(bytes)) });
        Py::new(py, memory)
    }

    fn bytes(&self, py: Python<'_>) -> PyResult<Py<SharedBytes>> {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        bytes
            .as_ref()
            .map(|bytes| bytes.clone_ref(py))
            .ok_or_else(|| refused("the memory has been closed: it has no bytes any more"))
    }
}

#[pymethods]
impl SharedMemory {
    #[getter]
    fn buf<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyMemoryView>> {
        PyMemoryView::from(self.bytes(py)?.bind(py))
    }

    fn close(slf: &Bound<'_, Self>) {
        slf.as_super().get().deregister(slf.py());
        let bytes = slf.get().bytes.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(bytes);
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(slf: &Bound<'_, Self>, _exception: &Bound<'_, pyo3::types::PyTuple>) {
        Self::close(slf);
    }

    fn __repr__(slf: &Bound<'_, Self>) -> String {
        let region = slf.as_super().get();
        format!("SharedMemory({:#x}, {} bytes)", region.start(), region.len())
    }

    /// # Safety
    /// `view` is one that the interpreter wants filled.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let bytes = slf.get().bytes(slf.py())?;
        // SAFETY: the caller's promise; the view refers to the bytes, which outlive this object.
        match unsafe { ffi::PyObject_GetBuffer(bytes.as_ptr(), view, flags) } {
            0 => Ok(()),
            _ => Err(PyErr::fetch(slf.py())),
        }
    }
}

/// What all views refer to: the memory lives as long as this.
#[pyclass(frozen, module = "flagcx_p2p")]
#[derive(Debug)]
struct SharedBytes {
    shared: Arc<Shared>,
    address: u64,
    size: usize,
}

#[pymethods]
impl SharedBytes {
    /// # Safety
    /// `view` is one that the interpreter wants filled.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let bytes = slf.get();
        let length = bytes.size as ffi::Py_ssize_t;
        let start = bytes.address as *mut std::ffi::c_void;
        // SAFETY: the memory is mapped for so many bytes until this object is dropped, and the view refers to it.
        match unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, length, 0, flags) } {
            0 => Ok(()),
            _ => Err(PyErr::fetch(slf.py())),
        }
    }
}

impl Drop for SharedBytes {
    fn drop(&mut self) {
        let Ok(core) = self.shared.core() else {
            // The engine is closed, or of another process, which is refused.
            let _ = free_kept(self.address);
            return;
        };
        let _ = core.free(self.address);
    }
}

//! Memory that the engine allocates.
#![allow(
    unsafe_code,
    reason = "shows allocated memory as a buffer, and frees it when nothing shows it any more"
)]

use std::ffi::c_int;
use std::sync::{Arc, Mutex, PoisonError};

use flagcx_p2p::AllocateOptions;
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyMemoryView};

use crate::errors::refused;
use crate::region::Region;
use crate::shared::Shared;

/// Registered memory of :meth:`Engine.allocate`: a :class:`Region`, and the bytes themselves.
///
/// ``memory.buf`` is a ``memoryview`` of them, and the object is a buffer as well: ``memoryview(memory)``,
/// ``numpy.frombuffer(memory, dtype)``. They are writable here, also where peers may only read them.
///
/// Closing it ends the registration. The memory is freed when nothing refers to it any more: neither this object nor a view or an
/// array of it, whichever goes last, also after the engine's end. What the program has registered inside by address
/// (:meth:`Engine.register_address`) keeps it too, until that is closed. A forked process shares the bytes, and frees none of them.
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
        size: &Bound<'_, PyAny>,
        options: AllocateOptions,
    ) -> PyResult<Py<Self>> {
        let length =
            size.extract().ok().filter(|length: &usize| *length > 0 && isize::try_from(*length).is_ok());
        let Some(length) = length else {
            // Whatever is no number is a TypeError.
            size.cast::<PyInt>()?;
            return Err(PyValueError::new_err(format!(
                "memory of {size} bytes cannot be allocated: at least one, and less than 2**63"
            )));
        };
        let core = shared.core()?;
        let (address, id) = py.detach(|| core.allocate_at_address(length, options, true)).map_err(refused)?;
        let bytes = Py::new(py, SharedBytes { shared: Arc::clone(shared), address, length })?;
        let region = Region::new(shared, id, None, address, length as u64);
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
    /// The bytes, as a writable ``memoryview`` of format ``"B"``, until this is closed (:class:`P2pError` then). Views that were
    /// taken before stay valid.
    #[getter]
    fn buf<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyMemoryView>> {
        PyMemoryView::from(self.bytes(py)?.bind(py))
    }

    /// Ends the registration, as that of a region, and gives the memory up, which stays as long as views of it are there.
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
    length: usize,
}

#[pymethods]
impl SharedBytes {
    /// # Safety
    /// `view` is one that the interpreter wants filled.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let bytes = slf.get();
        let length = bytes.length as ffi::Py_ssize_t;
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
        // Otherwise the interpreter has ended: views may be in use, and the process gives everything back.
        let _ = Python::try_attach(|py| self.shared.free(py, self.address));
    }
}

//! Registered memory.
#![allow(
    unsafe_code,
    reason = "registers memory that its owner keeps alive, or that the caller promises to keep"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use flagcx_p2p::{Access, MemoryKind, RegionId, RegisterOptions, SharedFile};
use pyo3::exceptions::{PyBufferError, PyIndexError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PySlice;

use crate::engine::Shared;
use crate::errors::refused;
use crate::exported::Exported;
use crate::kept::{Key, Owner};
use crate::single;

/// Memory to register.
#[derive(Debug)]
pub(crate) struct Registration {
    address: u64,
    size: u64,
    options: RegisterOptions,
    owner: Option<Owner>,
}

impl Registration {
    /// The memory of a Python object; `file`: the descriptor and the offset of the file that it is mapped from.
    pub(crate) fn of_object(
        object: &Bound<'_, PyAny>,
        announced: bool,
        read_only: Option<bool>,
        file: Option<(i32, u64)>,
    ) -> PyResult<Self> {
        let exported = Exported::of(object)?;
        if read_only == Some(false) && !exported.writable {
            return Err(PyBufferError::new_err(
                "read_only=False was asked for, but the memory is read-only: register a writable copy of it",
            ));
        }
        let read_only = read_only.unwrap_or(!exported.writable);
        let kind = if exported.device { MemoryKind::Device } else { MemoryKind::Host };
        let file = file.map(|(fd, offset)| SharedFile { fd, offset, is_own: false });
        let options = RegisterOptions { kind, access: access(read_only), announced, dma_buf: None, file };
        Ok(Self { address: exported.address, size: exported.size, options, owner: Some(exported.owner) })
    }

    /// Memory that the caller keeps.
    pub(crate) fn of_address(
        address: u64,
        size: u64,
        device: Option<bool>,
        announced: bool,
        read_only: bool,
    ) -> Self {
        let kind = match device {
            None => MemoryKind::Probe,
            Some(false) => MemoryKind::Host,
            Some(true) => MemoryKind::Device,
        };
        let options =
            RegisterOptions { kind, access: access(read_only), announced, dma_buf: None, file: None };
        Self { address, size, options, owner: None }
    }
}

/// See `_native.pyi`.
#[pyclass(frozen, subclass, module = "flagcx_p2p", weakref)]
#[derive(Debug)]
pub(crate) struct Region {
    shared: Arc<Shared>,
    id: RegionId,
    key: Option<Key>,
    address: u64,
    size: u64,
    /// Not yet deregistered here. Whichever thread clears it deregisters, so AcqRel orders nothing else: Relaxed.
    open: AtomicBool,
    /// That has been done. Stored with Release by that thread, loaded with Acquire by others that close it.
    ended: AtomicBool,
}

impl Region {
    pub(crate) fn register(
        py: Python<'_>,
        shared: &Arc<Shared>,
        registration: Registration,
    ) -> PyResult<Self> {
        let core = shared.core()?;
        let Registration { address, size, options, owner } = registration;
        // Before the memory is registered: peers may use it from then on.
        let key = owner.map(|owner| shared.kept.keep(owner));
        // SAFETY: the owner keeps the memory until it is deregistered or the engine is closed; without one, the caller does,
        // as the documentation of `register_address` says.
        let registered = py.detach(|| unsafe { core.register(address, size, options) });
        match registered {
            Ok(id) => Ok(Self::new(shared, id, key, address, size)),
            Err(error) => {
                key.into_iter().for_each(|key| shared.kept.release(key));
                Err(refused(error))
            }
        }
    }

    pub(crate) fn new(shared: &Arc<Shared>, id: RegionId, key: Option<Key>, address: u64, size: u64) -> Self {
        Self {
            shared: Arc::clone(shared),
            id,
            key,
            address,
            size,
            open: AtomicBool::new(true),
            ended: AtomicBool::new(false),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn id(&self) -> RegionId {
        self.id
    }

    pub(crate) fn start(&self) -> u64 {
        self.address
    }

    pub(crate) fn len(&self) -> u64 {
        self.size
    }

    pub(crate) fn is_closed(&self) -> bool {
        !self.open.load(Ordering::Relaxed) || self.shared.is_closed()
    }

    /// Ends the registration, once.
    pub(crate) fn deregister(&self, py: Python<'_>) {
        let Ok(core) = self.shared.core() else { return };
        if !self.open.swap(false, Ordering::Relaxed) {
            self.wait_until_ended(py);
            return;
        }
        // Otherwise something may still touch the memory: it is kept until the engine is closed.
        let over = py.detach(|| core.deregister(self.id));
        self.ended.store(true, Ordering::Release);
        if over && let Some(key) = self.key {
            self.shared.kept.release(key);
        }
    }

    /// Another thread ends the registration: its memory is in use until that is done.
    fn wait_until_ended(&self, py: Python<'_>) {
        while !self.ended.load(Ordering::Acquire) && !self.shared.is_closed() {
            py.detach(|| sleep(Duration::from_millis(1)));
        }
    }
}

#[pymethods]
impl Region {
    #[getter]
    fn address(&self) -> u64 {
        self.address
    }

    #[getter]
    fn size(&self) -> u64 {
        self.size
    }

    #[getter]
    fn number(&self) -> u64 {
        self.id.0
    }

    #[getter]
    fn closed(&self) -> bool {
        self.is_closed()
    }

    fn close(&self, py: Python<'_>) {
        self.deregister(py);
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, pyo3::types::PyTuple>) {
        self.deregister(py);
    }

    fn __reduce__(slf: &Bound<'_, Self>) -> PyResult<()> {
        let advice =
            "tell the peer its address and size, or register the memory with an Engine of the other process";
        Err(single::not_copied(slf.get_type().name()?, advice))
    }

    fn __len__(&self) -> usize {
        self.size as usize
    }

    fn __getitem__(slf: Bound<'_, Self>, range: &Bound<'_, PySlice>) -> PyResult<RegionSlice> {
        let (offset, size) = inside(range, slf.get().size)?;
        Ok(RegionSlice { region: slf.unbind(), offset, size })
    }

    fn __repr__(&self) -> String {
        format!("Region({:#x}, {} bytes)", self.address, self.size)
    }
}

/// See `_native.pyi`.
#[pyclass(frozen, module = "flagcx_p2p")]
#[derive(Debug)]
pub(crate) struct RegionSlice {
    pub(crate) region: Py<Region>,
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

#[pymethods]
impl RegionSlice {
    #[getter]
    fn region(&self, py: Python<'_>) -> Py<Region> {
        self.region.clone_ref(py)
    }

    #[getter]
    fn address(&self) -> u64 {
        self.region.get().address + self.offset
    }

    #[getter]
    fn offset(&self) -> u64 {
        self.offset
    }

    #[getter]
    fn size(&self) -> u64 {
        self.size
    }

    fn __reduce__(slf: &Bound<'_, Self>) -> PyResult<()> {
        Err(single::not_copied(slf.get_type().name()?, "tell the peer its address and size"))
    }

    fn __len__(&self) -> usize {
        self.size as usize
    }

    fn __getitem__(&self, py: Python<'_>, range: &Bound<'_, PySlice>) -> PyResult<Self> {
        let (offset, size) = inside(range, self.size)?;
        Ok(Self { region: self.region.clone_ref(py), offset: self.offset + offset, size })
    }

    fn __repr__(&self) -> String {
        format!("RegionSlice({:#x}, {} bytes)", self.address(), self.size)
    }
}

/// Offset and size of a slice of so many bytes.
fn inside(range: &Bound<'_, PySlice>, size: u64) -> PyResult<(u64, u64)> {
    let found = range
        .indices(isize::try_from(size).map_err(|_| PyIndexError::new_err("a region of 2**63 bytes"))?)?;
    if found.step != 1 {
        return Err(PyTypeError::new_err(format!(
            "a slice of a region is one range of memory: a step of {} is none",
            found.step
        )));
    }
    Ok((found.start as u64, found.slicelength as u64))
}

fn access(read_only: bool) -> Access {
    if read_only { Access::READ_ONLY } else { Access::FULL }
}

//! Registered memory.
#![allow(
    unsafe_code,
    reason = "registers memory that its owner keeps alive, or that the caller promises to keep"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use flagcx_p2p::{Access, MemoryKind, RegionId, RegisterOptions, SharedFile};
use pyo3::exceptions::{PyBufferError, PyIndexError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyMapping, PySlice};

use crate::errors::refused;
use crate::exported::Exported;
use crate::kept::{Key, Owner};
use crate::shared::Shared;
use crate::single;
use crate::waiting::TURN;

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
        let Exported { address, size, writable, kind, owner } = Exported::of(object)?;
        if read_only == Some(false) && !writable {
            return Err(PyBufferError::new_err(
                "read_only=False was asked for, but the memory is read-only: register a writable copy of it",
            ));
        }
        let access = access(read_only.unwrap_or(!writable));
        let file = file.map(|(fd, offset)| SharedFile { fd, offset, is_own: false });
        let options = RegisterOptions { kind, access, announced, dma_buf: None, file };
        Ok(Self { address, size, options, owner: Some(owner) })
    }

    /// The memory of several.
    pub(crate) fn of_objects(
        objects: &Bound<'_, PyAny>,
        announced: bool,
        read_only: Option<bool>,
    ) -> PyResult<Vec<Self>> {
        if objects.cast::<PyMapping>().is_ok() {
            return Err(PyTypeError::new_err(
                "a sequence of buffers was expected, got a mapping: pass its values()",
            ));
        }
        let mut registrations = Vec::with_capacity(objects.len().unwrap_or_default());
        for (index, object) in objects.try_iter()?.enumerate() {
            let registration = Self::of_object(&object?, announced, read_only, None);
            registrations.push(registration.map_err(|error| of_buffer(objects.py(), index, &error))?);
        }
        Ok(registrations)
    }

    /// Memory that the caller keeps.
    pub(crate) fn of_address(
        address: u64,
        size: u64,
        device: Option<bool>,
        announced: bool,
        read_only: bool,
    ) -> PyResult<Self> {
        if address == 0 || size == 0 || address.checked_add(size).is_none() {
            return Err(PyValueError::new_err(format!(
                "{size} bytes at address {address:#x} are no range of memory: address and size are more than zero, and the end is \
                 below 2**64"
            )));
        }
        let kind = match device {
            None => MemoryKind::Probe,
            Some(false) => MemoryKind::Host,
            Some(true) => MemoryKind::Gpu,
        };
        let options =
            RegisterOptions { kind, access: access(read_only), announced, dma_buf: None, file: None };
        Ok(Self { address, size, options, owner: None })
    }
}

/// Registered memory: a range of bytes that transfers of this engine move, and that peers read and write.
///
/// ``region[a:b]`` is a :class:`RegionSlice`, ``len(region)`` its size in bytes. What owns the memory is kept alive, and a buffer is
/// not resized (``bytearray`` raises ``BufferError``), until the region is closed, by :meth:`close`, ``with`` or the end of its engine.
/// **A region that is dropped without being closed stays registered**, and its owner alive, until the engine is closed.
/// An owner that refers to the engine is therefore never collected as garbage: close the region or the engine.
///
/// Any thread may use it.
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
        let mut regions = Self::register_all(py, shared, vec![registration]).map_err(|(_, error)| error)?;
        regions.pop().ok_or_else(|| refused("nothing was registered"))
    }

    /// All of them, or none.
    pub(crate) fn register_many(
        py: Python<'_>,
        shared: &Arc<Shared>,
        registrations: Vec<Registration>,
    ) -> PyResult<Vec<Self>> {
        Self::register_all(py, shared, registrations).map_err(|(index, error)| of_buffer(py, index, &error))
    }

    /// An error has the index of its registration.
    fn register_all(
        py: Python<'_>,
        shared: &Arc<Shared>,
        registrations: Vec<Registration>,
    ) -> Result<Vec<Self>, (usize, PyErr)> {
        let core = shared.core().map_err(|error| (0, error))?;
        // The owners are kept before the memory is registered: peers may use it from then on.
        let mut ranges = Vec::with_capacity(registrations.len());
        for Registration { address, size, options, owner } in registrations {
            ranges.push((address, size, options, owner.map(|owner| shared.kept.keep(owner))));
        }
        let (ids, error) = py.detach(|| {
            let mut ids = Vec::with_capacity(ranges.len());
            for &(address, size, options, _) in &ranges {
                // SAFETY: the owner keeps the memory until it is deregistered or the engine is closed; without one, the caller
                // does, as the documentation of `register_address` says.
                match unsafe { core.register(address, size, options) } {
                    Ok(id) => ids.push(id),
                    Err(error) => return (ids, Some(error)),
                }
            }
            (ids, None)
        });
        let failed = ids.len();
        let mut regions: Vec<_> = std::iter::zip(&ids, &ranges)
            .map(|(id, &(address, size, _, key))| Self::new(shared, *id, key, address, size))
            .collect();
        let Some(error) = error else { return Ok(regions) };
        regions.drain(..).for_each(|region| region.deregister(py));
        ranges.into_iter().skip(failed).filter_map(|(.., key)| key).for_each(|key| shared.kept.release(key));
        Err((failed, refused(error)))
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

    /// Waits in turns until no transfer uses it, or they have had their time; answers when the wait began. An exception leaves it
    /// registered.
    fn wait_for_users(&self, py: Python<'_>) -> PyResult<Instant> {
        let begun = Instant::now();
        if let (Ok(core), false) = (self.shared.core(), self.is_closed()) {
            let wait = || core.wait_for_users(self.id, begun, TURN);
            while !py.detach(wait) {
                py.check_signals()?;
            }
        }
        Ok(begun)
    }

    /// Ends the registration, once. In a forked process it does nothing.
    pub(crate) fn deregister(&self, py: Python<'_>) {
        self.deregister_since(py, Instant::now());
    }

    /// As [`Region::deregister`], with a wait that began before.
    fn deregister_since(&self, py: Python<'_>, begun: Instant) {
        let Ok(core) = self.shared.core() else {
            // An engine that another thread closes moves bytes of its regions until that is done.
            return self.shared.close(py);
        };
        if !self.open.swap(false, Ordering::Relaxed) {
            return py.detach(|| self.wait_until_ended());
        }
        let over = py.detach(|| {
            let over = core.deregister_since(self.id, begun);
            self.ended.store(true, Ordering::Release);
            self.shared.kept.free_unused(core);
            over
        });
        self.shared.kept.end(self.key, self.id, over);
    }

    /// Another thread ends the registration: its memory is in use until that is done, also when the engine is closed meanwhile.
    fn wait_until_ended(&self) {
        while !self.ended.load(Ordering::Acquire) {
            sleep(Duration::from_millis(1));
        }
    }
}

#[pymethods]
impl Region {
    /// Where the memory begins. Peers name ranges of it by such addresses.
    #[getter]
    fn address(&self) -> u64 {
        self.address
    }

    /// Bytes.
    #[getter]
    fn size(&self) -> u64 {
        self.size
    }

    /// The region's number in this process, never used again. The same range registered twice has one number.
    #[getter]
    fn number(&self) -> u64 {
        self.id.0
    }

    /// Whether its registration has ended: it was closed, or its engine was.
    #[getter]
    fn closed(&self) -> bool {
        self.is_closed()
    }

    /// Ends the registration, and gives up what owns the memory. Closing it again does nothing. While another thread closes the
    /// engine, this waits for that.
    ///
    /// Waits for transfers of this engine that use it, for FLAGCX_P2P_XFER_TIMEOUT_MS at most (else 30 s); they are ended as timed out
    /// then. Nothing reads or writes the memory when this returns. Where that is not certain, as with a stopped process in the middle
    /// of a copy, its owner is kept until the engine is closed.
    ///
    /// Ctrl-C ends the wait for transfers: the region stays registered then, and may be closed again. Not interrupted are the end of those
    /// that had their time, 4 s at most, and the wait for a process that is stopped in the middle of a copy.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let begun = self.wait_for_users(py)?;
        self.deregister_since(py, begun);
        Ok(())
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, pyo3::types::PyTuple>) -> PyResult<()> {
        self.close(py)
    }

    fn __reduce__(slf: &Bound<'_, Self>) -> PyResult<()> {
        let advice =
            "tell the peer its address and size, or register the memory with an Engine of the other process";
        Err(single::not_copied(slf.get_type().name()?, advice))
    }

    fn __len__(&self) -> usize {
        self.size as usize
    }

    /// A range of its bytes, by the rules of Python's slices; a step other than 1 is a ``TypeError``.
    fn __getitem__(slf: Bound<'_, Self>, range: &Bound<'_, PyAny>) -> PyResult<RegionSlice> {
        let (offset, size) = inside(range, slf.get().size)?;
        Ok(RegionSlice { region: slf.unbind(), offset, size })
    }

    fn __repr__(&self) -> String {
        let state = if self.is_closed() { ", closed" } else { "" };
        format!("Region({:#x}, {} bytes{state})", self.address, self.size)
    }
}

/// A range of a :class:`Region`, which it keeps: what ``region[a:b]`` gives. Calls take it where they take a region.
///
/// It copies nothing, and ends with its region. It can be sliced again, and be empty: empty pieces are left out of transfers.
#[pyclass(frozen, module = "flagcx_p2p")]
#[derive(Debug)]
pub(crate) struct RegionSlice {
    pub(crate) region: Py<Region>,
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

#[pymethods]
impl RegionSlice {
    /// The region that it is a part of.
    #[getter]
    fn region(&self, py: Python<'_>) -> Py<Region> {
        self.region.clone_ref(py)
    }

    /// Where it begins in memory.
    #[getter]
    fn address(&self) -> u64 {
        self.region.get().address + self.offset
    }

    /// Where it begins in its region, in bytes.
    #[getter]
    fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes.
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

    /// A range of this one, by the rules of Python's slices.
    fn __getitem__(&self, py: Python<'_>, range: &Bound<'_, PyAny>) -> PyResult<Self> {
        let (offset, size) = inside(range, self.size)?;
        Ok(Self { region: self.region.clone_ref(py), offset: self.offset + offset, size })
    }

    fn __repr__(&self) -> String {
        format!("RegionSlice({:#x}, {} bytes)", self.address(), self.size)
    }
}

/// Offset and size of a slice of so many bytes.
fn inside(range: &Bound<'_, PyAny>, size: u64) -> PyResult<(u64, u64)> {
    let Ok(range) = range.cast::<PySlice>() else {
        return Err(PyTypeError::new_err(
            "a region has ranges, not elements: region[a:b] is one. Its bytes are those of the buffer that was registered",
        ));
    };
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

/// Names the buffer in an error of it.
fn of_buffer(py: Python<'_>, index: usize, error: &PyErr) -> PyErr {
    PyErr::from_type(error.get_type(py), format!("buffer {index}: {}; none was registered", error.value(py)))
}

fn access(read_only: bool) -> Access {
    if read_only { Access::READ_ONLY } else { Access::FULL }
}

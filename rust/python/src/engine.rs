//! Engines.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flagcx_p2p::{Config, Engine as CoreEngine, EngineOptions};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::connection::Connection;
use crate::errors::refused;
use crate::info::SlowTransfer;
use crate::kept::Kept;
use crate::notification::{self, Notification};
use crate::region::{Region, Registration};
use crate::shared_memory::SharedMemory;
use crate::{logging, process};

/// An engine, and what its Python objects share.
#[derive(Debug)]
pub(crate) struct Shared {
    core: Arc<CoreEngine>,
    pub(crate) kept: Kept,
    /// Set once by the thread that closes it, and read by every call: the engine itself refuses what comes too late, so Relaxed.
    closed: AtomicBool,
}

impl Shared {
    /// The engine, if it is open and of this process.
    pub(crate) fn core(&self) -> PyResult<&Arc<CoreEngine>> {
        self.core.here().map_err(refused)?;
        if self.is_closed() {
            return Err(refused("the engine is closed"));
        }
        Ok(&self.core)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Ends the engine, and gives up the memory that it keeps. Does nothing in a forked process.
    pub(crate) fn close(&self, py: Python<'_>) {
        if self.core.here().is_err() {
            return;
        }
        self.closed.store(true, Ordering::Relaxed);
        py.detach(|| self.core.close());
        self.kept.release_all();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // An interpreter that has ended has no lock to release.
        if Python::try_attach(|py| self.close(py)).is_none() {
            self.core.close();
        }
    }
}

/// See `_native.pyi`.
#[pyclass(frozen, module = "flagcx_p2p", weakref)]
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) shared: Arc<Shared>,
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (*, gpu = 0, settings = None))]
    fn new(py: Python<'_>, gpu: i32, settings: Option<HashMap<String, String>>) -> PyResult<Self> {
        logging::start();
        let config = match settings {
            None => Config::global(),
            Some(settings) => Arc::new(Config::from_source(&|name| {
                settings.get(name).cloned().or_else(|| std::env::var(name).ok())
            })),
        };
        let options = EngineOptions { gpu_index: gpu, ..EngineOptions::default() };
        let core = py.detach(|| CoreEngine::open(config, options)).map_err(refused)?;
        let shared = Arc::new(Shared { core, kept: Kept::default(), closed: AtomicBool::new(false) });
        process::remember(Arc::downgrade(&shared));
        Ok(Self { shared })
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, pyo3::types::PyTuple>) {
        self.close(py);
    }

    fn close(&self, py: Python<'_>) {
        self.shared.close(py);
    }

    #[getter]
    fn closed(&self) -> bool {
        self.shared.is_closed()
    }

    #[getter]
    fn port(&self) -> PyResult<u16> {
        self.shared.core()?.rpc_port().ok_or_else(|| refused("the engine has no listener: see its log"))
    }

    #[getter]
    fn address(&self) -> PyResult<String> {
        Ok(self.shared.core()?.address().to_string())
    }

    #[getter]
    fn session(&self) -> PyResult<String> {
        let metadata = self.shared.core()?.metadata().map_err(refused)?;
        Ok(metadata.split('?').next().unwrap_or_default().to_owned())
    }

    fn start_server(&self, py: Python<'_>) -> PyResult<()> {
        let core = self.shared.core()?;
        py.detach(|| core.start_rpc_server()).map_err(refused)
    }

    fn connect(&self, py: Python<'_>, session: &str) -> PyResult<Connection> {
        let core = self.shared.core()?;
        let connection = py.detach(|| core.session(session)).map_err(refused)?;
        Ok(Connection::new(Arc::clone(&self.shared), connection))
    }

    #[pyo3(signature = (buffer, *, announced = true, read_only = None, fd = None, offset = 0))]
    fn register(
        &self,
        py: Python<'_>,
        buffer: &Bound<'_, PyAny>,
        announced: bool,
        read_only: Option<bool>,
        fd: Option<i32>,
        offset: u64,
    ) -> PyResult<Region> {
        let registration = Registration::of_object(buffer, announced, read_only, fd.map(|fd| (fd, offset)))?;
        Region::register(py, &self.shared, registration)
    }

    #[pyo3(signature = (address, size, *, device = None, announced = true, read_only = false))]
    fn register_address(
        &self,
        py: Python<'_>,
        address: u64,
        size: u64,
        device: Option<bool>,
        announced: bool,
        read_only: bool,
    ) -> PyResult<Region> {
        Region::register(
            py,
            &self.shared,
            Registration::of_address(address, size, device, announced, read_only),
        )
    }

    #[pyo3(signature = (size, *, huge = false, announced = true, read_only = false))]
    fn allocate(
        &self,
        py: Python<'_>,
        size: usize,
        huge: bool,
        announced: bool,
        read_only: bool,
    ) -> PyResult<Py<SharedMemory>> {
        SharedMemory::allocate(py, &self.shared, size, huge, announced, read_only)
    }

    fn notifications(&self, py: Python<'_>) -> PyResult<Vec<Notification>> {
        let core = self.shared.core()?;
        Ok(py.detach(|| core.take_all_notifications()).iter().map(notification::of).collect())
    }

    #[pyo3(signature = (older_than = 1.0))]
    fn slow_transfers(&self, py: Python<'_>, older_than: f64) -> PyResult<Vec<SlowTransfer>> {
        let older_than = Duration::try_from_secs_f64(older_than)
            .map_err(|error| PyValueError::new_err(format!("older_than {older_than}: {error}")))?;
        let core = self.shared.core()?;
        let found = py.detach(|| core.slow_transfers(older_than));
        Ok(found.into_iter().map(SlowTransfer::new).collect())
    }
}

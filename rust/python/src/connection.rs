//! Connections.

use std::sync::Arc;

use flagcx_p2p::{Connection as CoreConnection, Iov, Opcode, PathKind};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::engine::Shared;
use crate::errors::refused;
use crate::local::Local;
use crate::operation;
use crate::pieces::{self, RemoteKeys};
use crate::prepared::Prepared;
use crate::transfer::Transfer;

/// See `_native.pyi`.
#[pyclass(frozen, module = "flagcx_p2p", weakref)]
#[derive(Debug)]
pub(crate) struct Connection {
    shared: Arc<Shared>,
    core: Arc<CoreConnection>,
}

type Argument<'a, 'py> = Option<&'a Bound<'py, PyAny>>;

impl Connection {
    pub(crate) fn new(shared: Arc<Shared>, core: Arc<CoreConnection>) -> Self {
        Self { shared, core }
    }

    /// One piece, of a region or a slice of one.
    fn one(&self, local: &Bound<'_, PyAny>, remote: u64, offset: u64, size: Option<u64>) -> PyResult<Iov> {
        self.shared.core()?;
        let local_range = Local::of(local, &self.shared, offset, size)?;
        let remote = RemoteKeys::new(&self.core).find(local.py(), remote, local_range.size)?;
        Ok(Iov {
            local: local_range.address,
            length: local_range.size,
            region: Some(local_range.region),
            remote,
        })
    }

    fn many(
        &self,
        local: &Bound<'_, PyAny>,
        remote: Argument<'_, '_>,
        length: Argument<'_, '_>,
    ) -> PyResult<Vec<Iov>> {
        self.shared.core()?;
        pieces::of_call(&self.core, &self.shared, local, (remote, length))
    }

    fn run(&self, py: Python<'_>, opcode: Opcode, iovs: &[Iov], timeout: Option<f64>) -> PyResult<()> {
        operation::run(py, &self.shared, &self.core, opcode, iovs, timeout)
    }

    fn start(&self, py: Python<'_>, opcode: Opcode, iovs: &[Iov], block: bool) -> PyResult<Transfer> {
        let id = operation::start(py, &self.core, opcode, iovs, block)?;
        Ok(Transfer::new(Arc::clone(&self.core), id))
    }
}

#[pymethods]
impl Connection {
    #[pyo3(signature = (local, remote_address, offset = 0, size = None, *, timeout = None))]
    fn write(
        &self,
        local: &Bound<'_, PyAny>,
        remote_address: u64,
        offset: u64,
        size: Option<u64>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let iov = self.one(local, remote_address, offset, size)?;
        self.run(local.py(), Opcode::Write, &[iov], timeout)
    }

    #[pyo3(signature = (local, remote_address, offset = 0, size = None, *, timeout = None))]
    fn read(
        &self,
        local: &Bound<'_, PyAny>,
        remote_address: u64,
        offset: u64,
        size: Option<u64>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let iov = self.one(local, remote_address, offset, size)?;
        self.run(local.py(), Opcode::Read, &[iov], timeout)
    }

    #[pyo3(signature = (local, remote = None, length = None, *, timeout = None))]
    fn write_many(
        &self,
        local: &Bound<'_, PyAny>,
        remote: Argument<'_, '_>,
        length: Argument<'_, '_>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        self.run(local.py(), Opcode::Write, &self.many(local, remote, length)?, timeout)
    }

    #[pyo3(signature = (local, remote = None, length = None, *, timeout = None))]
    fn read_many(
        &self,
        local: &Bound<'_, PyAny>,
        remote: Argument<'_, '_>,
        length: Argument<'_, '_>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        self.run(local.py(), Opcode::Read, &self.many(local, remote, length)?, timeout)
    }

    #[pyo3(signature = (local, remote = None, length = None, *, block = true))]
    fn start_write(
        &self,
        local: &Bound<'_, PyAny>,
        remote: Argument<'_, '_>,
        length: Argument<'_, '_>,
        block: bool,
    ) -> PyResult<Transfer> {
        self.start(local.py(), Opcode::Write, &self.many(local, remote, length)?, block)
    }

    #[pyo3(signature = (local, remote = None, length = None, *, block = true))]
    fn start_read(
        &self,
        local: &Bound<'_, PyAny>,
        remote: Argument<'_, '_>,
        length: Argument<'_, '_>,
        block: bool,
    ) -> PyResult<Transfer> {
        self.start(local.py(), Opcode::Read, &self.many(local, remote, length)?, block)
    }

    #[pyo3(signature = (operation, local, remote = None, length = None))]
    fn prepare(
        &self,
        operation: &str,
        local: &Bound<'_, PyAny>,
        remote: Argument<'_, '_>,
        length: Argument<'_, '_>,
    ) -> PyResult<Prepared> {
        let opcode = match operation {
            "read" => Opcode::Read,
            "write" => Opcode::Write,
            other => {
                return Err(PyValueError::new_err(format!("expected \"read\" or \"write\", got {other:?}")));
            }
        };
        let iovs = self.many(local, remote, length)?;
        let (shared, connection) = (Arc::clone(&self.shared), Arc::clone(&self.core));
        Ok(Prepared { shared, connection, opcode, iovs })
    }

    #[pyo3(signature = (name, content = None))]
    fn notify(&self, py: Python<'_>, name: &[u8], content: Option<&[u8]>) -> PyResult<()> {
        self.shared.core()?;
        let content = content.unwrap_or_default();
        py.detach(|| self.core.send_notification_bytes(name, content)).map_err(refused)?;
        Ok(())
    }

    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        self.shared.core()?;
        let info = self.core.info();
        CLASS.import(py, "flagcx_p2p._types", "ConnectionInfo")?.call1((
            path(info.path),
            info.lanes,
            info.healthy_lanes,
            info.local,
            info.ours,
            info.gpu_index,
            info.peer,
            path(info.paths.read),
            path(info.paths.write),
        ))
    }

    #[getter]
    fn closed(&self) -> bool {
        self.shared.is_closed() || !self.core.is_usable()
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.core.close());
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, pyo3::types::PyTuple>) {
        self.close(py);
    }

    fn __repr__(&self) -> String {
        format!("<flagcx_p2p.Connection to {}>", self.core.peer().control)
    }
}

fn path(kind: PathKind) -> &'static str {
    kind.name()
}

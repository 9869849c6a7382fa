//! Transfers that are made many times.

use std::sync::Arc;

use flagcx_p2p::{Connection as CoreConnection, Iov, Opcode};
use pyo3::prelude::*;

use crate::note::Note;
use crate::shared::Shared;
use crate::transfer::{self, Transfer};
use crate::{number, operation, single};

/// A transfer that is made many times, of `Connection.prepare`: its pieces are checked once, and each start costs what it does in Rust.
///
/// It remains valid as long as its connection and the regions at both ends; a start on a region that has been closed is refused, or
/// fails. Any method may be called from any thread, also while earlier transfers of it are under way.
#[pyclass(frozen, module = "flagcx_p2p", weakref)]
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) shared: Arc<Shared>,
    pub(crate) connection: Arc<CoreConnection>,
    pub(crate) opcode: Opcode,
    pub(crate) iovs: Vec<Iov>,
}

#[pymethods]
impl Prepared {
    /// Starts it, as `Connection.start_write` and `start_read` do. Raises ValueError if it has no pieces.
    #[pyo3(signature = (*, block = true, notify = None))]
    fn start(&self, py: Python<'_>, block: bool, notify: Option<Note>) -> PyResult<Transfer> {
        self.shared.core()?;
        let start = || operation::start(py, &self.connection, self.opcode, &self.iovs, block);
        Ok(transfer::begin(py, &self.shared, &self.connection, start, notify)?)
    }

    /// Makes it and waits for its end, as `Connection.write_many` and `read_many` do.
    #[pyo3(signature = (*, timeout = None))]
    fn run(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = number::timeout)] timeout: Option<f64>,
    ) -> PyResult<()> {
        self.shared.core()?;
        operation::run(py, &self.shared, &self.connection, self.opcode, &self.iovs, timeout)
    }

    /// The number of its pieces.
    fn __len__(&self) -> usize {
        self.iovs.len()
    }

    fn __reduce__(slf: &Bound<'_, Self>) -> PyResult<()> {
        Err(single::not_copied(slf.get_type().name()?, "prepare it on a Connection of the other process"))
    }

    fn __repr__(&self) -> String {
        let (count, peer) = (self.iovs.len(), self.connection.peer().control);
        let direction = if self.opcode == Opcode::Read { "read" } else { "write" };
        format!("<flagcx_p2p.Prepared {direction} of {count} pieces with {peer}>")
    }
}

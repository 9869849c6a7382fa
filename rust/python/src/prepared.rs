//! Transfers that are made many times.

use std::sync::Arc;

use flagcx_p2p::{Connection as CoreConnection, Iov, Opcode};
use pyo3::prelude::*;

use crate::engine::Shared;
use crate::operation;
use crate::transfer::Transfer;

/// See `_native.pyi`.
#[pyclass(frozen, module = "flagcx_p2p")]
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) shared: Arc<Shared>,
    pub(crate) connection: Arc<CoreConnection>,
    pub(crate) opcode: Opcode,
    pub(crate) iovs: Vec<Iov>,
}

#[pymethods]
impl Prepared {
    #[pyo3(signature = (*, block = true))]
    fn start(&self, py: Python<'_>, block: bool) -> PyResult<Transfer> {
        self.shared.core()?;
        let id = operation::start(py, &self.connection, self.opcode, &self.iovs, block)?;
        Ok(Transfer::new(Arc::clone(&self.connection), id))
    }

    #[pyo3(signature = (*, timeout = None))]
    fn run(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        operation::run(py, &self.shared, &self.connection, self.opcode, &self.iovs, timeout)
    }

    fn __len__(&self) -> usize {
        self.iovs.len()
    }
}

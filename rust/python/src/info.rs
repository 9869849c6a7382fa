//! What operators ask: versions, devices, metrics, transfers that do not end.

use std::time::Duration;

use flagcx_p2p::Direction;
#[cfg(feature = "metrics-endpoint")]
use flagcx_p2p::internals::endpoint;
use flagcx_p2p::internals::{config, engine, observe};
use pyo3::prelude::*;

use crate::errors::refused;
use crate::named::NamedTuple;

/// The version of the package, "major.minor.patch".
#[pyfunction]
pub(crate) fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// The metrics of this process in the text format of Prometheus (OpenMetrics), as the metrics endpoint serves them.
///
/// Any thread may call it; it takes each worker's lock for a moment.
#[pyfunction]
pub(crate) fn metrics_text(py: Python<'_>) -> PyResult<String> {
    py.detach(|| observe::prometheus_text(&observe::registry().snapshot())).map_err(refused)
}

/// The number of devices, the provider and why it was chosen.
#[pyfunction]
pub(crate) fn fabric_info(py: Python<'_>) -> PyResult<(usize, String, String)> {
    crate::logging::start();
    let list = py.detach(|| engine::devices(config::global())).map_err(refused)?;
    let selection = list.selection();
    let provider = selection.provider.map_or_else(String::new, |provider| provider.to_string());
    Ok((list.devices().len(), provider, selection.reason.clone()))
}

/// What `/snapshot` of the metrics endpoint answers, as a dictionary.
#[cfg(feature = "metrics-endpoint")]
pub(crate) fn snapshot(py: Python<'_>, uptime: Duration) -> PyResult<Bound<'_, PyAny>> {
    let text = py.detach(|| endpoint::snapshot(uptime)).map_err(refused)?;
    py.import("json")?.call_method1("loads", (text,))
}

#[cfg(not(feature = "metrics-endpoint"))]
pub(crate) fn snapshot(_: Python<'_>, _: Duration) -> PyResult<Bound<'_, PyAny>> {
    Err(refused(
        "this package was built without the metrics endpoint, which writes snapshots: build it with its default features",
    ))
}

/// Becomes a `flagcx_p2p.SlowTransfer`.
#[derive(Debug)]
pub(crate) struct SlowTransfer {
    transfer: flagcx_p2p::SlowTransfer,
    is_read: bool,
}

impl SlowTransfer {
    pub(crate) fn new(transfer: flagcx_p2p::SlowTransfer) -> Self {
        let is_read = transfer.opcode == Direction::Read;
        Self { transfer, is_read }
    }
}

impl<'py> IntoPyObject<'py> for SlowTransfer {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static CLASS: NamedTuple = NamedTuple::new("SlowTransfer");
        let found = self.transfer;
        let fields = (
            found.id,
            found.peer,
            self.is_read,
            found.path,
            found.bytes,
            found.lanes,
            found.pieces,
            found.pieces_done,
            found.age.as_secs_f64(),
        );
        CLASS.of(py, fields)
    }
}

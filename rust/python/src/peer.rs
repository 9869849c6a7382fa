//! A peer of a directory, as Python sees it.

use pyo3::prelude::*;

use crate::named::NamedTuple;

/// Becomes a `flagcx_p2p.Peer`.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) kind: String,
    pub(crate) version: String,
    pub(crate) host: String,
    pub(crate) pid: u32,
    pub(crate) since: f64,
}

impl<'py> IntoPyObject<'py> for Peer {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static CLASS: NamedTuple = NamedTuple::new("Peer");
        let Self { name, address, kind, version, host, pid, since } = self;
        CLASS.of(py, (name, address, kind, version, host, pid, since))
    }
}

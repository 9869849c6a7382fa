//! Notifications, as Python gets them.

use flagcx_p2p::Notification as CoreNotification;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyType};

/// Becomes a `flagcx_p2p.Notification`.
#[derive(Debug)]
pub(crate) struct Notification {
    name: Vec<u8>,
    content: Vec<u8>,
}

/// Of what the engine has received: the name without the zeros that fill it up.
pub(crate) fn of(received: &CoreNotification) -> Notification {
    let name = received.name();
    let end = name.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    Notification { name: name.get(..end).unwrap_or_default().to_vec(), content: received.content().to_vec() }
}

impl<'py> IntoPyObject<'py> for Notification {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let class = CLASS.import(py, "flagcx_p2p._types", "Notification")?;
        class.call1((PyBytes::new(py, &self.name), PyBytes::new(py, &self.content)))
    }
}

//! Transfers under way.

use std::sync::{Arc, Mutex, PoisonError};

use flagcx_p2p::{Connection as CoreConnection, Outcome, Status, TransferId};
use pyo3::exceptions::PyTimeoutError;
use pyo3::prelude::*;

use crate::errors::{of_outcome, refused};
use crate::{single, waiting};

/// See `_native.pyi`.
#[pyclass(frozen, module = "flagcx_p2p", weakref)]
#[derive(Debug)]
pub(crate) struct Transfer {
    connection: Arc<CoreConnection>,
    id: TransferId,
    /// Once it is known.
    outcome: Mutex<Option<Outcome>>,
}

impl Transfer {
    pub(crate) fn new(connection: Arc<CoreConnection>, id: TransferId) -> Self {
        let outcome = Mutex::new((id == TransferId::COMPLETE).then_some(Outcome::Done));
        Self { connection, id, outcome }
    }

    /// Waits, and raises what it ended as.
    pub(crate) fn wait_for(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let deadline = waiting::deadline(timeout)?;
        let outcome = match self.known() {
            Some(outcome) => outcome,
            None => match waiting::wait(py, &self.connection, self.id, deadline)? {
                Some(outcome) => self.settle(outcome),
                None => {
                    let seconds = timeout.unwrap_or_default();
                    return Err(PyTimeoutError::new_err(format!(
                        "the transfer is not over after {seconds} s"
                    )));
                }
            },
        };
        of_outcome(py, self.id, &self.peer(), &outcome).map_or(Ok(()), Err)
    }

    /// Ends it, whatever becomes of it.
    pub(crate) fn abandon(&self, py: Python<'_>) {
        py.detach(|| self.connection.cancel(self.id));
        self.look();
    }

    fn known(&self) -> Option<Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn settle(&self, outcome: Outcome) -> Outcome {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(outcome).clone()
    }

    /// How it ended, if it has.
    fn look(&self) -> Option<Outcome> {
        self.known().or_else(|| match self.connection.status(self.id) {
            Status::Ended(outcome) => Some(self.settle(outcome)),
            Status::Pending | Status::Unknown => None,
        })
    }

    fn peer(&self) -> String {
        self.connection.peer().control.to_string()
    }
}

#[pymethods]
impl Transfer {
    #[getter]
    fn id(&self) -> u64 {
        self.id.0
    }

    fn done(&self) -> PyResult<bool> {
        self.connection.here().map_err(refused)?;
        Ok(self.look().is_some())
    }

    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        self.wait_for(py, timeout)
    }

    fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        self.connection.here().map_err(refused)?;
        if self.known().is_none() {
            self.abandon(py);
        }
        Ok(())
    }

    fn __reduce__(slf: &Bound<'_, Self>) -> PyResult<()> {
        let advice = "wait for it here, and tell the other process how it ended";
        Err(single::not_copied(slf.get_type().name()?, advice))
    }

    fn __repr__(&self) -> String {
        let state =
            self.known().map_or_else(|| "not known to have ended".to_owned(), |outcome| outcome.to_string());
        format!("<flagcx_p2p.Transfer {:#x} with {}: {state}>", self.id.0, self.peer())
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        // It goes on, and gives its id back at its end.
        if self.known().is_none() {
            self.connection.release_at_end(self.id);
        }
    }
}

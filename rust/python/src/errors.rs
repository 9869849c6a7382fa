//! What Python raises: the classes of `flagcx_p2p._errors`.

use std::fmt::Display;

use flagcx_p2p::{CompletionStatus, Failure, Outcome, TransferId};
use pyo3::exceptions::{PyRuntimeError, PySystemExit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::process;

/// The class of that name, or `RuntimeError` where the package itself cannot be imported.
macro_rules! class {
    ($py:expr, $name:literal) => {{
        static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        CLASS.import($py, "flagcx_p2p._errors", $name)
    }};
}

/// A `P2pError` with the text of `error`.
pub(crate) fn refused(error: impl Display) -> PyErr {
    Python::attach(|py| new_error(class!(py, "P2pError"), (error.to_string(),)))
}

/// A `QueueFull`: there is no room for another transfer now.
pub(crate) fn queue_full(error: impl Display) -> PyErr {
    Python::attach(|py| new_error(class!(py, "QueueFull"), (error.to_string(),)))
}

/// A `NotPublished`: the directory does not have the name.
#[cfg(feature = "directory")]
pub(crate) fn not_published(error: impl Display) -> PyErr {
    Python::attach(|py| new_error(class!(py, "NotPublished"), (error.to_string(),)))
}

/// A `NameInUse`: another engine holds the name, and answers.
#[cfg(feature = "directory")]
pub(crate) fn name_in_use(error: impl Display) -> PyErr {
    Python::attach(|py| new_error(class!(py, "NameInUse"), (error.to_string(),)))
}

/// The error of a transfer that has ended otherwise than done; `None` if it is done.
pub(crate) fn of_outcome(py: Python<'_>, id: TransferId, peer: &str, outcome: &Outcome) -> Option<PyErr> {
    Some(match outcome {
        Outcome::Done => return None,
        Outcome::TimedOut => timed_out(
            py,
            id,
            peer,
            format!(
                "the transfer with {peer} was not over at its deadline (FLAGCX_P2P_XFER_TIMEOUT_MS), and was stopped"
            ),
        ),
        Outcome::Cancelled => new_error(
            class!(py, "TransferCancelled"),
            stopped(
                id,
                peer,
                format!(
                    "the transfer with {peer} was cancelled: by a call, or with its connection or engine"
                ),
            ),
        ),
        Outcome::Failed(failure) => new_error(class!(py, "TransferFailed"), failed(id, failure)),
    })
}

/// A `TransferTimedOut`.
pub(crate) fn timed_out(py: Python<'_>, id: TransferId, peer: &str, text: String) -> PyErr {
    new_error(class!(py, "TransferTimedOut"), stopped(id, peer, text))
}

/// The arguments of `flagcx_p2p._errors.TransferFailed`.
type Arguments = (String, u64, usize, u32, String, String);

/// Of a transfer that ended before its completion: no piece of it is to blame.
fn stopped(id: TransferId, peer: &str, text: String) -> Arguments {
    let status = CompletionStatus::Flushed;
    (text, id.0, 0, status as u32, status.to_string(), peer.to_owned())
}

fn failed(id: TransferId, failure: &Failure) -> Arguments {
    let text = format!("the transfer failed: {failure}");
    (text, id.0, failure.iov, failure.status as u32, failure.status.to_string(), failure.peer.clone())
}

fn new_error<A>(class: PyResult<&Bound<'_, PyType>>, arguments: A) -> PyErr
where
    A: pyo3::PyErrArguments + Send + Sync + 'static,
{
    if process::ends_this_thread() {
        return PySystemExit::new_err(());
    }
    match class {
        Ok(class) => PyErr::from_type(class.clone(), arguments),
        // The package is not importable, as when the interpreter ends.
        Err(_) => PyRuntimeError::new_err(arguments),
    }
}

//! Which interpreter of a process may have the engine: the main one.
#![allow(
    unsafe_code,
    reason = "pyo3 has no safe form of the two functions that say which interpreter is running"
)]

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;

/// Fails in all but the main interpreter.
///
/// pyo3 itself lets the first one have a module, whichever that is, and refuses the others: a subinterpreter that came first would keep the
/// main one out. From Python 3.12 on, those with a lock of their own do not get here: Python refuses them.
pub(crate) fn refuse_subinterpreters(_py: Python<'_>) -> PyResult<()> {
    // SAFETY: the token shows that this thread is attached to an interpreter, which `PyInterpreterState_Get` needs; that interpreter, and so
    // its state, exists until the thread is detached.
    let number = unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) };
    if number == MAIN {
        return Ok(());
    }
    Err(PyImportError::new_err(
        "flagcx_p2p cannot be used in subinterpreters, because its classes and threads are the process's: import it in the main interpreter",
    ))
}

/// CPython counts from here, also when it is initialised again.
const MAIN: i64 = 0;

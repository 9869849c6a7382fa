//! Numbers that Python gives.

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;

/// An address, an offset or a number of bytes: 0 to 2**64 - 1.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Number(pub(crate) u64);

impl<'py> FromPyObject<'_, 'py> for Number {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        object.extract::<u64>().map(Self).map_err(|error| {
            whole(&object, error, |number| {
                format!("{number} is out of range: addresses, offsets and sizes are from 0 to 2**64 - 1")
            })
        })
    }
}

/// The argument `gpu`.
pub(crate) fn gpu(object: &Bound<'_, PyAny>) -> PyResult<Option<i32>> {
    if object.is_none() {
        return Ok(None);
    }
    object.extract().map(Some).map_err(|error| {
        whole(object, error, |number| {
            format!("gpu={number} is out of range: the index of a GPU, 0 for the first")
        })
    })
}

/// The argument `fd`.
pub(crate) fn fd(object: &Bound<'_, PyAny>) -> PyResult<Option<i32>> {
    if object.is_none() {
        return Ok(None);
    }
    object.extract().map(Some).map_err(|error| {
        whole(object, error, |number| {
            format!("fd={number} is out of range: the descriptor of an open file, as of fileno()")
        })
    })
}

/// The argument `timeout`.
pub(crate) fn timeout(object: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
    if object.is_none() { Ok(None) } else { seconds(object, "timeout").map(Some) }
}

/// The argument `older_than`.
pub(crate) fn older_than(object: &Bound<'_, PyAny>) -> PyResult<f64> {
    seconds(object, "older_than")
}

fn seconds(object: &Bound<'_, PyAny>, name: &str) -> PyResult<f64> {
    object.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(object.py()) {
            return PyValueError::new_err(format!(
                "{name} is a number of seconds: this one is beyond a float"
            ));
        }
        error
    })
}

/// What a program raises by `__index__`, or a signal's handler meanwhile, stays as it is.
#[cold]
fn whole<'py>(
    object: &Bound<'py, PyAny>,
    error: PyErr,
    out_of_range: impl FnOnce(&Bound<'py, PyAny>) -> String,
) -> PyErr {
    let py = object.py();
    if error.is_instance_of::<PyOverflowError>(py) {
        return PyValueError::new_err(out_of_range(object));
    }
    if !error.is_instance_of::<PyTypeError>(py) {
        return error;
    }
    let class =
        object.get_type().name().map_or_else(|_| "another object".to_owned(), |name| name.to_string());
    PyTypeError::new_err(format!("a whole number was expected, got {class}"))
}

//! Numbers that Python gives.

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;

/// An address, an offset or a number of bytes: 0 to 2**64 - 1.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Number(pub(crate) u64);

impl<'py> FromPyObject<'_, 'py> for Number {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        object.extract::<u64>().map(Self).map_err(|error| refused(object, &error))
    }
}

#[cold]
fn refused(object: Borrowed<'_, '_, PyAny>, error: &PyErr) -> PyErr {
    if error.is_instance_of::<PyOverflowError>(object.py()) {
        let text =
            format!("{} is out of range: addresses, offsets and sizes are from 0 to 2**64 - 1", &*object);
        return PyValueError::new_err(text);
    }
    let class =
        object.get_type().name().map_or_else(|_| "another object".to_owned(), |name| name.to_string());
    PyTypeError::new_err(format!("a whole number was expected, got {class}"))
}

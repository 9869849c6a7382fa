//! Columns of numbers, as Python names many pieces at once.

use pyo3::buffer::{Element, PyBuffer, PyUntypedBuffer};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyInt;

use crate::number::Number;

/// Whole numbers of 64 bits.
#[derive(Debug)]
pub(crate) enum Column {
    /// The same for all pieces.
    One(u64),
    Many(Vec<u64>),
}

impl Column {
    /// Of a number, an array of 64-bit integers (numpy, `array.array`), or a sequence of numbers. Errors name the column.
    pub(crate) fn of(object: &Bound<'_, PyAny>, name: &str) -> PyResult<Self> {
        if object.cast::<PyInt>().is_ok() {
            return number(object, || name.to_owned()).map(Self::One);
        }
        if let Some(numbers) = array::<u64>(object, name)? {
            return Ok(Self::Many(numbers));
        }
        if let Some(numbers) = array::<i64>(object, name)? {
            if let Some(index) = numbers.iter().position(|number| *number < 0) {
                let number = numbers.get(index).copied().unwrap_or_default();
                return Err(PyValueError::new_err(format!(
                    "{name}[{index}] is {number}: addresses and lengths are not negative"
                )));
            }
            return Ok(Self::Many(numbers.into_iter().map(|number| number as u64).collect()));
        }
        if let Ok(number) = object.extract() {
            return Ok(Self::One(number));
        }
        let length = object.len().unwrap_or_default();
        let is_array = object.hasattr("dtype")? || PyUntypedBuffer::get(object).is_ok();
        if length > 0 && is_array || !object.hasattr("__iter__")? {
            return Err(other_type(object, name));
        }
        let mut numbers = Vec::with_capacity(length);
        let elements = object.try_iter().map_err(|_| other_type(object, name))?;
        for (index, element) in elements.enumerate() {
            numbers.push(number(&element?, || format!("{name}[{index}]"))?);
        }
        Ok(Self::Many(numbers))
    }

    /// How many pieces it names; `None` for any number of them.
    pub(crate) fn len(&self) -> Option<usize> {
        match self {
            Self::One(_) => None,
            Self::Many(numbers) => Some(numbers.len()),
        }
    }

    /// The number of a piece.
    #[inline(always)]
    pub(crate) fn at(&self, index: usize) -> Option<u64> {
        match self {
            Self::One(number) => Some(*number),
            Self::Many(numbers) => numbers.get(index).copied(),
        }
    }
}

/// How formats of the order of bytes begin that is not this machine's.
const OTHER_ORDER: &[u8] = if cfg!(target_endian = "little") { b">!" } else { b"<" };

/// The numbers of an array of that type, in native order; `None` if it is none.
fn array<T: Element>(object: &Bound<'_, PyAny>, name: &str) -> PyResult<Option<Vec<T>>> {
    let Ok(buffer) = PyBuffer::<T>::get(object) else { return Ok(None) };
    // Arrays in the other order are taken for native ones otherwise.
    if buffer.format().to_bytes().first().is_some_and(|order| OTHER_ORDER.contains(order)) {
        return Ok(None);
    }
    if buffer.dimensions() != 1 {
        return Err(PyValueError::new_err(format!(
            "{name} has {} dimensions where one was expected: {name}.ravel() makes it one",
            buffer.dimensions()
        )));
    }
    buffer.to_vec(object.py()).map(Some)
}

fn number(object: &Bound<'_, PyAny>, name: impl FnOnce() -> String) -> PyResult<u64> {
    let found: PyResult<Number> = object.extract();
    found.map(|number| number.0).map_err(|error| {
        let py = object.py();
        PyErr::from_type(error.get_type(py), format!("{}: {}", name(), error.value(py)))
    })
}

fn other_type(object: &Bound<'_, PyAny>, name: &str) -> PyErr {
    let class =
        object.get_type().name().map_or_else(|_| "another object".to_owned(), |name| name.to_string());
    let kind = object.getattr("dtype").map_or(class, |dtype| format!("an array of {dtype}"));
    PyTypeError::new_err(format!(
        "{name} is {kind}: expected an array of 64-bit whole numbers (numpy.uint64, numpy.int64, array.array(\"Q\")), a sequence of \
         numbers, or one number for all pieces; {name}.astype(numpy.uint64) converts an array"
    ))
}

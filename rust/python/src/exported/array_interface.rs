//! `__cuda_array_interface__` and `__array_interface__`: one dictionary for memory of a GPU and of the host.
//!
//! Specifications: version 3 of <https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html> and of
//! <https://numpy.org/doc/stable/reference/arrays.interface.html>.

use flagcx_p2p::MemoryKind;
use pyo3::exceptions::{PyBufferError, PyKeyError};
use pyo3::prelude::*;

use super::layout::{count, is_contiguous, not_contiguous};
use super::{Exported, name, place, require_bytes};

/// By `__cuda_array_interface__`. Its stream is not waited for: that matters when bytes are moved, not here.
pub(super) fn of_gpu(object: &Bound<'_, PyAny>) -> PyResult<Option<Exported>> {
    const NAME: &str = "__cuda_array_interface__";
    let Some(interface) = object.getattr_opt(NAME)? else { return Ok(None) };
    let found = Described::read(object, &interface, NAME)?;
    if let Some(stream) = found.optional::<i64>("stream")?
        && stream == 0
    {
        return Err(
            found.malformed("its stream is 0, which version 3 leaves no meaning: 1 is the default stream")
        );
    }
    let kind = place::of_gpu(found.address, &name(object))?;
    found.export(kind).map(Some)
}

/// By `__array_interface__`.
pub(super) fn of_host(object: &Bound<'_, PyAny>) -> PyResult<Option<Exported>> {
    const NAME: &str = "__array_interface__";
    let Some(interface) = object.getattr_opt(NAME)? else { return Ok(None) };
    Described::read(object, &interface, NAME)?.export(MemoryKind::Host).map(Some)
}

/// What the dictionary says.
struct Described<'a, 'py> {
    object: &'a Bound<'py, PyAny>,
    interface: &'a Bound<'py, PyAny>,
    name: &'static str,
    address: u64,
    size: u64,
    read_only: bool,
}

impl<'a, 'py> Described<'a, 'py> {
    fn read(
        object: &'a Bound<'py, PyAny>,
        interface: &'a Bound<'py, PyAny>,
        name: &'static str,
    ) -> PyResult<Self> {
        let mut found = Self { object, interface, name, address: 0, size: 0, read_only: false };
        let shape: Vec<i64> = found.required("shape")?;
        let element = found.element()?;
        let elements = count(&shape).and_then(|elements| elements.checked_mul(element));
        found.size = elements.ok_or_else(|| found.malformed("its shape is not one of memory"))?;
        require_bytes(object, found.size)?;
        (found.address, found.read_only) = found.required("data")?;
        if found.address == 0 {
            return Err(found.malformed("its address is 0"));
        }
        if found.optional::<Bound<'_, PyAny>>("mask")?.is_some() {
            return Err(found
                .malformed("it has a mask, and a region has all of its bytes: register the array without"));
        }
        let strides: Option<Vec<i64>> = found.optional("strides")?;
        if !is_contiguous(&shape, strides.as_deref(), element as i64) {
            let remedy =
                "a contiguous copy (ascontiguousarray of its library), or the whole of which it is a view";
            return Err(not_contiguous(&super::name(object), remedy));
        }
        Ok(found)
    }

    /// Bytes of an element: what "typestr" ends in, as in "<f4"; characters have 4 each. Dates go on: `<M8[ns]`.
    fn element(&self) -> PyResult<u64> {
        let text: String = self.required("typestr")?;
        let mut letters = text.chars().skip(1);
        let kind = letters.next();
        let number: String = letters.take_while(char::is_ascii_digit).collect();
        match (kind, number.parse::<u32>()) {
            (Some('U'), Ok(characters)) => Ok(u64::from(characters) * 4),
            (Some('O' | 't'), _) | (None, _) | (_, Err(_)) => Err(self
                .malformed(&format!("elements of type {text:?} have no bytes that mean anything to a peer"))),
            (_, Ok(bytes)) => Ok(u64::from(bytes)),
        }
    }

    fn export(self, kind: MemoryKind) -> PyResult<Exported> {
        let owner = self.object.clone().unbind();
        let (address, size, writable) = (self.address, self.size, !self.read_only);
        Ok(Exported { address, size, writable, kind, owner: Box::new(owner) })
    }

    fn required<T: for<'b> FromPyObject<'b, 'py>>(&self, key: &str) -> PyResult<T> {
        self.optional(key)?.ok_or_else(|| self.malformed(&format!("it has no {key:?}")))
    }

    /// `None` and what is not there are the same.
    fn optional<T: for<'b> FromPyObject<'b, 'py>>(&self, key: &str) -> PyResult<Option<T>> {
        let py = self.object.py();
        match self.interface.get_item(key) {
            Ok(value) if value.is_none() => Ok(None),
            Ok(value) => {
                let read = value.extract().map_err(Into::<PyErr>::into);
                read.map(Some).map_err(|error| self.malformed(&format!("its {key:?}: {}", error.value(py))))
            }
            Err(error) if error.is_instance_of::<PyKeyError>(py) => Ok(None),
            Err(error) => Err(self.malformed(&error.value(py).to_string())),
        }
    }

    fn malformed(&self, problem: &str) -> PyErr {
        PyBufferError::new_err(format!("{} of {} cannot be used: {problem}", self.name, name(self.object)))
    }
}

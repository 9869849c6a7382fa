//! Objects that stand for something of this process: they can be neither copied nor pickled.

use std::fmt::Display;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

/// Why an object of the class cannot be copied: two would end the same thing, and another process does not have it. `advice`: what to
/// do instead.
pub(crate) fn not_copied(class: impl Display, advice: &str) -> PyErr {
    PyTypeError::new_err(format!(
        "{class} objects can be neither copied nor pickled, because each stands for something that this process alone has: {advice}"
    ))
}

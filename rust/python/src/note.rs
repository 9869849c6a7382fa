//! What Python gives as a notification.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView, PyTuple};

/// Bytes of a name, at most, of either kind of notification.
const NAME_SIZE: usize = 256;

/// Bytes of a content that is sent within the call.
const SHORT: usize = 2048;

/// The name and the content of a notification, as every peer takes them but for the size of the content.
#[derive(Debug)]
pub(crate) struct Note {
    pub(crate) name: Vec<u8>,
    pub(crate) content: Vec<u8>,
}

impl Note {
    /// Of two buffers of bytes, without content if there is none.
    pub(crate) fn of(name: &Bound<'_, PyAny>, content: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let name = bytes(name, "name")?;
        if name.len() > NAME_SIZE {
            let text =
                format!("the name of a notification has at most {NAME_SIZE} bytes, got {}", name.len());
            return Err(PyValueError::new_err(text));
        }
        if name.contains(&0) {
            return Err(PyValueError::new_err("the name of a notification must have no NUL"));
        }
        let content = content.map(|content| bytes(content, "content")).transpose()?;
        Ok(Self { name, content: content.unwrap_or_default() })
    }

    pub(crate) fn is_short(&self) -> bool {
        self.content.len() <= SHORT
    }
}

/// A pair of the two, as `notify=` takes it.
impl<'py> FromPyObject<'_, 'py> for Note {
    type Error = PyErr;

    fn extract(pair: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let Ok(pair) = pair.cast::<PyTuple>() else {
            let class = class_of(&pair);
            return Err(PyTypeError::new_err(format!("a pair (name, content) was expected, got {class}")));
        };
        if pair.len() != 2 {
            let text = format!("a pair (name, content) was expected, got {} values", pair.len());
            return Err(PyValueError::new_err(text));
        }
        Self::of(&pair.get_item(0)?, Some(&pair.get_item(1)?))
    }
}

/// A copy of the bytes of a buffer.
fn bytes(object: &Bound<'_, PyAny>, what: &str) -> PyResult<Vec<u8>> {
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(bytes.as_bytes().to_vec());
    }
    let Ok(view) = PyMemoryView::from(object) else {
        let class = class_of(object);
        return Err(PyTypeError::new_err(format!(
            "the {what} of a notification is bytes, or another buffer, got {class}: a text as text.encode()"
        )));
    };
    Ok(view.call_method0("tobytes")?.cast::<PyBytes>()?.as_bytes().to_vec())
}

fn class_of(object: &Bound<'_, PyAny>) -> String {
    object.get_type().name().map_or_else(|_| "another object".to_owned(), |name| name.to_string())
}

//! Named tuples, made without a step of the interpreter.
//!
//! Calling a class of `typing.NamedTuple` runs its `__new__`, which is bytecode, and bytecode lets go of the interpreter's lock now and then. Before
//! Python 3.14 a daemon thread that then asks for the lock while the interpreter ends is ended by `pthread_exit`, which unwinds the frames of this
//! library: they would give references up without the lock, and `catch_unwind` aborts. So what threads call again and again runs no bytecode.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyTuple, PyType};

/// The class of `flagcx_p2p._types` of that name, which is looked for once.
pub(crate) struct NamedTuple {
    name: &'static str,
    class: PyOnceLock<Py<PyType>>,
}

impl NamedTuple {
    pub(crate) const fn new(name: &'static str) -> Self {
        Self { name, class: PyOnceLock::new() }
    }

    /// An instance of these fields, of which there must be as many as the class has.
    pub(crate) fn of<'py>(
        &self,
        py: Python<'py>,
        fields: impl IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error = PyErr>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.of_tuple(py, &fields.into_pyobject(py)?)
    }

    /// [`NamedTuple::of`] for more fields than a tuple of Rust may have there.
    pub(crate) fn of_tuple<'py>(
        &self,
        py: Python<'py>,
        fields: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        static NEW: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let class = self.class.import(py, "flagcx_p2p._types", self.name)?;
        let new = NEW.get_or_try_init(py, || {
            py.get_type::<PyTuple>().getattr(intern!(py, "__new__")).map(Bound::unbind)
        })?;
        new.bind(py).call1((class, fields))
    }
}

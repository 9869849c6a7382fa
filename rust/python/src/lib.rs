//! The native module of the Python package `flagcx_p2p`: the engine of `rust/core` as Python classes.
//!
//! ```text
//!  Engine ── register, allocate ──▶ Region, SharedMemory
//!     └──── connect ──────────────▶ Connection ── start_*, prepare ──▶ Transfer, Prepared
//! ```
//!
//! Python sees the names of `python/flagcx_p2p/_native.pyi`, which says what each means. Here is how:
//!
//! * The interpreter's lock (GIL) is held by short calls only. Those that wait release it, and look for signals five times a
//!   second: `waiting`.
//! * What a registration points to is kept alive by its engine until nothing touches it any more: `kept`.
//! * The errors are classes of `python/flagcx_p2p/_errors.py`: `errors`.
#![deny(unsafe_code)]

mod asking;
mod column;
mod connecting;
mod connection;
mod engine;
mod errors;
mod exported;
mod info;
mod interpreters;
mod kept;
mod local;
mod logging;
mod named;
#[cfg(feature = "directory")]
mod names;
#[cfg(not(feature = "directory"))]
#[path = "names_without.rs"]
mod names;
mod note;
mod notification;
mod notifier;
mod number;
mod operation;
mod peer;
mod pieces;
mod prepared;
mod process;
mod rails;
mod reactor;
mod region;
mod sending;
mod settings;
mod shared;
mod shared_memory;
mod single;
mod stats;
mod tool;
mod transfer;
mod waiting;

use pyo3::prelude::*;

/// The classes and functions that Python sees.
#[pymodule(name = "_native")]
fn native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // Before anything else is made: classes and locks are the process's here.
    interpreters::refuse_subinterpreters(module.py())?;
    module.add_class::<connection::Connection>()?;
    module.add_class::<engine::Engine>()?;
    module.add_class::<prepared::Prepared>()?;
    module.add_class::<reactor::LoopQueue>()?;
    module.add_class::<region::Region>()?;
    module.add_class::<region::RegionSlice>()?;
    module.add_class::<shared_memory::SharedMemory>()?;
    module.add_class::<transfer::Transfer>()?;
    module.add_function(wrap_pyfunction!(info::fabric_info, module)?)?;
    module.add_function(wrap_pyfunction!(info::metrics_text, module)?)?;
    module.add_function(wrap_pyfunction!(info::version, module)?)?;
    module.add_function(wrap_pyfunction!(process::close_all, module)?)?;
    module.add_function(wrap_pyfunction!(tool::run_tool, module)?)?;
    module.add_function(wrap_pyfunction!(waiting::seconds, module)?)
}

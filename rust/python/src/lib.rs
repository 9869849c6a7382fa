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
mod kept;
mod local;
mod logging;
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
mod reactor;
mod region;
mod sending;
mod settings;
mod shared_memory;
mod single;
mod stats;
mod tool;
mod transfer;
mod waiting;

use pyo3::prelude::*;

/// The classes and functions that Python sees.
#[pymodule(name = "_native")]
mod native {
    use pyo3::prelude::*;

    /// Refuses all interpreters of a process but the first, before anything else is made: pyo3 does so for a module within one, and
    /// not for one that is imported. Classes and locks are the process's here.
    #[pymodule]
    mod _of_one_interpreter {}

    /// No program needs to see that one.
    #[pymodule_init]
    fn hide(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.delattr("_of_one_interpreter")?;
        module.index()?.call_method1("remove", ("_of_one_interpreter",))?;
        Ok(())
    }

    #[pymodule_export]
    use super::connection::Connection;
    #[pymodule_export]
    use super::engine::Engine;
    #[pymodule_export]
    use super::info::{fabric_info, metrics_text, version};
    #[pymodule_export]
    use super::prepared::Prepared;
    #[pymodule_export]
    use super::process::close_all;
    #[pymodule_export]
    use super::reactor::LoopQueue;
    #[pymodule_export]
    use super::region::{Region, RegionSlice};
    #[pymodule_export]
    use super::shared_memory::SharedMemory;
    #[pymodule_export]
    use super::tool::run_tool;
    #[pymodule_export]
    use super::transfer::Transfer;
    #[pymodule_export]
    use super::waiting::seconds;
}

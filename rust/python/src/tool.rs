//! The tool of the command line, which the package has inside.

use std::ffi::OsString;

use pyo3::prelude::*;

/// Runs the tool with `arguments`, the program's name first, and answers its exit status. `itself` starts it once more.
#[pyfunction]
pub(crate) fn run_tool(py: Python<'_>, arguments: Vec<OsString>, itself: Vec<OsString>) -> u8 {
    py.detach(|| flagcx_p2p_cli::run(arguments, itself))
}

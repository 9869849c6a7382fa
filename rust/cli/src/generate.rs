//! `completions` and `man`: from the same definitions that the arguments are parsed by.

use std::path::Path;

use clap_complete::Shell;

use crate::args;
use crate::error::{CliError, Result};
use crate::output;

/// Name of the program.
const PROGRAM: &str = "flagcx-p2p";

/// Prints the completions for `shell`.
pub(crate) fn completions(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::command(), PROGRAM, &mut script);
    let script = String::from_utf8(script).map_err(|error| CliError::other(error.to_string()))?;
    output::line(script.trim_end());
    Ok(())
}

/// Writes a page for the program and for each of its commands, in section 1, to `directory`.
pub(crate) fn man(directory: &Path) -> Result<()> {
    if !directory.is_dir() {
        return Err(CliError::usage(format!("{}: is not a directory", directory.display())));
    }
    clap_mangen::generate_to(args::command(), directory)
        .map_err(|error| CliError::other(format!("write manual pages to {}: {error}", directory.display())))
}

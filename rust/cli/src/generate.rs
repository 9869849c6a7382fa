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

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of all commands below `command`, each behind that of those above it.
    fn names(command: &clap::Command, above: &str, all: &mut Vec<String>) {
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            let name = format!("{above}-{}", below.get_name());
            names(below, &name, all);
            all.push(name);
        }
    }

    #[test]
    fn commands_of_commands_have_pages_and_completions() {
        let mut all = Vec::new();
        names(&args::command(), PROGRAM, &mut all);
        assert!(all.iter().any(|name| name == "flagcx-p2p-doctor"), "{all:?}");
        let temp = tempfile::tempdir().unwrap();
        man(temp.path()).unwrap();
        let mut script = Vec::new();
        clap_complete::generate(Shell::Bash, &mut args::command(), PROGRAM, &mut script);
        let script = String::from_utf8(script).unwrap();
        for name in all {
            assert!(temp.path().join(format!("{name}.1")).exists(), "no page of {name}");
            let last = name.rsplit('-').next().unwrap();
            assert!(script.contains(last), "{name} is not completed");
        }
    }
}

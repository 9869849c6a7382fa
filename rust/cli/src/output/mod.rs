//! All output to the terminal: results on stdout, progress and errors on stderr.

pub(crate) mod colour;
pub(crate) mod progress;
pub(crate) mod terminal;
pub(crate) mod units;

use std::io::{self, Write};
use std::sync::OnceLock;

use serde::Serialize;

use crate::error::{CliError, Result};

/// Why results could not be printed, the first time that this happened. The command goes on and fails at its end.
static UNPRINTED: OnceLock<String> = OnceLock::new();

/// Prints a line of results on stdout. A failure is kept for [`check`].
pub(crate) fn line(text: &str) {
    let mut out = io::stdout().lock();
    printed(writeln!(out, "{text}").and_then(|()| out.flush()));
}

/// Prints an object as a line of JSON.
pub(crate) fn json_line(object: &impl Serialize) {
    printed_json(serde_json::to_string(object));
}

/// Prints a list or an object as JSON over several lines.
pub(crate) fn json(value: &impl Serialize) {
    printed_json(serde_json::to_string_pretty(value));
}

fn printed_json(text: serde_json::Result<String>) {
    match text {
        Ok(text) => line(&text),
        Err(error) => printed(Err(error.into())),
    }
}

/// Keeps the first failure of writing to stdout.
pub(crate) fn printed(result: io::Result<()>) {
    if let Err(error) = result
        && UNPRINTED.set(error.to_string()).is_ok()
    {
        tracing::debug!(%error, "stdout failed");
    }
}

/// An error if anything could not be printed: a full disk, a closed pipe.
pub(crate) fn check() -> Result<()> {
    match UNPRINTED.get() {
        None => Ok(()),
        Some(error) => Err(CliError::other(format!("cannot write to standard output: {error}"))),
    }
}

/// Prints a remark on stderr.
pub(crate) fn remark(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A table of results, in the one style that the tool has.
pub(crate) fn table<const N: usize>(header: [&str; N]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED).set_header(header);
    table
}

//! The one place that writes to the terminal: results on stdout, progress and errors on stderr.

pub(crate) mod progress;
pub(crate) mod units;

use std::io::Write;

/// Prints a line of results on stdout. A reader that went away (`| head`) is no error of this tool's.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Prints a remark on stderr.
pub(crate) fn remark(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A table of results, in the one style that the tool has.
pub(crate) fn table<const N: usize>(header: [&str; N]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::UTF8_FULL_CONDENSED).set_header(header);
    table
}

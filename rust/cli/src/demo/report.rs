//! The demo's table, and what its rows are.

use std::time::Duration;

use super::{Files, Total};
use crate::bench::{Case, Rate};
use crate::output::{self, units};

/// Prints all rates, the engine's own first.
pub(super) fn print(case: Case, memory: &[Rate], files: &Files, (copied, copying): (u64, Duration)) {
    let mut table = output::table(["what", "path", "put (WRITE) GB/s", "get (READ) GB/s", "verified"]);
    for Rate { path, write, read } in memory {
        table.add_row(["memory", path.as_str(), &format!("{write:.2}"), &format!("{read:.2}"), "bytes"]);
    }
    // A file that fails its verification has ended the demo before.
    table.add_row(["files", files.path.as_str(), &rate(files.put), &rate(files.got), "blake3"]);
    let copy = format!("{:.2}", units::gigabytes_per_second(copied, copying));
    table.add_row(["disk alone", "no engine", &copy, "-", "-"]);
    output::line(&table.to_string());
    output::line(&format!(
        "memory      the engine, registered memory to registered memory, {} each",
        units::bytes(case.bytes())
    ));
    output::line(&format!(
        "files       disk, hash, engine, hash, disk: {} in {:.1} s, back in {:.1} s",
        units::bytes(files.put.bytes),
        files.put.elapsed.as_secs_f64(),
        files.got.elapsed.as_secs_f64()
    ));
    output::line("disk alone  some of these files, copied and synced one by one without the engine");
}

fn rate(total: Total) -> String {
    format!("{:.2}", units::gigabytes_per_second(total.bytes, total.elapsed))
}

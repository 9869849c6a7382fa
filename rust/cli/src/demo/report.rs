//! The demo's two tables: what the engine does by itself, and what becomes of that with files.

use std::time::Duration;

use super::{Files, Total};
use crate::bench::{Case, Rate};
use crate::output::{self, units};

const HEADER: [&str; 5] = ["what", "path", "put (WRITE) GB/s", "get (READ) GB/s", "verified"];

/// Prints the engine's own rates.
pub(super) fn memory(case: Case, rates: &[Rate]) {
    let mut table = output::table(HEADER);
    for Rate { path, write, read, .. } in rates {
        table.add_row(["memory", path.as_str(), &format!("{write:.2}"), &format!("{read:.2}"), "bytes"]);
    }
    output::line("the engine's own rate, over each path that works here");
    output::line(&table.to_string());
    output::line(&format!(
        "memory      the engine, registered memory to registered memory, {} each",
        units::bytes(case.bytes())
    ));
}

/// Prints the rates of the files, and that of the disk without the engine.
pub(super) fn files(files: &Files, (copied, copying): (u64, Duration)) {
    let mut table = output::table(HEADER);
    // A file that fails its verification has ended the demo before.
    table.add_row(["files", files.path.as_str(), &rate(files.put), &rate(files.got), "blake3"]);
    let copy = format!("{:.2}", units::gigabytes_per_second(copied, copying));
    table.add_row(["disk alone", "no engine", &copy, "-", "-"]);
    output::line(&table.to_string());
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

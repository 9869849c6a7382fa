//! Nothing is decided by the time of day, which may be changed while a program runs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

/// The one file that reads it, and why: a record says when it was made, for people.
const EXCEPTION: &str = "src/engine.rs";

#[test]
fn the_time_of_day_decides_nothing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut users = Vec::new();
    for folder in ["src", "src/etcd"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() && fs::read_to_string(&path).unwrap().contains("SystemTime") {
                users.push(path.strip_prefix(root).unwrap().display().to_string());
            }
        }
    }
    assert_eq!(users, [EXCEPTION]);
    // What was read there is not read again.
    let readers = ["src/etcd/takeover.rs", "src/etcd/keeper.rs", "src/engine.rs"];
    let reads =
        readers.map(|file| fs::read_to_string(root.join(file)).unwrap().matches("started_at").count());
    assert_eq!(reads, [0, 0, 1]);
}

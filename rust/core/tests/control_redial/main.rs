//! Control channels that fail and are made anew: the connection goes on, with its rails, lanes, regions and notifications.
#![allow(
    clippy::duplicate_mod,
    reason = "the harness of chaos, of which the network is used here, stands on helpers that others use too"
)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

#[path = "../chaos/mod.rs"]
mod chaos;
#[path = "../nics/mod.rs"]
mod nics;
#[path = "../other_process/mod.rs"]
mod other_process;
mod processes;
#[path = "../rail_pair/mod.rs"]
mod rail_pair;
#[path = "../support/mod.rs"]
mod support;
mod within;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The buffers are large, and bounds on times are for a machine that does nothing else: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

//! One connection over several software NICs: every byte arrives, whatever the rails do meanwhile.
#![allow(unsafe_code, reason = "registers memory by address")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod channel;
mod faults;
mod flaps;
mod gone;
mod lanes;
mod lost;
mod memory;
mod need;
#[path = "../nics/mod.rs"]
mod nics;
mod one_nic;
mod peers;
#[path = "../proxy/mod.rs"]
mod proxy;
#[path = "../rail_pair/mod.rs"]
mod rail_pair;
mod refused;
mod returns;
mod seen;
mod short;
#[path = "../support/mod.rs"]
mod support;
mod transfers;
mod trials;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The buffers are large, and bounds on times are for a machine that does nothing else: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

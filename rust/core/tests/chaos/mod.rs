//! The chaos harness: sixteen sources of faults, each seeded and repeatable, and what must hold under all of them.
//!
//! A source makes [`rig::Rig`]s, runs [`round`]s of transfers through every API family while it injects faults, and
//! notes everything in a [`tally::Tally`]. What counts: transfers reported as done with wrong bytes, calls that do
//! not end, bytes changed outside a transfer's windows, and file descriptors, threads or mappings left behind.
#![allow(dead_code, unreachable_pub, reason = "a module of each test that includes it, which uses its share")]
#![allow(missing_debug_implementations, missing_docs, reason = "helpers of tests")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

pub mod arena;
pub mod buffer;
pub mod echo;
pub mod interrupts;
pub mod last_seen;
pub mod network;
#[path = "../nics/mod.rs"]
pub mod nics;
#[path = "../nullverbs/mod.rs"]
pub mod nullverbs;
pub mod peer;
pub mod ports;
pub mod process_resources;
#[path = "../proxy/mod.rs"]
pub mod proxy;
pub mod rig;
pub mod round;
pub mod seccomp;
pub mod sources;
pub mod standins;
pub mod storm;
pub mod tally;
pub mod watchdog;

use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

pub use proxy::random;

use buffer::Memory;
use process_resources::ProcessResources;
use tally::Tally;

/// One at a time: faults, descriptors and threads are counted for the whole process.
static GATE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The seed of this run: `FLAGCX_P2P_SEED`, else always the same.
pub fn seed() -> u64 {
    std::env::var("FLAGCX_P2P_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_251)
}

/// Whether the suite runs over verbs, real ones or those of [`standins`], where the software fabric's faults do not exist.
pub fn over_verbs() -> bool {
    std::env::var("FLAGCX_P2P_FABRIC").is_ok_and(|fabric| fabric == "verbs")
}

/// How many of `count` faults to inject: one in ten, of every source and through every API family, so that the tests of a
/// change end soon. `FLAGCX_P2P_TEST_SHARE=1` is all of them; `./x proofs` and `./x soak` set it.
pub fn share(count: u64) -> u64 {
    crate::support::share_or(count, 10)
}

/// The share of a source with slow faults: a seventh of the others' over verbs, in an emulated machine, and under
/// the thread sanitizer, which maps and unmaps its shadow memory with each engine.
pub fn share_of_slow(count: u64) -> u64 {
    let is_emulated = over_verbs() && !standins::of_run();
    share(if is_emulated || cfg!(thread_sanitizer) { count.div_ceil(7) } else { count })
}

fn gate() -> MutexGuard<'static, Vec<String>> {
    GATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs one source once and checks what must hold.
pub fn run(source: &sources::Source) {
    let mut rows = gate();
    run_behind_gate(source, seed(), &mut rows);
}

/// Runs all sources over and over, each time with another seed, for `seconds`.
pub fn soak(seconds: u64) {
    let mut rows = gate();
    let start = Instant::now();
    let mut round = 0;
    while start.elapsed().as_secs() < seconds {
        for source in sources::ALL {
            run_behind_gate(source, seed() + round, &mut rows);
        }
        round += 1;
    }
}

/// Makes the fabric report false successes; returns how many the harness has counted.
pub fn count_lies() -> u64 {
    let _turn = gate();
    let lies = sources::lie();
    watchdog::idle();
    lies
}

fn run_behind_gate(source: &sources::Source, seed: u64, rows: &mut Vec<String>) {
    if let Some(reason) = source.absent() {
        publish(rows, Tally::absent_row(source.name, reason));
        println!("not run over verbs: {reason}");
        return;
    }
    watchdog::step("warming up");
    sources::warm_up();
    let before = ProcessResources::take();
    let start = Instant::now();
    let mut tally = Tally::new(source.name, seed);
    rig::take_further_bytes();
    let further = run_over_rails(source, seed, &mut tally);
    tally.wall = start.elapsed();
    watchdog::step("counting what is left");
    tally.leaks = before.leaks();
    watchdog::idle();
    publish(rows, tally.row());
    if crate::support::rails() > 1 {
        println!("{}: further rails have carried {further} bytes", source.name);
        assert!(further > 0 || source.one_rail, "{}: further rails were not used", source.name);
    }
    let minimum = crate::support::share_or(source.minimum, source.divisor);
    tally.check(if source.slow { share_of_slow(source.minimum) } else { minimum });
}

/// Runs a source, and says how many bytes further rails have carried. Where there are some it is run again, twice at most, until they have
/// carried any: a share of a slow source is a few rounds, and the plan may give all of them to the first rail.
fn run_over_rails(source: &sources::Source, seed: u64, tally: &mut Tally) -> u64 {
    let most = if crate::support::rails() > 1 && !source.one_rail { 3 } else { 1 };
    for again in 0..most {
        (source.run)(seed.wrapping_add(again), tally);
        let further = rig::take_further_bytes();
        if further > 0 {
            return further;
        }
    }
    0
}

/// Shows a row at once, whatever the test harness captures, and keeps the table in a file for the documentation.
fn publish(rows: &mut Vec<String>, row: String) {
    let mut stderr = std::io::stderr();
    if rows.is_empty() {
        let _ = writeln!(stderr, "{}", Tally::header());
    }
    let _ = writeln!(stderr, "{row}");
    rows.push(row);
    let table = format!("{}\n{}\n", Tally::header(), rows.join("\n"));
    let file = match Memory::of_run() {
        Memory::Own if standins::of_run() => concat!(env!("CARGO_TARGET_TMPDIR"), "/chaos_standins.md"),
        Memory::Own if crate::support::rails() > 1 => concat!(env!("CARGO_TARGET_TMPDIR"), "/chaos_rails.md"),
        Memory::Own => concat!(env!("CARGO_TARGET_TMPDIR"), "/chaos.md"),
        Memory::Allocated => concat!(env!("CARGO_TARGET_TMPDIR"), "/chaos_allocated.md"),
    };
    let _ = std::fs::write(file, table);
}

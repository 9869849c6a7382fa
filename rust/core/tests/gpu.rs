//! GPU memory over the CUDA driver: the real one where `./x gpu` runs this, the stand-in of `tests/nullcuda` in `./x test`.
//!
//! A program of its own and no harness's tests: each group of checks is a process, so that one which crashes, hangs or
//! leaves a broken context costs no other. `GPU_SUITE_LIBCUDA` names the driver's library; `OUT` the folder for a report.
#![allow(unsafe_code, reason = "calls the CUDA driver, and registers its memory")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is how it tells"
)]

mod gpu_suite;
mod support;

use gpu_suite::{
    bandwidth, by_files, chaos, devices, dma_buf, entry_points, group, memory, nic, parent, pointers,
    threads, two_processes,
};

/// A group: its name, the seconds that it may take, and its checks.
type Entry = (&'static str, u64, fn(&mut group::Group));

/// The group that needs a port.
const NIC_GROUP: &str = "a NIC";

/// In the order in which they run.
const GROUPS: &[Entry] = &[
    ("pointers", 30, pointers::run),
    ("threads", 40, threads::run),
    ("devices", 40, devices::run),
    ("entry points", 60, entry_points::run),
    ("two processes", 60, two_processes::run),
    ("two processes, by files", 60, by_files::run),
    ("dma-buf", 30, dma_buf::run),
    ("chaos", 60, chaos::run),
    (NIC_GROUP, 60, nic::run),
    ("bandwidth", 90, bandwidth::run),
];

fn main() {
    if two_processes::play_if_asked() || by_files::play_if_asked() {
        return;
    }
    let Some(wanted) = std::env::var(group::ROLE).ok() else {
        // A port is named for what needs one, and all else has been run without.
        let is_wanted = |name: &str| std::env::var_os(nic::NIC).is_none() || name == NIC_GROUP;
        let groups = GROUPS.iter().filter(|(name, ..)| is_wanted(name));
        std::process::exit(parent::run(groups.map(|(name, seconds, _)| (*name, *seconds))));
    };
    let (name, _, checks) = GROUPS.iter().find(|(name, ..)| *name == wanted).expect("a group of this suite");
    let mut group = group::Group::new(name);
    checks(&mut group);
    memory::forget_contexts();
    std::process::exit(group.end());
}

//! What is written to stderr, and what the variables of FlagCX's log change.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, outside #[test] functions"
)]

mod common;

use std::fs;

use common::{program, run};

const BENCH: &[&str] = &["bench", "--seconds", "0.01", "--cases", "1x4K"];

#[test]
fn the_missing_nic_is_logged_once_and_in_one_short_line() {
    let mut bench = program();
    // As on a host without a NIC, also where there is one.
    bench.args(BENCH).env("FLAGCX_P2P_FABRIC", "auto").env("FLAGCX_IB_DISABLE", "1");
    let ended = run(&mut bench).succeeded();
    let lines: Vec<_> = ended.err.lines().collect();
    assert_eq!(lines.len(), 1, "{ended:?}");
    assert!(lines[0].contains("no RDMA NIC in use") && lines[0].len() <= 80, "{ended:?}");
    let silent = run(program().args(BENCH)).succeeded();
    assert_eq!(silent.err, "", "the software fabric was asked for");
}

#[test]
fn subsystems_narrow_the_log() {
    let logged = |subsystems: &str| {
        let mut bench = program();
        bench.args(BENCH).env("FLAGCX_DEBUG", "INFO").env("FLAGCX_DEBUG_SUBSYS", subsystems);
        run(&mut bench).succeeded().err
    };
    assert!(logged("INIT").contains("engine open"));
    assert!(!logged("REG").contains("engine open"));
    assert!(logged("^REG").contains("engine open"));
}

#[test]
fn the_log_goes_to_the_named_file() {
    let temp = tempfile::tempdir().unwrap();
    let mut bench = program();
    bench.args(BENCH).arg("--in-process").env("FLAGCX_DEBUG", "INFO");
    let ended = run(bench.env("FLAGCX_DEBUG_FILE", temp.path().join("log.%p"))).succeeded();
    assert_eq!(ended.err, "", "nothing is left for stderr");
    let files: Vec<_> = fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    assert!(!files[0].ends_with("log.%p"), "{files:?}");
    assert!(fs::read_to_string(&files[0]).unwrap().contains("FLAGCX_P2P_FABRIC=software"));

    let mut doctor = program();
    doctor.arg("doctor").env("FLAGCX_DEBUG_FILE", "/nowhere/at/all");
    let ended = run(&mut doctor).succeeded();
    assert!(ended.err.contains("FLAGCX_DEBUG_FILE: /nowhere/at/all"), "{ended:?}");
}

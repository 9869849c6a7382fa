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

const BENCH: &[&str] = &["bench", "--seconds", "0.01", "--cases", "1x4K", "--pool", "1M", "--no-limits"];

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
fn a_word_that_is_no_level_is_told_in_one_line() {
    let logged = |arguments: &[&str], value: &str| {
        run(program().args(BENCH).args(arguments).env("FLAGCX_DEBUG", value)).succeeded().err
    };
    let told = logged(&[], "verbose");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(
        told.contains("FLAGCX_DEBUG=\"verbose\" is none of VERSION, WARN, INFO, ABORT and TRACE"),
        "{told}"
    );
    assert_eq!(logged(&[], "warn"), "");
    assert!(!logged(&["-v", "--in-process"], "verbose").contains("is none of"), "-v decides");
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
}

/// Each command that works without a peer, with the file of its log.
#[test]
fn every_command_logs_to_the_file_whatever_is_asked_for() {
    let temp = tempfile::tempdir().unwrap();
    let empty = temp.path().to_str().unwrap();
    for arguments in [
        &["doctor"][..],
        &["config", "fabric"],
        &["serve", empty, "--port", "0", "--until-stdin-closes"],
        &["put", "/etc/hostname", "127.0.0.1:1"],
        &["get", "a", "127.0.0.1:1", "-o", "/dev/shm/never"],
        &["-v", "bench", "--seconds", "0.01", "--cases", "1x4K", "--pool", "1M"],
    ] {
        let log = temp.path().join("log");
        let mut command = program();
        command.args(arguments).env("FLAGCX_DEBUG", "INFO").env("FLAGCX_DEBUG_FILE", &log);
        let ended = run(&mut command);
        assert!(
            !ended.err.contains("INFO") && !ended.err.contains("FLAGCX_DEBUG_FILE"),
            "{arguments:?}: {ended:?}"
        );
        assert!(log.exists(), "{arguments:?}: {ended:?}");
    }
    let own = fs::read_to_string(temp.path().join("log")).unwrap();
    let of_server = fs::read_to_string(temp.path().join("log.server")).unwrap();
    assert!(own.contains(" connected peer=") && of_server.contains("engine open"), "{own} {of_server}");
}

#[test]
fn verbose_keeps_the_subsystems() {
    let mut bench = program();
    bench.args(BENCH).args(["--in-process", "-v"]).env("FLAGCX_DEBUG_SUBSYS", "REG");
    let narrow = run(&mut bench).succeeded();
    assert!(!narrow.err.contains("engine open"), "{narrow:?}");
    let all = run(program().args(BENCH).args(["--in-process", "-v"])).succeeded();
    assert!(all.err.contains("engine open"), "{all:?}");
}

#[test]
fn a_file_that_cannot_be_made_is_reported_once() {
    for arguments in [&["doctor"][..], BENCH] {
        let mut command = program();
        command.args(arguments).env("FLAGCX_DEBUG_FILE", "/nowhere/at/all");
        let ended = run(&mut command).succeeded();
        assert_eq!(
            ended.err.matches("FLAGCX_DEBUG_FILE: /nowhere/at/all").count(),
            1,
            "{arguments:?}: {ended:?}"
        );
    }
}

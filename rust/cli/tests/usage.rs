//! Likely typing errors, of the kind that a reader of the guide makes: each ends with status 2 and a text that says what is
//! wrong, before anything is moved or contacted.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, outside #[test] functions"
)]

mod common;

use std::fs;

use common::{Server, program, run};

/// The command line ends with status 2, and its text contains `text`.
#[track_caller]
fn refused(arguments: &[&str], text: &str) {
    let ended = run(program().args(arguments));
    assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:?}");
    assert!(ended.err.contains(text), "{arguments:?}: expected {text:?}: {ended:?}");
    assert!(ended.out.is_empty(), "{arguments:?}: {ended:?}");
}

#[test]
fn words_that_do_not_exist() {
    refused(&[], "Usage:");
    refused(&["srve", "."], "'serve'");
    refused(&["get", "model.bin", "127.0.0.1:1", "--ouput", "copy.bin"], "'--output'");
    refused(&["doctor", "all"], "expected host:port");
    refused(&["doctor", "127.0.0.1:1", "--timeout", "0"], "1..=600");
    refused(&["config", "FLAGCX_P2P_FABRC"], "did you mean FLAGCX_P2P_FABRIC?");
    refused(&["completions", "csh"], "possible values: bash");
    refused(&["man", "./nowhere"], "./nowhere: is not a directory");
    refused(&["put", "model.bin"], "<HOST:PORT|NAME:[PATH]>");
}

#[test]
fn servers_that_are_not_host_and_port() {
    for server in
        ["127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:0", "localhost:http", "::1]:1", ""]
    {
        refused(&["put", "/etc/hostname", server], "expected host:port");
        refused(&["get", "model.bin", server], "expected host:port");
        refused(&["bench", "run", server], "expected host:port");
    }
    refused(&["get", "model.bin", "256.0.2.7:7733"], "is not an IPv4 address");
}

#[test]
fn sizes_that_cannot_be() {
    for (chunk, text) in [
        ("4095", "`4095` is not within 4.00 KiB to"),
        ("0", "not within 4.00 KiB to 64.00 MiB"),
        ("8G", "`8G` is not within 4.00 KiB to 64.00 MiB"),
        ("1X", "is not a size"),
        ("1,5M", "write a fraction with a point, such as 1.5G"),
    ] {
        refused(&["put", "/etc/hostname", "127.0.0.1:1", "--chunk", chunk], text);
        refused(&["get", "model.bin", "127.0.0.1:1", "--chunk", chunk], text);
        refused(&["demo", "--chunk", chunk], text);
    }
    refused(&["put", "/etc/hostname", "127.0.0.1:1", "--slots", "257"], "1..=256");
    refused(&["serve", ".", "--ring-limit", "0"], "not within");
    refused(&["demo", "--size", "2"], "not within 1.00 MiB");
    refused(&["demo", "--size", "two"], "is not a size");
    refused(&["bench", "--cases", "4K"], "expected BATCHxSIZE");
    refused(&["bench", "--sizes", "2G"], "a piece has 1 byte to 1.00 GiB");
    refused(&["bench", "--sizes", "4Q"], "is not a size");
    refused(&["bench", "--sizes", "0"], "a piece has 1 byte");
    refused(&["bench", "--sweep", "64K..4K"], "the first size is the larger");
    refused(&["bench", "--batch", "64"], "the sizes are missing");
    refused(&["bench", "--pool", "4K", "--cases", "64x4K"], "a transfer of 64x4K needs 256.00 KiB");
    refused(&["bench", "--cases", "65536x1G"], "memory that are available here");
    refused(&["bench", "--path", "pigeon"], "is no path; expected all, in-process");
    refused(&["bench", "--depth", "0"], "1..=1024");
    refused(&["bench", "--secnds", "1"], "'--seconds'");
    refused(&["bench", "rnu", "127.0.0.1:1"], "unrecognized subcommand 'rnu'");
    refused(&["bench", "127.0.0.1:1"], "unrecognized subcommand");
    refused(&["bench", "compare", "a.json"], "<B.json>");
    refused(&["bench", "compare", "a.json", "b.json", "--limit", "2"], "not a ratio within 0 to 1");
    for seconds in ["0", "-1", "1e9", "inf", "NaN", "one"] {
        refused(&["bench", &format!("--seconds={seconds}")], "within 0.001 to 600");
    }
}

#[test]
fn paths_that_do_not_exist() {
    refused(&["serve", "./flies"], "./flies: No such file or directory");
    refused(&["serve", ".", "--listen", "192.0.2.700"], "--listen <IP>");
    refused(&["put", "modle.bin", "127.0.0.1:1"], "cannot open modle.bin: No such file or directory");
    refused(
        &["get", "model.bin", "127.0.0.1:1", "-o", "nowhere/copy.bin"],
        "nowhere: No such file or directory",
    );
    refused(&["get", "model.bin", "127.0.0.1:1", "-o", ""], "-o");
    refused(&["demo", "--from", "./nowhere"], "--from ./nowhere: is not a directory");
    refused(&["demo", "--dir", "./nowhere"], "--dir ./nowhere");
}

/// On a terminal there are colours, unless the reader wants none.
#[test]
fn colours_are_for_terminals() {
    let shown = |environment: &[(&str, &str)]| {
        let mut script = std::process::Command::new("script");
        script.args(["-qec", concat!(env!("CARGO_BIN_EXE_flagcx-p2p"), " config fabric"), "/dev/null"]);
        script.envs([("FLAGCX_P2P_FABRIC", "software"), ("TERM", "xterm")]).env_remove("NO_COLOR");
        script.envs(environment.iter().copied()).stdin(std::process::Stdio::null());
        script
            .output()
            .ok()
            .filter(|output| output.status.success())
            .map(|output| String::from_utf8(output.stdout).unwrap())
    };
    let Some(coloured) = shown(&[]) else { return eprintln!("skipped: there is no `script` of util-linux") };
    assert!(coloured.contains("\x1b[1msoftware\x1b[0m"), "{coloured:?}");
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let plain = shown(&[(name, value)]).unwrap();
        assert!(plain.contains("= software") && !plain.contains('\x1b'), "{name}: {plain:?}");
    }
    let piped = run(program().args(["config", "fabric"])).succeeded();
    assert!(!piped.out.contains('\x1b'), "{piped:?}");
}

/// Not typing errors that can be seen here: status 1, and the reason that the failing call gives.
#[test]
fn what_the_peer_refuses_is_a_failure() {
    let temp = tempfile::tempdir().unwrap();
    let back = temp.path().join("back");
    let get = |server: &str| run(program().args(["get", "model.bin", server, "-o"]).arg(&back));
    get("nohost.invalid:7733").failed(1, "cannot resolve host \"nohost.invalid\"");
    get("127.0.0.1:1").failed(1, "is `flagcx-p2p serve` running there?");
    let server = Server::start();
    get(&server.address).failed(1, "No such file");
}

#[test]
fn a_smaller_ring_than_requested_is_reported() {
    let server = Server::start_with_arguments(&["--ring-limit", "64K"]);
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("a"), vec![1; 1 << 20]).unwrap();
    let put = server.put(&temp.path().join("a"), &[]).succeeded();
    assert!(put.err.contains("1 slots of 64.00 KiB instead of 1 slots of 1.00 MiB"), "{put:?}");
    // Neither where less was asked for, nor where the file needs no more.
    let put = server.put(&temp.path().join("a"), &["--chunk", "4K", "--force"]).succeeded();
    assert!(!put.err.contains("instead of"), "{put:?}");
    fs::write(temp.path().join("a"), b"content").unwrap();
    let put = server.put(&temp.path().join("a"), &["--force"]).succeeded();
    assert!(!put.err.contains("instead of"), "{put:?}");
}

//! How the tool ends: a server by a signal, and any command with results that cannot be printed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, outside #[test] functions"
)]

mod common;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Server, finish, names, program, run};

/// Starts to put a file of which the end takes a while; returns once data moves.
fn start_put(server: &Server, directory: &Path, size: u64) -> Child {
    let file = directory.join("in");
    File::create(&file).unwrap().set_len(size).unwrap();
    let mut command = program();
    command.arg("put").arg(&file).arg(&server.address).args(["--chunk", "4K", "--slots", "1"]);
    let put = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(400));
    put
}

#[test]
fn a_signal_lets_transfers_end() {
    let temp = tempfile::tempdir().unwrap();
    let mut server = Server::start_with_arguments(&["--drain-limit", "60"]);
    let put = start_put(&server, temp.path(), 32 << 20);
    let _silent = server.connect();
    server.signal("-TERM");
    std::thread::sleep(Duration::from_millis(50));
    assert!(std::net::TcpStream::connect(&server.address).is_err(), "it takes no new clients");
    finish(put).succeeded();
    assert_eq!(server.ended().code(), Some(0));
    assert_eq!(server.names(), ["in"]);
}

#[test]
fn a_drain_is_bounded_and_leaves_nothing_under_a_name() {
    let temp = tempfile::tempdir().unwrap();
    for (signal, limit) in [("-TERM", "1"), ("-INT", "0"), ("-HUP", "0")] {
        let mut server = Server::start_with_arguments(&["--drain-limit", limit]);
        let put = start_put(&server, temp.path(), 8 << 30);
        let signalled = Instant::now();
        server.signal(signal);
        assert_eq!(server.ended().code(), Some(0), "{signal}");
        assert!(signalled.elapsed() < Duration::from_secs(10), "{signal}: {:?}", signalled.elapsed());
        finish(put).failed(1, "the server is ending");
        assert!(server.complete_names().is_empty(), "{signal}: {:?}", server.names());
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let mut server = Server::start_with_arguments(&["--drain-limit", "3600"]);
    let put = start_put(&server, temp.path(), 8 << 30);
    server.signal("-TERM");
    std::thread::sleep(Duration::from_millis(100));
    server.signal("-TERM");
    let status = server.ended();
    assert_eq!((status.code(), status.signal()), (Some(128 + 15), None));
    finish(put).failed(1, "put in to");
    assert!(server.complete_names().is_empty());
}

#[test]
fn process_1_of_a_container_ends_as_well() {
    let temp = tempfile::tempdir().unwrap();
    let tool = env!("CARGO_BIN_EXE_flagcx-p2p");
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--kill-child", "--mount-proc", tool, "serve", "--port", "0"]);
    let child = unshare
        .arg(temp.path())
        .env("FLAGCX_P2P_FABRIC", "software")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else { return eprintln!("skipped: there is no unshare") };
    let mut first = [0; 12];
    if child.stdout.as_mut().unwrap().read_exact(&mut first).is_err() {
        child.wait().unwrap();
        return eprintln!("skipped: no process namespace can be made here");
    }
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let server = fs::read_to_string(children).unwrap();
    assert!(Command::new("kill").args(["-TERM", server.trim()]).status().unwrap().success());
    let ended = finish(child);
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn a_killed_servers_temporary_file_is_removed_by_the_next() {
    let server = Server::start();
    let stale = server.path.join(".flagcx-p2p-0123456789abcdef.part");
    fs::write(&stale, b"part").unwrap();
    let mut next = program();
    next.args(["serve", "--port", "0", "--until-stdin-closes"]).arg(&server.path);
    run(&mut next).succeeded();
    assert!(names(&server.path).is_empty());
}

/// As a shell reports it: 128 + the signal's number.
#[test]
fn a_command_that_a_signal_ends_has_its_status() {
    let tool = env!("CARGO_BIN_EXE_flagcx-p2p");
    for (signal, status) in [("INT", 130), ("TERM", 143)] {
        let script = format!(
            "\"$0\" bench --in-process --cases 1x4K --pool 1M --seconds 60 & sleep 0.3; kill -{signal} $!; wait $!"
        );
        // With job control, because without it a shell's background jobs ignore interrupts.
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("set -m; {script}"), tool]).env("FLAGCX_P2P_FABRIC", "software");
        assert_eq!(run(&mut shell).code, Some(status), "{signal}");
    }
}

fn onto_full(arguments: &[&str]) -> common::Ended {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = program();
    // One path: `demo` measures each that works.
    command.args(arguments).env("FLAGCX_P2P_PATH", "tcp");
    finish(command.stdin(Stdio::null()).stdout(full).stderr(Stdio::piped()).spawn().unwrap())
}

#[test]
fn results_that_cannot_be_printed_are_a_failure() {
    let server = Server::start();
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("a"), b"content").unwrap();
    fs::create_dir(path("files")).unwrap();
    fs::write(path("files/b"), vec![7; 1 << 20]).unwrap();
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["serve", "--help"],
        &["doctor"],
        &["doctor", "--json"],
        &["config"],
        &["config", "--json"],
        &["completions", "bash"],
        &["bench", "--seconds", "0.01", "--cases", "1x4K", "--pool", "1M", "--in-process"],
        &["bench", "--seconds", "0.01", "--cases", "1x4K", "--pool", "1M", "--in-process", "--json", "-"],
        &["demo", "--size", "1M", "--from", &path("files"), "--dir", temp.path().to_str().unwrap()],
        &["put", &path("a"), &server.address],
        &["get", "a", &server.address, "-o", &path("back")],
        &["serve", temp.path().to_str().unwrap(), "--port", "0"],
    ] {
        let ended = onto_full(arguments);
        assert_eq!(ended.code, Some(1), "{arguments:?}: {ended:?}");
        assert!(
            ended.err.contains("cannot write to standard output: No space left"),
            "{arguments:?}: {ended:?}"
        );
    }
    // A reader that has left, as of `| head -1`.
    let mut doctor = program();
    let mut doctor = doctor.arg("doctor").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(doctor.stdout.take());
    let ended = finish(doctor).failed(1, "cannot write to standard output: Broken pipe");
    assert!(!ended.err.contains("panic"), "{ended:?}");
}

/// Neither its files nor its server, and nothing of a benchmark's files.
#[test]
fn an_interrupted_command_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let [from, work] = ["from", "work"].map(|name| temp.path().join(name));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&work).unwrap();
    fs::write(from.join("file"), vec![7; 1 << 20]).unwrap();
    let json = work.join("a.json");
    let demo = ["demo", "--size", "1M", "--from", from.to_str().unwrap(), "--dir", work.to_str().unwrap()];
    let bench = [
        "bench",
        "--in-process",
        "--cases",
        "1x4K",
        "--pool",
        "1M",
        "--seconds",
        "60",
        "--json",
        json.to_str().unwrap(),
    ];
    for (arguments, signals, status) in [(&demo[..], 1, 143), (&bench[..], 2, 143)] {
        let mut command = program();
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // The first line comes once there are files, or could be.
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 8]).unwrap();
        for _ in 0..signals {
            let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
            assert!(killed.unwrap().success());
            std::thread::sleep(Duration::from_millis(10));
        }
        let ended = finish(child);
        assert_eq!(ended.code, Some(status), "{arguments:?}: {ended:?}");
        assert!(ended.err.contains("interrupted"), "{arguments:?}: {ended:?}");
        assert!(names(&work).is_empty(), "{arguments:?}: {:?}", names(&work));
    }
}

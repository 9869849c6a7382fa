//! Disks that are full, and directories that nothing can be written to, at either end: the file fails, and the others go on.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "helpers of tests, outside #[test] functions"
)]

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Ended, Server, finish, program, run};

/// Runs the tool where `folder` is a file system of 4 MiB, and lists `folder` at its end.
fn on_small_disk(folder: &Path, arguments: &[&str]) -> Option<Ended> {
    let script =
        "mount -t tmpfs -o size=4m small \"$0\" || exit 77; \"$@\"; code=$?; ls -A \"$0\"; exit $code";
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(folder)
        .arg(env!("CARGO_BIN_EXE_flagcx-p2p"))
        .args(arguments);
    command
        .env("FLAGCX_P2P_FABRIC", "software")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    match command.spawn().map(finish) {
        Ok(ended) if ended.code != Some(77) && !ended.err.contains("unshare failed") => Some(ended),
        ended => {
            eprintln!("skipped: no file system can be mounted here: {ended:?}");
            None
        }
    }
}

#[test]
fn a_get_that_does_not_fit_leaves_room_for_the_others() {
    let server = Server::start();
    let temp = tempfile::tempdir().unwrap();
    fs::write(server.path.join("large"), vec![1; 9 << 20]).unwrap();
    fs::write(server.path.join("small"), "fits").unwrap();
    let folder = temp.path().join("disk");
    fs::create_dir(&folder).unwrap();
    let output = folder.to_str().unwrap();
    let get = ["get", "large", "small", &server.address, "-o", output];
    let Some(ended) = on_small_disk(&folder, &get) else { return };
    assert!(ended.err.contains("get large: no space for "), "{ended:?}");
    let ended = ended.failed(1, "1 of 2 files failed");
    assert!(ended.out.ends_with("small\n") && !ended.out.contains("partial"), "{ended:?}");
}

/// Input of unknown size: the disk is full in the middle.
#[test]
fn a_put_that_fills_the_disk_ends_alone() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("disk");
    fs::create_dir(&folder).unwrap();
    let script = "mount -t tmpfs -o size=4m small \"$0\" || exit 77; exec \"$@\"";
    let mut serve = Command::new("unshare");
    serve
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(&folder)
        .arg(env!("CARGO_BIN_EXE_flagcx-p2p"));
    serve.args(["serve", "--port", "0", "--until-stdin-closes"]).arg(&folder);
    let Some(server) = Server::of(serve.env("FLAGCX_P2P_FABRIC", "software"), folder) else {
        return eprintln!("skipped: no file system can be mounted here");
    };
    let mut put = program();
    put.args(["put", "-", &server.address, "--name", "stream", "--chunk", "64K"]).stdin(Stdio::piped());
    let mut put = put.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = put.stdin.take().unwrap();
    let writing = std::thread::spawn(move || (0..64).try_for_each(|_| input.write_all(&vec![1; 1 << 20])));
    finish(put).failed(1, "No space left on device");
    let _ = writing.join().unwrap();
    fs::write(temp.path().join("a"), "fits").unwrap();
    server.put(&temp.path().join("a"), &[]).succeeded();
    let ls = run(program().args(["ls", &server.address])).succeeded();
    assert!(ls.out.ends_with("  a\n") && ls.out.lines().count() == 1, "{ls:?}");
}

#[test]
fn a_directory_that_cannot_be_written_to_is_named() {
    let Some(server) = Server::of(
        program().args(["serve", "--port", "0", "--until-stdin-closes", "/proc/self/net"]),
        "/proc/self/net".into(),
    ) else {
        panic!("it does not serve");
    };
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("a"), "content").unwrap();
    server.put(&temp.path().join("a"), &[]).failed(1, "cannot create a file in /proc/self/net");
    server.put(&temp.path().join("a"), &["--name", "b/a"]).failed(1, "cannot make folder /proc/self/net/b");
}

//! A target without space, at once and in the middle, and content that differs from its hash: nothing is stored, and the reason
//! is told.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "helpers of tests, outside #[test] functions"
)]

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Server, allocate_frame, finish, frame, names, open_frame, program, put_frame};

const SIZE: u64 = 64 << 20;
const SLOWLY: &[&str] = &["--chunk", "4K", "--slots", "1"];

/// Starts the tool where `directory` is a tmpfs of [`SIZE`] bytes, which only the tool has; also gives its path as seen from here.
fn in_small_tmpfs(directory: &Path, arguments: &[&str]) -> Option<(Child, PathBuf)> {
    let script = format!("mount -t tmpfs -o size={SIZE} none \"$1\" && shift && exec \"$@\"");
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script, "sh"])
        .arg(directory)
        .arg(env!("CARGO_BIN_EXE_flagcx-p2p"))
        .args(arguments)
        .env("FLAGCX_P2P_FABRIC", "software")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().ok()?;
    let seen = PathBuf::from(format!("/proc/{}/root{}", child.id(), directory.display()));
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(10) && child.try_wait().unwrap().is_none() {
        let stat = rustix::fs::statvfs(&seen);
        if stat.is_ok_and(|stat| stat.f_blocks * stat.f_frsize == SIZE) {
            return Some((child, seen));
        }
    }
    eprintln!("skipped: no tmpfs can be mounted here: {:?}", finish(child));
    None
}

fn free(path: &Path) -> u64 {
    let stat = rustix::fs::statvfs(path).unwrap();
    stat.f_bavail * stat.f_frsize
}

/// Takes all space as soon as a file is being received: more is reserved for it than the first MiB, which comes before the
/// check for space.
fn fill_once_it_receives(directory: &Path) {
    let started = Instant::now();
    while free(directory) >= SIZE - (1 << 20) {
        assert!(started.elapsed() < Duration::from_secs(20), "it receives nothing");
    }
    let mut filler = File::create(directory.join("filler")).unwrap();
    while filler.write_all(&[1; 4096]).is_ok() {}
}

#[test]
fn a_server_without_space_refuses_and_keeps_nothing() {
    let (temp, served) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let directory = served.path().to_str().unwrap();
    let arguments = ["serve", "--port", "0", "--until-stdin-closes", directory];
    let Some((mut server, seen)) = in_small_tmpfs(served.path(), &arguments) else { return };
    let mut line = [0; 64];
    let length = server.stdout.as_mut().unwrap().read(&mut line).unwrap();
    let line = String::from_utf8_lossy(&line[..length]).into_owned();
    let address = line.strip_prefix("listening on ").unwrap().split_whitespace().next().unwrap().to_owned();
    let put = |size: u64, more: &[&str]| {
        let file = temp.path().join("in");
        File::create(&file).unwrap().set_len(size).unwrap();
        let mut command = program();
        command.arg("put").arg(&file).arg(&address).args(more);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    finish(put(SIZE + 1, &[])).failed(1, "no space for");
    let slow = put(SIZE - (2 << 20), SLOWLY);
    fill_once_it_receives(&seen);
    finish(slow).failed(1, "No space left on device");
    assert_eq!(names(&seen), ["filler"]);
    fs::remove_file(seen.join("filler")).unwrap();
    // A file that fits exactly still does: what the failed one had reserved is free.
    finish(put(SIZE, &[])).succeeded();
    assert_eq!(fs::metadata(seen.join("in")).unwrap().len(), SIZE);
    drop(server.stdin.take());
    finish(server).succeeded();
}

#[test]
fn a_client_without_space_says_so_and_keeps_nothing() {
    let (server, temp) = (Server::start(), tempfile::tempdir().unwrap());
    File::create(server.path.join("large")).unwrap().set_len(SIZE + 1).unwrap();
    File::create(server.path.join("in")).unwrap().set_len(SIZE - (2 << 20)).unwrap();
    let back = temp.path().join("back");
    let get = |name: &str| {
        let arguments = ["get", name, &server.address, "-o", back.to_str().unwrap()];
        in_small_tmpfs(temp.path(), &[&arguments[..], SLOWLY].concat())
    };
    let Some((slow, seen)) = get("in") else { return };
    // Its mounts go with it, but for a directory that is open.
    let left = File::open(&seen).unwrap();
    fill_once_it_receives(&seen);
    finish(slow).failed(1, "No space left on device");
    let listed = PathBuf::from(format!("/proc/self/fd/{}", left.as_raw_fd()));
    assert_eq!(names(&listed), ["filler"]);
    let mut large = program();
    large.args(["get", "large", &server.address, "-o"]).arg(&back);
    // The server goes on.
    let large = large.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    finish(large).succeeded();
}

/// A client that announces another hash than that of its bytes.
#[test]
fn a_file_that_differs_from_its_hash_is_not_stored() {
    let server = Server::start();
    let mut client = server.connect();
    client.write_all(&[open_frame(), allocate_frame()].concat()).unwrap();
    client.write_all(&put_frame("a", 0)).unwrap();
    // The data begins at 0, and its end.
    client.write_all(&frame(&(15_u8, 0_u64))).unwrap();
    client.write_all(&frame(&(7_u8, 0_u64, [9_u8; 32]))).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("differs from the data that was sent"), "{answer:?}");
    assert!(server.names().is_empty());
}

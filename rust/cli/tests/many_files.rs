//! Many small files, which travel in groups: what one that fails, a full disk, Ctrl-C and a killed server in the middle leave.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "helpers of tests, outside #[test] functions"
)]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Ended, Server, finish, names, program, run};

/// So many that a command with [`SLOWLY`] is met in its middle.
const MANY: usize = 2400;
/// One chunk at a time, so that the command takes long enough to be met in its middle.
const SLOWLY: &[&str] = &["--chunk", "4K", "--slots", "1"];

fn content(number: usize, size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8 ^ number as u8).collect()
}

fn name(number: usize) -> String {
    format!("f{number:05}")
}

/// `parent/in` with so many files of `size` bytes.
fn folder(parent: &Path, count: usize, size: usize) -> PathBuf {
    let folder = parent.join("in");
    fs::create_dir(&folder).unwrap();
    (0..count).for_each(|number| fs::write(folder.join(name(number)), content(number, size)).unwrap());
    folder
}

/// Every file that has a name is complete, and there is nothing else: no temporary and no partial file. How many there are.
#[track_caller]
fn complete(path: &Path, size: usize) -> usize {
    let names = names(path);
    for name in &names {
        let number = name.strip_prefix('f').and_then(|number| number.parse().ok());
        let number = number.unwrap_or_else(|| panic!("{name} is left"));
        assert!(fs::read(path.join(name)).unwrap() == content(number, size), "{name} is not complete");
    }
    names.len()
}

/// In memory where that is possible: a disk takes seconds to sync so many files.
fn temporary() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A server of a new folder of `parent`.
fn serve(parent: &Path) -> Server {
    let path = parent.join("served");
    fs::create_dir(&path).unwrap();
    let mut command = program();
    command.args(["serve", "--port", "0", "--until-stdin-closes"]).arg(&path);
    Server::of(&mut command, path).unwrap()
}

fn start(arguments: &[&str]) -> Child {
    let mut command = program();
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until there are so many files.
#[track_caller]
fn wait_for_files(path: &Path, count: usize) {
    let started = Instant::now();
    while fs::read_dir(path).map_or(0, Iterator::count) < count {
        assert!(started.elapsed() < Duration::from_secs(30), "no {count} files in {path:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn signal(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

fn reasons(ended: &Ended, text: &str) -> usize {
    ended.err.lines().filter(|line| line.contains(text)).count()
}

/// A file, a folder and a link have names of the middle, at either end.
#[test]
fn those_that_fail_in_the_middle_of_many_fail_alone() {
    let temp = temporary();
    let server = serve(temp.path());
    let from = folder(temp.path(), 300, 4096);
    let take = |path: &Path| {
        fs::create_dir_all(path.join(name(100))).unwrap();
        fs::write(path.join(name(101)), "mine").unwrap();
        symlink("f00000", path.join(name(155))).unwrap();
    };
    let give_back = |path: &Path| {
        assert_eq!(fs::read(path.join(name(101))).unwrap(), b"mine");
        fs::remove_dir(path.join(name(100))).unwrap();
        fs::remove_file(path.join(name(101))).unwrap();
        fs::remove_file(path.join(name(155))).unwrap();
    };
    let stored = server.path.join("in");
    take(&stored);
    let ended = server.put(&from, &[]).failed(1, "3 of 300 files failed; the others are complete");
    assert_eq!(reasons(&ended, "exists already"), 3, "{ended:?}");
    give_back(&stored);
    assert_eq!(complete(&stored, 4096), 297);
    server.put(&from, &["--force"]).succeeded();
    assert_eq!(complete(&stored, 4096), 300);

    let back = temp.path().join("back");
    take(&back.join("in"));
    let ended = server.get("in", &back, &[]).failed(1, "3 of 300 files failed; the others are complete");
    assert_eq!(reasons(&ended, "exists already"), 3, "{ended:?}");
    give_back(&back.join("in"));
    assert_eq!(complete(&back.join("in"), 4096), 297);
}

/// A file system of 4 MiB, which takes a part of the files.
#[test]
fn a_disk_that_is_full_in_the_middle_of_many_keeps_those_before() {
    let (temp, served) = (temporary(), temporary());
    let from = folder(temp.path(), 300, 32 << 10);
    let script = "mount -t tmpfs -o size=4m small \"$0\" || exit 77; exec \"$@\"";
    let mut serve = Command::new("unshare");
    serve
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(served.path())
        .arg(env!("CARGO_BIN_EXE_flagcx-p2p"))
        .args(["serve", "--port", "0", "--until-stdin-closes"])
        .arg(served.path())
        .env("FLAGCX_P2P_FABRIC", "software");
    let Some(server) = Server::of(&mut serve, served.path().to_owned()) else {
        return eprintln!("skipped: no file system can be mounted here");
    };
    let seen = PathBuf::from(format!("/proc/{}/root{}/in", server.child.id(), served.path().display()));
    let ended = server.put(&from, &[]).failed(1, "of 300 files failed; the others are complete");
    let failed = reasons(&ended, "No space left on device");
    let stored = complete(&seen, 32 << 10);
    assert!((100..=128).contains(&stored) && stored + failed == 300, "{stored} and {failed}: {ended:?}");
    // The server goes on, with what space there is now.
    fs::remove_dir_all(&seen).unwrap();
    fs::write(temp.path().join("f00000"), content(0, 32 << 10)).unwrap();
    server.put(&temp.path().join("f00000"), &["--name", "in/f00000"]).succeeded();
    assert_eq!(complete(&seen, 32 << 10), 1);
}

#[test]
fn an_interrupt_in_the_middle_of_many_leaves_whole_files() {
    let temp = temporary();
    let server = serve(temp.path());
    let from = folder(temp.path(), MANY, 4096);
    let (source, back) = (from.to_str().unwrap(), temp.path().join("back"));
    let stored = server.path.join("in");
    let put = start(&[&["put", source, &server.address], SLOWLY].concat());
    wait_for_files(&stored, 50);
    signal(&put, "-INT");
    let ended = finish(put).failed(130, "interrupted");
    let before = complete(&stored, 4096);
    assert!(before < MANY, "it was too late: {ended:?}");
    server.put(&from, &["--force"]).succeeded();
    assert_eq!(complete(&stored, 4096), MANY);

    let get = start(&[&["get", "in", &server.address, "-o", back.to_str().unwrap()], SLOWLY].concat());
    wait_for_files(&back.join("in"), 50);
    signal(&get, "-INT");
    finish(get).failed(130, "interrupted");
    assert!(complete(&back.join("in"), 4096) < MANY, "it was too late");
}

#[test]
fn a_server_that_is_killed_in_the_middle_of_many_leaves_whole_files() {
    let temp = temporary();
    let mut server = serve(temp.path());
    let from = folder(temp.path(), MANY, 4096);
    let (source, back) = (from.to_str().unwrap(), temp.path().join("back"));
    let stored = server.path.join("in");
    let put = start(&[&["put", source, &server.address], SLOWLY].concat());
    wait_for_files(&stored, 50);
    server.signal("-KILL");
    server.ended();
    finish(put).failed(1, "put to");
    assert!(complete(&stored, 4096) < MANY, "it was too late");

    let mut next = server.next();
    next.put(&from, &["--force"]).succeeded();
    assert_eq!(complete(&stored, 4096), MANY);
    let get = start(&[&["get", "in", &next.address, "-o", back.to_str().unwrap()], SLOWLY].concat());
    wait_for_files(&back.join("in"), 50);
    next.signal("-KILL");
    next.ended();
    finish(get).failed(1, "get in from");
    assert!(complete(&back.join("in"), 4096) < MANY, "it was too late");
}

/// More than what either end has in flight, and than a frame of a listing holds.
#[test]
fn more_than_are_in_flight_are_listed_and_refused_one_by_one() {
    let temp = temporary();
    let server = serve(temp.path());
    let from = folder(temp.path(), MANY, 10);
    server.put(&from, &[]).succeeded();
    let ls = run(program().args(["ls", &server.address, "in/"])).succeeded();
    assert_eq!(ls.out.lines().count(), MANY);
    let ended = server.put(&from, &["--quiet"]).failed(1, &format!("{MANY} of {MANY} files failed"));
    assert_eq!(reasons(&ended, "exists already"), MANY);
    assert_eq!(complete(&server.path.join("in"), 10), MANY);
}

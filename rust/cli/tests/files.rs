//! The real program as two processes: files arrive whole and verified, or not at all.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, outside #[test] functions"
)]

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Server, finish, names, program, run};

const CHUNK: usize = 4096;
const SMALL_RING: &[&str] = &["--chunk", "4K", "--slots", "3"];

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8 ^ (at / 4096) as u8).collect()
}

#[test]
fn files_of_every_size_go_there_and_back() {
    let server = Server::start();
    let temp = tempfile::tempdir().unwrap();
    for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 10 * CHUNK + 7] {
        let (file, back) = (temp.path().join("in"), temp.path().join(format!("back-{size}")));
        fs::write(&file, content(size)).unwrap();
        let name = format!("file-{size}");
        let more: Vec<_> = SMALL_RING.iter().copied().chain(["--name", &name]).collect();
        let put = server.put(&file, &more).succeeded();
        assert!(put.out.contains("verified blake3"), "{put:?}");
        assert_eq!(fs::read(server.path.join(&name)).unwrap(), content(size), "put of {size}");
        server.get(&name, &back, SMALL_RING).succeeded();
        assert_eq!(fs::read(&back).unwrap(), content(size), "get of {size}");
    }
}

#[test]
fn the_default_ring_carries_a_larger_file() {
    let server = Server::start();
    let temp = tempfile::tempdir().unwrap();
    let (file, back) = (temp.path().join("large"), temp.path().join("back"));
    fs::write(&file, content((40 << 20) + 13)).unwrap();
    server.put(&file, &[]).succeeded();
    server.get("large", &back, &[]).succeeded();
    assert!(fs::read(&back).unwrap() == content((40 << 20) + 13));
    assert_eq!(server.names(), ["large"]);
}

#[test]
fn an_existing_name_is_refused_without_force() {
    let server = Server::start();
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("a");
    fs::write(&file, b"one").unwrap();
    server.put(&file, &[]).succeeded();
    fs::write(&file, b"two").unwrap();
    server.put(&file, &[]).failed(1, "--force");
    assert_eq!(fs::read(server.path.join("a")).unwrap(), b"one");
    server.put(&file, &["--force"]).succeeded();
    assert_eq!(fs::read(server.path.join("a")).unwrap(), b"two");

    let back = temp.path().join("back");
    fs::write(&back, b"mine").unwrap();
    server.get("a", &back, &[]).failed(1, "--force");
    assert_eq!(fs::read(&back).unwrap(), b"mine");
    server.get("a", &back, &["--force"]).succeeded();
    assert_eq!(fs::read(&back).unwrap(), b"two");
}

#[test]
fn links_are_not_followed() {
    let server = Server::start();
    let temp = tempfile::tempdir().unwrap();
    let secret = temp.path().join("secret");
    fs::write(&secret, b"secret").unwrap();
    symlink(&secret, server.path.join("link")).unwrap();
    server.get("link", &temp.path().join("back"), &[]).failed(1, "symbolic link");
    server.put(&secret, &["--name", "link", "--force"]).failed(1, "not a regular file");
    assert_eq!(names(temp.path()), ["secret"]);
    assert_eq!(fs::read(&secret).unwrap(), b"secret");
}

#[test]
fn names_stay_in_the_served_directory() {
    let server = Server::start();
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("a");
    fs::write(&file, b"x").unwrap();
    for name in ["../a", "a/../b", "..", "/etc/passwd"] {
        server.put(&file, &["--name", name]).failed(2, "name");
        server.get(name, &temp.path().join("back"), &[]).failed(2, "name");
    }
    server.put(&file, &["--name", ""]).failed(2, "name");
    assert_eq!((server.names().len(), names(temp.path()).len()), (0, 1));
}

#[test]
fn what_is_not_there_is_a_clear_error() {
    let server = Server::start();
    let temp = tempfile::tempdir().unwrap();
    server.get("none", &temp.path().join("back"), &[]).failed(1, "No such file");
    server.put(&temp.path().join("none"), &[]).failed(2, "No such file");
    server.put(Path::new("/dev/null"), &[]).failed(2, "not a regular file");
    run(program().args(["get", "a", "127.0.0.1:1", "-o"]).arg(temp.path().join("back")))
        .failed(1, "flagcx-p2p serve");
    run(program().args(["serve", "/nonexistent"])).failed(2, "/nonexistent");
    assert!(names(temp.path()).is_empty());
}

#[test]
fn another_program_on_the_port_is_a_clear_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let other = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap();
        stream
    });
    let temp = tempfile::tempdir().unwrap();
    run(program().args(["get", "a", &address, "-o"]).arg(temp.path().join("back")))
        .failed(1, "the peer is another program");
    drop(other.join());
}

/// A sparse file that takes long to move in small chunks.
fn long_file(directory: &Path) -> PathBuf {
    let file = directory.join("in");
    fs::File::create(&file).unwrap().set_len(1 << 30).unwrap();
    file
}

fn put_slowly(file: &Path, server: &Server) -> Command {
    let mut command = program();
    command.arg("put").arg(file).arg(&server.address).args(["--chunk", "4K", "--slots", "1"]);
    command
}

#[test]
fn a_server_killed_in_the_middle_ends_the_client() {
    let temp = tempfile::tempdir().unwrap();
    for signal in ["-KILL", "-STOP"] {
        let server = Server::start();
        let file = long_file(temp.path());
        let put = put_slowly(&file, &server).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(700));
        let status = Command::new("kill").args([signal, &server.child.id().to_string()]).status();
        assert!(status.unwrap().success());
        let killed = Instant::now();
        finish(put).failed(1, "put in to");
        assert!(killed.elapsed() < Duration::from_secs(30), "{signal}: {:?}", killed.elapsed());
        assert_eq!(names(temp.path()), ["in"], "{signal}");
        assert!(server.complete_names().is_empty(), "{signal}: a part of a file has its name");
    }
}

#[test]
fn a_client_killed_in_the_middle_leaves_nothing() {
    let server = Server::start();
    let temp = tempfile::tempdir().unwrap();
    let file = long_file(temp.path());
    let mut put = put_slowly(&file, &server).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    put.kill().unwrap();
    put.wait().unwrap();
    fs::write(&file, b"next").unwrap();
    server.put(&file, &[]).succeeded();
    assert_eq!(server.names(), ["in"]);
}

#[test]
fn the_demo_shows_the_engine_before_the_disk() {
    let (temp, from) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(from.path().join("one"), content(3 << 20)).unwrap();
    let mut demo = program();
    demo.args(["demo", "--size", "8M", "--dir"]).arg(temp.path()).arg("--from").arg(from.path());
    let ended = run(&mut demo).succeeded();
    let source = format!("2 files, 6.00 MiB: {}", from.path().display());
    assert!(ended.out.contains(&source), "{source}: {ended:?}");
    let row = |words: &[&str]| ended.out.lines().any(|line| words.iter().all(|word| line.contains(word)));
    let software = std::env::var_os("FLAGCX_P2P_FABRIC").is_none_or(|fabric| fabric == "software");
    let paths = if software { &["in-process", "tcp"][..] } else { &["rdma"] };
    for path in paths {
        assert!(row(&["memory", path, "bytes"]), "{path}: {}", ended.out);
    }
    for words in [
        &["put (WRITE) GB/s", "get (READ) GB/s"][..],
        &["files", "blake3"],
        &["disk alone", "no engine"],
        &["memory  ", "the engine"],
        &["files  ", "6.00 MiB in"],
    ] {
        assert!(row(words), "{words:?}: {}", ended.out);
    }
    let at = |text: &str| ended.out.find(text).unwrap();
    assert!(
        at("the engine's own rate") < at("memory  ") && at("memory  ") < at("at the pace of the disk"),
        "{}",
        ended.out
    );
    assert!(ended.out.starts_with("the engine's own rate"), "no other number is seen first: {}", ended.out);
    let width = ended.out.lines().map(|line| line.chars().count()).max();
    assert!(width <= Some(80), "{width:?} columns: {}", ended.out);
    assert!(!ended.err.contains("WARN"), "{ended:?}");
    assert!(names(temp.path()).is_empty(), "it cleans up");

    let small = tempfile::tempdir().unwrap();
    run(program().args(["demo", "--from"]).arg(small.path())).failed(2, "no file with content");
    for name in ["a", "b"] {
        fs::write(small.path().join(name), b"small").unwrap();
    }
    let mut demo = program();
    demo.args(["demo", "--size", "1M", "--dir"]).arg(temp.path()).arg("--from").arg(small.path());
    demo.env("FLAGCX_P2P_PATH", "tcp");
    let ended = run(&mut demo).succeeded();
    assert!(
        ended.out.contains("200 files, ") && ended.out.contains("they are small, 5 B at most"),
        "{ended:?}"
    );

    let missing = from.path().join("missing");
    run(program().args(["demo", "--from"]).arg(missing)).failed(2, "is not a directory");
}

#[test]
fn doctor_reports_what_it_finds() {
    let ended = run(program().arg("doctor").env("FLAGCX_P2P_SLICE_SIZE", "65536")).succeeded();
    for word in ["provider", "FLAGCX_P2P_SLICE_SIZE", "65536", "memlock", "GID in use", "because"] {
        assert!(ended.out.contains(word), "{word}: {}", ended.out);
    }
}

#[test]
fn a_missing_library_is_named_with_the_loaders_reason() {
    let mut doctor = program();
    doctor.arg("doctor").env("FLAGCX_P2P_FABRIC", "verbs").env("FLAGCX_P2P_IBVERBS", "libmissing.so");
    let ended = run(&mut doctor);
    assert!(ended.out.contains("libmissing.so: cannot open shared object file"), "{ended:?}");
}

#[test]
fn clients_without_the_right_key_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let key = |name: &str| {
        let path = temp.path().join(name);
        fs::write(&path, format!("a secret of some length: {name}")).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (right, wrong) = (key("right"), key("wrong"));
    let server = Server::start_with(&[("FLAGCX_P2P_AUTH_KEY_FILE", &right)]);
    let open = Server::start();
    let put = |server: &Server, key: Option<&str>| {
        let mut command = program();
        command.arg("put").arg(&right).arg(&server.address).args(["--name", "a"]);
        run(command.envs(key.map(|key| ("FLAGCX_P2P_AUTH_KEY_FILE", key))))
    };
    put(&server, None).failed(1, "requires a key");
    put(&server, Some(&wrong)).failed(1, "pre-shared key differs");
    put(&open, Some(&right)).failed(1, "has no key");
    assert!(server.names().is_empty() && open.names().is_empty());
    put(&server, Some(&right)).succeeded();
    assert_eq!(server.names(), ["a"]);
}

#[test]
fn addresses_outside_the_allow_list_are_refused() {
    let server = Server::start_with(&[("FLAGCX_P2P_ALLOW", "192.0.2.0/24")]);
    let temp = tempfile::tempdir().unwrap();
    server.get("a", &temp.path().join("back"), &[]).failed(1, "closed the connection");
}

//! Interrupted transfers: what has arrived is kept, checked, and continued; no file has its name before it is complete.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, outside #[test] functions"
)]

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Ended, Server, complete_names, finish, names, program, run};

const SIZE: u64 = 32 << 20;
/// A ring with which the file takes half a second or more.
const SLOW: &[&str] = &["--chunk", "4K", "--slots", "1"];

/// A file that is sparse, but for a number every 64 KiB.
fn large(folder: &Path) -> PathBuf {
    let path = folder.join("large");
    let file = File::create(&path).unwrap();
    file.set_len(SIZE).unwrap();
    for at in (0..SIZE).step_by(64 << 10) {
        file.write_all_at(&at.to_le_bytes(), at).unwrap();
    }
    path
}

fn partial(folder: &Path) -> Option<PathBuf> {
    names(folder).into_iter().find(|name| name.ends_with(".partial")).map(|name| folder.join(name))
}

/// Waits until a partial file in `folder` has some MiB.
fn wait_for_partial(folder: &Path) -> PathBuf {
    let started = Instant::now();
    loop {
        if let Some(path) = partial(folder)
            && fs::metadata(&path).unwrap().len() > 2 << 20
        {
            return path;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "nothing arrives");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn start(command: &mut Command) -> Child {
    command.args(SLOW).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn signal(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

fn same(a: &Path, b: &Path) -> bool {
    fs::read(a).unwrap() == fs::read(b).unwrap()
}

/// `"resumed_at"` of the first line of results.
fn resumed_at(ended: &Ended) -> u64 {
    let line: serde_json::Value = serde_json::from_str(ended.out.lines().next().unwrap()).unwrap();
    line["resumed_at"].as_u64().unwrap()
}

#[test]
fn an_interrupted_put_goes_on() {
    let server = Server::start();
    let temp = tempfile::tempdir().unwrap();
    let file = large(temp.path());
    for (signals, code) in [("-INT", Some(130)), ("-KILL", None)] {
        let put = start(program().arg("put").arg(&file).arg(&server.address));
        wait_for_partial(&server.path);
        signal(&put, signals);
        let ended = finish(put);
        assert_eq!(ended.code, code, "{ended:?}");
        if code.is_some() {
            let err = ended.failed(130, "interrupted; what has arrived of large files is kept").err;
            assert!(!err.contains('\u{1b}'), "{err:?}");
        }
        assert!(server.complete_names().is_empty() && partial(&server.path).is_some());
        let ls = run(program().args(["ls", &server.address])).succeeded();
        assert_eq!(ls.out, "", "it is not listed");
        let ended = put_again(&server, &file);
        assert!(resumed_at(&ended) > 2 << 20, "{ended:?}");
        assert!(same(&server.path.join("large"), &file));
        assert_eq!(server.names(), ["large"]);
        fs::remove_file(server.path.join("large")).unwrap();
    }
}

/// Retries while the server has not noticed the end of the killed client yet: its partial file is in use until then.
fn put_again(server: &Server, file: &Path) -> Ended {
    let started = Instant::now();
    loop {
        let ended = server.put(file, &["--json", "--force"]).succeeded();
        if resumed_at(&ended) > 0 || started.elapsed() > Duration::from_secs(10) {
            return ended;
        }
    }
}

#[test]
fn a_put_to_a_killed_server_goes_on_with_the_next() {
    let mut server = Server::start();
    let temp = tempfile::tempdir().unwrap();
    let file = large(temp.path());
    let put = start(program().arg("put").arg(&file).arg(&server.address));
    let kept = wait_for_partial(&server.path);
    server.signal("-KILL");
    server.ended();
    finish(put).failed(1, "put large to");
    // What the kernel has of it is there; what was kept and is damaged is not continued.
    let next = server.next();
    let damaged = File::options().write(true).open(&kept).unwrap();
    damaged.write_all_at(b"x", 1 << 20).unwrap();
    let ended = next.put(&file, &["--json"]).succeeded();
    assert_eq!(resumed_at(&ended), 0, "{ended:?}");
    assert!(ended.err.contains("what was kept of it differs; starting over"), "{ended:?}");
    assert!(same(&server.path.join("large"), &file));
    assert_eq!(server.names(), ["large"]);
}

#[test]
fn an_interrupted_get_goes_on() {
    let server = Server::start();
    let temp = tempfile::tempdir().unwrap();
    let file = large(&server.path);
    let back = temp.path().join("back");
    let get = |more: &[&str]| server.get("large", &back, more);
    for (case, at) in [("continued", 1), ("damaged", 0), ("started over", 0), ("changed", 0)] {
        let mut command = program();
        command.args(["get", "large", &server.address, "-o"]).arg(&back);
        let running = start(&mut command);
        let kept = wait_for_partial(temp.path());
        signal(&running, "-INT");
        finish(running).failed(130, "interrupted");
        assert!(complete_names(temp.path()).is_empty());
        let mut more = vec!["--json"];
        match case {
            "damaged" => File::options().write(true).open(kept).unwrap().write_all_at(b"x", 100).unwrap(),
            "started over" => more.push("--no-resume"),
            "changed" => File::options().write(true).open(&file).unwrap().write_all_at(b"new", 100).unwrap(),
            _ => {}
        }
        let ended = get(&more).succeeded();
        assert_eq!(resumed_at(&ended) > 2 << 20, at == 1, "{case}: {ended:?}");
        assert!(same(&file, &back), "{case}");
        assert_eq!(names(temp.path()), ["back"], "{case}");
        fs::remove_file(&back).unwrap();
    }
}

/// It has waited for longer than the server's limit for a client without progress.
#[test]
fn a_signal_ends_a_put_that_waits_for_its_input() {
    let server = Server::start_with_arguments(&["--idle-limit", "1"]);
    let mut command = program();
    command.args(["put", "-", &server.address, "--name", "a"]).stdin(Stdio::piped());
    let mut put = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    put.stdin.as_mut().unwrap().write_all(&[7; 10_000]).unwrap();
    let input = put.stdin.take();
    std::thread::sleep(Duration::from_millis(1800));
    assert!(put.try_wait().unwrap().is_none(), "it was dropped");
    signal(&put, "-INT");
    finish(put).failed(130, "interrupted");
    drop(input);
    assert!(server.complete_names().is_empty());
}

/// Versions 4 and 6 of the control stream: either side says which versions there are.
#[test]
fn another_version_is_named() {
    for version in [4, 6] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let other = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            // A refusal, as the other version sends it.
            stream.write_all(&[&b"F2"[..], &[version, 3, 0, 0, 0], b"\x08\x01x"].concat()).unwrap();
            let mut open = [0; 3];
            stream.read_exact(&mut open).unwrap();
            assert_eq!(open, *b"F2\x05");
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let text = format!("the peer's control stream has version {version}, this program's has version 5");
        run(program().args(["ls", &address])).failed(1, &text);
        other.join().unwrap();
    }
}

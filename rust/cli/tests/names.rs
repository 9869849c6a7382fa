//! Servers and peers by name, over a list and over etcd.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "helpers of tests, outside #[test] functions"
)]

mod common;
#[path = "../../directory/tests/etcd_server/mod.rs"]
mod etcd_server;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{Ended, Server, program, run};
use etcd_server::free_address;

/// A server under a name in this directory, and its output on standard error.
fn named(url: &str, name: &str) -> Server {
    Server::start_with_arguments(&["--directory", url, "--name", name])
}

/// A command with this directory.
fn with(url: &str, arguments: &[&str]) -> Ended {
    run(program().env("FLAGCX_P2P_DIRECTORY", url).args(arguments))
}

fn list_of(server: &Server) -> String {
    format!("static:store={},other=192.0.2.7:1", server.address)
}

#[test]
fn files_go_to_a_name_and_come_back() {
    let server = Server::start();
    let url = list_of(&server);
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("a");
    fs::write(&file, b"content").unwrap();
    let file = file.to_str().unwrap();
    for (arguments, stored) in [
        (&["put", file, "store:"][..], "a"),
        (&["put", file, "store:b"], "b"),
        (&["put", file, "store:models/"], "models/a"),
        (&["put", file, "store:./7733"], "7733"),
        (&["put", file, "/etc/hosts", "store:two"], ""),
    ] {
        let ended = with(&url, arguments);
        if stored.is_empty() {
            ended
                .failed(2, "two is a name for a single file or folder; two/ is a folder to store several in");
        } else {
            ended.succeeded();
            assert_eq!(fs::read(server.path.join(stored)).unwrap(), b"content", "{arguments:?}");
        }
    }
    with(&url, &["put", file, "store:x", "--name", "y"])
        .failed(2, "two names to store under, --name y, and x");

    let listed = with(&url, &["ls", "store:models/"]).succeeded();
    assert!(listed.out.ends_with("models/a\n") && listed.out.lines().count() == 1, "{listed:?}");
    with(&url, &["ls", "store:models/", "b"]).failed(2, "two prefixes");
    for (arguments, name) in [
        (&["get", "store:models/a"][..], "a"),
        (&["get", "b", "store:"], "b"),
        (&["get", "7733", "store:"], "7733"),
    ] {
        let back = tempfile::tempdir().unwrap();
        let got = run(program().env("FLAGCX_P2P_DIRECTORY", &url).args(arguments).current_dir(back.path()));
        got.succeeded();
        assert_eq!(fs::read(back.path().join(name)).unwrap(), b"content", "{arguments:?}");
    }
    // The option goes before the variable.
    with("static:store=192.0.2.7:1", &["ls", "store:", "--directory", &url]).succeeded();
}

#[test]
fn names_that_lead_nowhere_say_what_there_is() {
    let server = Server::start();
    let url = list_of(&server);
    with(&url, &["get", "stroe:a"]).failed(1, "get a from stroe: static: ");
    with(&url, &["get", "stroe:a"]).failed(1, "has no name stroe; the names there are store, other");
    with(&url, &["put", "/etc/hostname", "stroe:"]).failed(1, "has no name stroe");
    with(&url, &["get", "store:"]).failed(2, "`.` is everything: flagcx-p2p get . store:");
    let gone = format!("static:store={}", free_address());
    with(&gone, &["ls", "store:"]).failed(1, "ls store: store is published at 127.0.0.1:");
    with(&gone, &["ls", "store:"]).failed(1, " refused; is `flagcx-p2p serve` running there?");
    // Neither is anything contacted nor waited for.
    for (url, text) in [
        ("", "no directory is known: give --directory URL, or set FLAGCX_P2P_DIRECTORY"),
        ("redis://127.0.0.1:1", "its kind is unknown"),
        ("static:/no/such/list", "read the list of names /no/such/list: No such file"),
    ] {
        let code = if text.starts_with("read") { 1 } else { 2 };
        with(url, &["peers"]).failed(code, text);
        with(url, &["ls", "store:"]).failed(code, text);
    }
    with(&url, &["serve", ".", "--port", "0", "--name", "a b"]).failed(2, "name \"a b\"");
    // A list cannot be changed by a program.
    with(&url, &["serve", ".", "--port", "0", "--name", "store"]).failed(1, "add the line store=127.0.0.1:");
}

#[test]
fn doctor_says_what_a_name_leads_to() {
    let server = Server::start();
    let url = list_of(&server);
    let found = with(&url, &["doctor", "store:"]).succeeded();
    let line = format!("ok    store: an engine at {}, in static:", server.address);
    assert!(found.out.contains(&line) && found.out.contains("flagcx-p2p serve"), "{found:?}");
    let missing = with(&url, &["doctor", "stor:"]).failed(1, "failures");
    assert!(
        missing.out.contains("fail  stor: ") && missing.out.contains("the names there are store, other"),
        "{missing:?}"
    );
}

#[test]
fn the_names_of_a_list_and_their_changes() {
    let temp = tempfile::tempdir().unwrap();
    let list = temp.path().join("names");
    fs::write(&list, "decode/0=192.0.2.7:1\n").unwrap();
    let url = format!("static:{}", list.display());
    let shown = with(&url, &["peers"]).succeeded();
    assert!(shown.out.contains("decode/0") && shown.out.contains("192.0.2.7:1"), "{shown:?}");
    let json: serde_json::Value =
        serde_json::from_str(&with(&url, &["peers", "--json"]).succeeded().out).unwrap();
    assert_eq!((json[0]["name"].as_str(), json[0]["pid"].as_u64()), (Some("decode/0"), Some(0)));
    let none = with(&url, &["peers", "prefill/"]).succeeded();
    assert!(
        none.out.is_empty() && none.err.contains("no name that begins with prefill/ is published"),
        "{none:?}"
    );

    let mut watch = Watch::start(&url, &[]);
    assert_eq!(watch.next(), "+ decode/0  192.0.2.7:1  ");
    fs::write(&list, "decode/1=192.0.2.7:2\n").unwrap();
    assert_eq!([watch.next(), watch.next()], ["- decode/0", "+ decode/1  192.0.2.7:2  "]);
    assert_eq!(watch.terminated(), 143);
}

/// `peers --watch`.
struct Watch {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Watch {
    fn start(url: &str, arguments: &[&str]) -> Self {
        let mut command = program();
        command.args(["peers", "--watch", "--directory", url]).args(arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn next(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    fn terminated(mut self) -> i32 {
        let sent = std::process::Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn put(url: &str, peer: &str) -> Ended {
    with(url, &["put", "/etc/hostname", peer, "--force"])
}

#[test]
fn no_command_shows_a_password() {
    let url = format!("etcd://user:hunter2@{}/p", free_address());
    for arguments in
        [&["config", "directory"][..], &["config", "--json"], &["doctor"], &["peers"], &["-vv", "ls", "a:"]]
    {
        let ended = run(program()
            .envs([("FLAGCX_P2P_DIRECTORY", url.as_str()), ("FLAGCX_P2P_DIRECTORY_PASSWORD", "hunter2")])
            .args(arguments));
        assert!(!ended.out.contains("hunter2") && !ended.err.contains("hunter2"), "{arguments:?}: {ended:?}");
        assert_eq!(
            ended.out.contains("etcd://user:***@"),
            matches!(arguments[0], "config" | "doctor"),
            "{ended:?}"
        );
    }
}

/// Published, seen, in use, withdrawn at its end.
#[test]
fn a_server_has_its_name_while_it_runs() {
    let Some(etcd) = etcd_server::Server::start() else { return };
    let url = etcd.url("files");
    let mut watch = Watch::start(&url, &["--json"]);
    let mut first = named(&url, "store");
    put(&url, "store:").succeeded();
    let told: serde_json::Value = serde_json::from_str(&watch.next()).unwrap();
    assert_eq!((told["change"].as_str(), told["kind"].as_str()), (Some("published"), Some("serve")));
    assert_eq!(
        (told["address"].as_str(), told["pid"].as_u64()),
        (Some(&*first.address), Some(first.child.id().into()))
    );
    let second = ["serve", "/", "--port", "0", "--name", "store"];
    with(&url, &second).failed(1, "it is in use by the engine at 127.0.0.1:");
    let doctor = with(&url, &["doctor", "store:"]).succeeded();
    assert!(
        doctor.out.contains(&format!(
            "ok    store: serve at {}, process {} of ",
            first.address,
            first.child.id()
        )),
        "{doctor:?}"
    );

    first.signal("-TERM");
    assert!(first.ended().success());
    let told: serde_json::Value = serde_json::from_str(&watch.next()).unwrap();
    assert_eq!(told, serde_json::json!({ "name": "store", "change": "withdrawn" }));
    put(&url, "store:").failed(1, "has no name store; no name is published there");
}

/// It is killed, so that nothing withdraws its name, and takes it over from itself.
#[test]
fn a_server_that_was_started_again_is_found_within_a_second() {
    let Some(etcd) = etcd_server::Server::start() else { return };
    let url = etcd.url("files");
    let mut first = named(&url, "store");
    first.signal("-KILL");
    first.ended();
    put(&url, "store:").failed(1, " refused; is `flagcx-p2p serve` running there?");
    // It says that it listens once it has published.
    let second = named(&url, "store");
    let started = Instant::now();
    put(&url, "store:").succeeded();
    let took = started.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(Path::new(&second.path.join("hostname")).exists());
}

/// Nothing waits for it for long, and addresses work on.
#[test]
fn without_etcd_addresses_work_on() {
    let Some(mut etcd) = etcd_server::Server::start() else { return };
    let url = etcd.url("files");
    let server = named(&url, "store");
    etcd.kill();
    let started = Instant::now();
    put(&url, "store:").failed(1, "check that they run and can be reached");
    with(&url, &["peers"]).failed(1, "check that they run and can be reached");
    with(&url, &["serve", "/", "--port", "0", "--name", "other"]).failed(1, "can be reached");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    put(&url, &server.address).succeeded();
    // The lease is longer than that: it has its name as soon as etcd answers.
    etcd.start_again();
    put(&url, "store:").succeeded();
}

/// One that is stopped answers nothing: each call ends by its limit.
#[test]
fn a_directory_that_is_stopped_is_waited_for_ten_seconds() {
    let Some(etcd) = etcd_server::Server::start() else { return };
    let url = etcd.url("files");
    etcd.pause();
    let started = Instant::now();
    let ended = with(&url, &["peers"]);
    etcd.go_on();
    ended.failed(1, "list");
    let took = started.elapsed();
    assert!(took > Duration::from_secs(2) && took < Duration::from_secs(13), "{took:?}");
}

//! `doctor` of this machine and of peers: what is found, and the status that follows.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, outside #[test] functions"
)]

mod common;

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Ended, Server, program, run};
use flagcx_p2p::internals::fabric::DeviceList;
use flagcx_p2p::{Config, Engine, EngineOptions};
use serde_json::Value;

fn doctor(arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    run(program().arg("doctor").args(arguments).envs(environment.iter().copied()))
}

/// The line of standard output that contains `text`.
#[track_caller]
fn line<'a>(ended: &'a Ended, text: &str) -> &'a str {
    let found = ended.out.lines().find(|line| line.contains(text));
    found.unwrap_or_else(|| panic!("no line with {text:?}: {ended:?}"))
}

/// An engine of this process that peers can connect to, and its `HOST:PORT`.
fn engine(settings: &[(&str, &str)]) -> (Arc<Engine>, String) {
    let all = [&[("FLAGCX_P2P_FABRIC", "software"), ("FLAGCX_P2P_BIND", "127.0.0.1")][..], settings].concat();
    let find =
        |name: &str| all.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let config = Config::from_source(&find);
    // Not those of the process, which have the key of its first engine.
    let devices = Some(Arc::new(DeviceList::open(&config.fabric_options().unwrap()).unwrap()));
    let options = EngineOptions { devices, ..EngineOptions::default() };
    let engine = Engine::open(Arc::new(config), options).unwrap();
    engine.start_rpc_server().unwrap();
    let port = engine.rpc_port().unwrap();
    (engine, format!("127.0.0.1:{port}"))
}

fn key(directory: &Path, name: &str) -> String {
    let path = directory.join(name);
    fs::write(&path, format!("a secret of some length: {name}")).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn findings_are_a_list_of_objects() {
    let ended = doctor(&["--json"], &[("FLAGCX_P2P_SLICE_SIZE", "65536")]).succeeded();
    let findings: Vec<Value> = serde_json::from_str(&ended.out).unwrap();
    for finding in &findings {
        let names: Vec<_> = finding.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["action", "finding", "id", "level", "subject"]);
        assert!(["ok", "warn"].contains(&finding["level"].as_str().unwrap()), "{finding}");
        assert_eq!(finding["level"] == "ok", finding["action"].is_null(), "{finding}");
    }
    let has = |id: &str| findings.iter().any(|finding| finding["id"] == id);
    for id in [
        "setting",
        "memlock",
        "open-files",
        "ptrace-scope",
        "memfd",
        "dev-shm",
        "processors",
        "numa",
        "huge-pages",
    ] {
        assert!(has(id), "{id}: {findings:#?}");
    }
    for id in [
        "cgroup-memory",
        "cgroup-cpu",
        "cgroup-pids",
        "rdma-devices",
        "provider",
        "libibverbs",
        "gpu-runtime",
        "rail-nic",
        "rail-nics",
        "self-test",
    ] {
        assert!(has(id), "{id}: {findings:#?}");
    }
}

#[test]
fn what_does_not_work_is_a_failure() {
    let ended = doctor(&[], &[("FLAGCX_P2P_FABRIC", "verb"), ("FLAGCX_P2P_FABRC", "auto")])
        .failed(1, "findings are failures");
    assert!(line(&ended, "FLAGCX_P2P_FABRIC:").starts_with("fail  "), "{ended:?}");
    assert!(line(&ended, "FLAGCX_P2P_FABRC is not a variable").starts_with("warn  "), "{ended:?}");
    assert!(!ended.out.contains('\x1b'), "no colours where nothing is a terminal: {ended:?}");
}

#[test]
fn a_server_and_its_key() {
    let temp = tempfile::tempdir().unwrap();
    let (right, wrong) = (key(temp.path(), "right"), key(temp.path(), "wrong"));
    let file = "FLAGCX_P2P_AUTH_KEY_FILE";
    let open = Server::start();
    let ended = doctor(&[&open.address], &[]).succeeded();
    for text in [
        "connected in",
        "MTU both ways",
        "flagcx-p2p serve",
        "protocol 1",
        "control channel",
        "where it was reached",
        "lanes work",
        "GIDs: ours",
    ] {
        assert!(line(&ended, text).starts_with("ok  "), "{text}: {ended:?}");
    }
    doctor(&[&open.address], &[(file, &right)]).failed(1, "failures");
    let keyed = Server::start_with(&[(file, &right)]);
    let ended = doctor(&[&keyed.address], &[(file, &right)]).succeeded();
    assert!(line(&ended, "key: ours was accepted").starts_with("ok  "), "{ended:?}");
    for environment in [&[][..], &[(file, wrong.as_str())]] {
        let ended = doctor(&[&keyed.address], environment).failed(1, "failures");
        assert!(ended.out.contains("key"), "{ended:?}");
        assert!(!ended.out.contains("a secret"), "{ended:?}");
    }
}

#[test]
fn an_engine_and_its_key() {
    let temp = tempfile::tempdir().unwrap();
    let (right, wrong) = (key(temp.path(), "right"), key(temp.path(), "wrong"));
    let file = "FLAGCX_P2P_AUTH_KEY_FILE";
    let (_open, address) = engine(&[]);
    let ended = doctor(&[&address], &[]).succeeded();
    for text in
        ["an engine's RPC port", "this engine, protocol 1", "key: none at either end", "path: ", "GIDs: ours"]
    {
        assert!(line(&ended, text).starts_with("ok  "), "{text}: {ended:?}");
    }
    let (_keyed, address) = engine(&[(file, &right)]);
    let ended = doctor(&[&address], &[(file, &right)]).succeeded();
    assert_eq!(ended.err.matches("run chmod 600").count(), 1, "read several times, reported once: {ended:?}");
    let ended = doctor(&[&address], &[]).failed(1, "failures");
    assert!(line(&ended, "the peer requires one").starts_with("fail  "), "{ended:?}");
    let ended = doctor(&[&address], &[(file, &wrong)]).failed(1, "failures");
    assert!(line(&ended, "connection: ").starts_with("fail  "), "{ended:?}");
}

#[test]
fn an_engine_that_announces_another_address() {
    let (_engine, address) = engine(&[("FLAGCX_P2P_BIND", "0.0.0.0"), ("FLAGCX_P2P_ADVERTISE", "127.0.0.2")]);
    let ended = doctor(&[&address, "--timeout", "5"], &[]);
    assert!(line(&ended, "address that the peer announces").contains("127.0.0.2"), "{ended:?}");
}

#[test]
fn peers_that_are_none() {
    let ended = doctor(&["127.0.0.1:1"], &[]).failed(1, "failures");
    assert!(line(&ended, "refused: nothing listens there").starts_with("fail  "), "{ended:?}");

    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in other.incoming().flatten() {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
        }
    });
    let ended = doctor(&[&address], &[]).failed(1, "failures");
    assert!(
        line(&ended, "another program: it sends `SSH-2.0-OpenSSH_9.2").starts_with("fail  "),
        "{ended:?}"
    );
}

#[test]
fn a_peer_that_is_stopped_takes_no_longer_than_asked() {
    let server = Server::start();
    server.signal("-STOP");
    let started = Instant::now();
    let ended = doctor(&[&server.address, "--timeout", "1"], &[]);
    server.signal("-CONT");
    ended.failed(1, "failures");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

//! `stat` against running processes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, outside #[test] functions"
)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Ended, Server, finish, program, run};
use serde_json::Value;

/// A server with its endpoint at a Unix socket in a folder of its own.
fn watched_server() -> (Server, String, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("unix:{}/metrics", folder.path().display());
    let server = Server::start_with(&[("FLAGCX_P2P_METRICS", &address)]);
    (server, address, folder)
}

fn stat(arguments: &[&str]) -> Ended {
    run(program().arg("stat").args(arguments))
}

fn once(target: &str) -> Value {
    let ended = stat(&[target, "--once", "--json", "--interval", "0.05"]).succeeded();
    assert_eq!(ended.out.lines().count(), 1, "{ended:?}");
    serde_json::from_str(&ended.out).unwrap()
}

#[test]
fn a_process_is_found_by_its_address_and_by_its_id() {
    let (server, address, _folder) = watched_server();
    let pid = server.child.id();
    for target in [&address, &pid.to_string()] {
        let summary = once(target);
        assert_eq!(summary["pid"], pid);
        assert_eq!(summary["devices"][0]["provider"], "software", "{summary}");
        assert!(summary["interval_seconds"].as_f64().unwrap() > 0.0);
    }
    let range = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let value = format!("127.0.0.1:{range}-{}", range.saturating_add(9));
    let server = Server::start_with(&[("FLAGCX_P2P_METRICS", &value)]);
    assert_eq!(once(&server.child.id().to_string())["pid"], server.child.id());
    let server = Server::start_with(&[("FLAGCX_P2P_METRICS", "127.0.0.1:0")]);
    let pid = server.child.id().to_string();
    assert_eq!(once(&pid)["pid"], server.child.id(), "among its other listeners");
    let summary = once(&pid);
    assert!(summary["events"].is_array(), "{summary}");
    assert!(!summary["events"].to_string().contains("client_refused"), "they were not asked: {summary}");
}

#[test]
fn tables_follow_each_other_where_there_is_no_terminal() {
    let (_server, address, _folder) = watched_server();
    let ended = stat(&[&address, "--count", "2", "--interval", "0.05"]).succeeded();
    assert!(!ended.out.contains('\x1b'), "{ended:?}");
    assert_eq!(ended.out.matches("flagcx-p2p ").count(), 2, "{ended:?}");
    assert_eq!(ended.out.lines().filter(|line| line.starts_with("device ")).count(), 2, "{ended:?}");
}

#[test]
fn what_cannot_be_watched_is_said_in_a_line() {
    let refused = |arguments: &[&str], code, text: &str| {
        let ended = stat(arguments);
        assert_eq!(ended.code, Some(code), "{arguments:?}: {ended:?}");
        assert!(ended.err.contains(text) && ended.out.is_empty(), "{arguments:?}: {ended:?}");
    };
    let server = Server::start();
    let off = server.child.id().to_string();
    refused(&[&off], 1, "the endpoint is off: FLAGCX_P2P_METRICS was not set");
    let wrong = Server::start_with(&[("FLAGCX_P2P_METRICS", "localhost:1")]);
    refused(&[&wrong.child.id().to_string()], 1, "the endpoint is off: FLAGCX_P2P_METRICS=\"localhost:1\"");
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let held = holder.local_addr().unwrap().to_string();
    let late = Server::start_with(&[("FLAGCX_P2P_METRICS", &held)]);
    refused(&[&late.child.id().to_string()], 1, "it does not listen on FLAGCX_P2P_METRICS");
    refused(&["4294967295"], 1, "there is no such process");
    refused(&["127.0.0.1:1"], 1, "127.0.0.1:1 refused; is the process running");
    refused(&["unix:/nonexistent/metrics"], 1, "No such file");
    // Another protocol behind the address.
    let other = std::thread::spawn(move || {
        let (mut client, _) = holder.accept().unwrap();
        client.write_all(b"SSH-2.0-x\r\n").unwrap();
        let _ = std::io::copy(&mut client, &mut std::io::sink());
    });
    drop(late);
    refused(&[&held, "--once"], 1, "not that of a metrics endpoint");
    other.join().unwrap();
    refused(&["somewhere"], 2, "neither HOST:PORT");
    refused(&["1", "--once", "--count", "2"], 2, "cannot be used with");
    refused(&["1", "--interval", "0"], 2, "0.05 to 3600");
}

/// Ends with the process, and with Ctrl-C.
#[test]
fn it_ends_with_ctrl_c_and_with_the_process() {
    let (mut server, address, _folder) = watched_server();
    let watch = |arguments: &[&str]| -> Child {
        let mut command = program();
        command.args(["stat", &address, "--interval", "0.05"]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut interrupted = watch(&["--json"]);
    let mut line = String::new();
    let mut out = BufReader::new(interrupted.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    assert!(serde_json::from_str::<Value>(&line).is_ok(), "{line}");
    let _ = Command::new("kill").args(["-INT", &interrupted.id().to_string()]).status();
    std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
    assert_eq!(interrupted.wait().unwrap().code(), Some(130));

    let watching = watch(&[]);
    std::thread::sleep(Duration::from_millis(200));
    server.child.kill().unwrap();
    let ended = finish(watching);
    assert_eq!(ended.code, Some(1));
    assert!(ended.out.contains("device "), "what was shown stays: {ended:?}");
    assert!(ended.err.contains("read the metrics of unix:"), "{ended:?}");
}

/// A peer that is stopped in the middle of a transfer.
#[test]
fn a_stopped_peer_is_seen_within_a_second() {
    let server = Server::start_with(&[("FLAGCX_P2P_PATH", "tcp")]);
    let folder = tempfile::tempdir().unwrap();
    let (file, address) = (folder.path().join("large"), format!("unix:{}/metrics", folder.path().display()));
    std::fs::File::create(&file).unwrap().set_len(2 << 30).unwrap();
    let mut put = program();
    put.arg("put").arg(&file).arg(&server.address);
    put.envs([("FLAGCX_P2P_PATH", "tcp"), ("FLAGCX_P2P_METRICS", &address)]);
    let mut put = put.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Either side may move the bytes, and has none under way now and then: the peer is stopped until some stay.
    let begun = Instant::now();
    let look = || -> Option<Value> {
        let ended = stat(&[&address, "--once", "--json", "--interval", "0.05"]);
        let summary: Value = serde_json::from_str(&ended.out).ok()?;
        (summary["totals"]["in_flight"].as_f64()? > 0.0).then_some(summary)
    };
    let (stopped, summary) = loop {
        while look().is_none() {
            let ended = put.try_wait().unwrap();
            assert!(
                begun.elapsed() < Duration::from_secs(20) && ended.is_none(),
                "it does not move: {ended:?}"
            );
        }
        server.signal("-STOP");
        let stopped = Instant::now();
        std::thread::sleep(Duration::from_millis(500));
        if let Some(summary) = look() {
            break (stopped, summary);
        }
        server.signal("-CONT");
    };
    let mut page = String::new();
    let mut stream = UnixStream::connect(address.strip_prefix("unix:").unwrap()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    stream.read_to_string(&mut page).unwrap();
    let seen = stopped.elapsed();
    server.signal("-CONT");
    put.kill().unwrap();
    put.wait().unwrap();
    assert!(seen < Duration::from_secs(1), "{seen:?}");
    let peer = &summary["peers"][0];
    assert!(peer["in_flight"].as_f64().unwrap() > 0.0, "{summary}");
    assert!(peer["oldest_age_seconds"].as_f64().unwrap() >= 0.3, "{summary}");
    let age = page.lines().find_map(|line| line.strip_prefix("flagcx_p2p_oldest_transfer_age_seconds "));
    assert!(age.unwrap().parse::<f64>().unwrap() >= 0.3, "{page}");
    assert_eq!(summary["slow_transfers"][0]["peer"], peer["peer"], "{summary}");
    let rail = &summary["connections"][0]["rails"][0];
    assert_eq!((&rail["rail"], &rail["state"]), (&0.into(), &"up".into()), "{summary}");
    assert_eq!(rail["lanes"].as_f64(), peer["lanes"].as_f64(), "{summary}");
    assert!(rail["in_flight_bytes"].as_u64().unwrap() > 0 && rail["nic"] != "", "{summary}");
    assert!(summary["slow_transfers"][0]["age_seconds"].as_f64().unwrap() >= 0.3, "{summary}");
}

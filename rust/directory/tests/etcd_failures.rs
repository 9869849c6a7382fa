//! Names in a real etcd that is not there, refuses, or comes back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod cable;
mod etcd_server;
mod peer;

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cable::Cable;
use etcd_server::{Server, free_address, is_installed};
use flagcx_p2p_directory::{Change, Error, open};
use peer::{address_of, change, engine, eventually, name, publish, record, soon};
use serde_json::json;

#[test]
fn a_server_that_is_gone_is_a_clear_error_in_bounded_time() {
    let gone = free_address();
    let directory = open(&format!("etcd://{gone},{gone}/p")).unwrap();
    let begun = Instant::now();
    let error = directory.look_up(&name("a"), soon()).unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&gone) && begun.elapsed() < Duration::from_secs(2), "{error}");
    assert!(directory.publish(&name("a"), &record(1), soon()).is_err());
    let mut watch = directory.watch("").unwrap();
    assert_eq!(watch.next(Duration::from_millis(300)).unwrap(), None, "a watch waits for it");

    // Accepts connections and never answers; a name that no server knows.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("etcd://{}/p", silent.local_addr().unwrap());
    let tls = silent.replace("etcd:", "etcds:") + "?ca=/etc/ssl/certs/ca-certificates.crt";
    for url in [silent.as_str(), &tls, "etcd://no-such-host.invalid/p"] {
        let Ok(directory) = open(url) else { continue };
        let begun = Instant::now();
        let error = directory.look_up(&name("a"), begun + Duration::from_millis(700)).unwrap_err();
        let took = begun.elapsed();
        assert!(took < Duration::from_millis(1500), "{url}: {took:?} {error}");
        assert!(matches!(error, Error::Deadline { .. } | Error::Unreachable { .. }), "{error}");
    }
}

#[test]
fn names_survive_a_gap_shorter_than_the_lease() {
    let Some(server) = Server::start() else { return };
    let directory = open(&server.url("p?lease=5")).unwrap();
    let (here, there) = (engine(), engine());
    let lease = publish(&directory, "a", &record(1));
    let mut watch = directory.watch("").unwrap();
    assert!(matches!(change(&mut watch), Change::Published(..)));
    server.pause();
    // Connections by address need no directory.
    let session = format!("127.0.0.1:{}", there.rpc_port().unwrap());
    assert!(here.session(&session).unwrap().is_usable());
    let begun = Instant::now();
    let error = directory.look_up(&name("a"), begun + Duration::from_millis(500)).unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }) && begun.elapsed() < Duration::from_secs(2), "{error}");
    thread::sleep(Duration::from_millis(2500));
    server.go_on();
    for _ in 0..30 {
        assert_eq!(address_of(&directory, "a"), Some("127.0.0.1:1".to_owned()));
        assert!(!lease.lost());
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(watch.next(Duration::ZERO).unwrap(), None, "nothing has changed");
}

#[test]
fn names_are_published_again_after_a_longer_gap() {
    let Some(mut server) = Server::start() else { return };
    let directory = open(&server.url("p?lease=2")).unwrap();
    let lease = publish(&directory, "a", &record(1));
    let taken = publish(&directory, "b", &record(1));
    server.kill();
    eventually("the names have run out", Duration::from_secs(5), || lease.lost() && taken.lost());
    // With nothing of what it had; another one takes a name before the thread comes.
    server.start_empty();
    let other = open(&server.url("p?lease=20")).unwrap();
    let winner = other.publish(&name("b"), &record(2), soon());
    let again = eventually("it is published again", Duration::from_secs(5), || !lease.lost());
    println!("published again {again:?} after etcd was back");
    assert!(address_of(&directory, "a").is_some());
    match winner {
        Ok(winner) => {
            // By a probe of its address, if the thread was the first.
            eventually("the other one is told", Duration::from_secs(5), || taken.lost());
            assert!(!winner.lost());
            drop(taken);
            assert_eq!(other.look_up(&name("b"), soon()).unwrap().unwrap().engine_id, 2);
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_lease_that_was_ended_by_hand_is_replaced() {
    let Some(server) = Server::start() else { return };
    let directory = open(&server.url("p?lease=3")).unwrap();
    let lease = publish(&directory, "a", &record(1));
    let held = server.post("kv/range", &json!({ "key": "L3AvYQ==" }));
    server.post("lease/revoke", &json!({ "ID": held["kvs"][0]["lease"] }));
    assert_eq!(address_of(&directory, "a"), None);
    eventually("it is published again", Duration::from_secs(4), || address_of(&directory, "a").is_some());
    eventually("its lease says so", Duration::from_secs(4), || !lease.lost());
    // A name that is removed by hand comes back too.
    server.post("kv/deleterange", &json!({ "key": "L3AvYQ==" }));
    eventually("it is published again", Duration::from_secs(6), || address_of(&directory, "a").is_some());
}

#[test]
fn a_watch_survives_a_cut_and_a_forgotten_history() {
    let Some(server) = Server::start() else { return };
    let cable = Cable::new(&server.client);
    let directory = open(&server.url("p")).unwrap();
    let first = publish(&directory, "a", &record(1));
    let second = publish(&directory, "b", &record(1));
    let mut watch = open(&format!("etcd://{}/p", cable.address)).unwrap().watch("").unwrap();
    for _ in 0..2 {
        assert!(matches!(change(&mut watch), Change::Published(..)));
    }
    cable.cut();
    drop(first);
    let third = publish(&directory, "c", &record(1));
    let revision = server.revision();
    server.post("kv/compaction", &json!({ "revision": revision.to_string() }));
    assert_eq!(watch.next(Duration::from_millis(300)).unwrap(), None);
    cable.mend();
    assert_eq!(change(&mut watch), Change::Withdrawn(name("a")));
    assert_eq!(change(&mut watch), Change::Published(name("c"), record(1)));
    drop((second, third));
    assert_eq!(change(&mut watch), Change::Withdrawn(name("b")));
    assert_eq!(change(&mut watch), Change::Withdrawn(name("c")));
    // And one with its history.
    cable.cut();
    let fourth = publish(&directory, "d", &record(1));
    cable.mend();
    assert_eq!(change(&mut watch), Change::Published(name("d"), record(1)));
    drop(fourth);
}

/// Another program keeps large values under the prefix. What a watch has missed of them comes in one answer, unless etcd is asked to split it.
#[test]
fn large_values_of_another_program_hold_neither_a_watch_nor_a_list_up() {
    let Some(server) = Server::start() else { return };
    let cable = Cable::new(&server.client);
    let directory = open(&server.url("p")).unwrap();
    let mut watch = open(&format!("etcd://{}/p", cable.address)).unwrap().watch("").unwrap();
    let first = publish(&directory, "a", &record(1));
    assert_eq!(change(&mut watch), Change::Published(name("a"), record(1)));
    cable.cut();
    // 16 MiB, at "/p/large", in a form that is no record.
    let value = "A".repeat(1 << 20);
    for _ in 0..20 {
        server.post("kv/put", &json!({ "key": "L3AvbGFyZ2U=", "value": value }));
    }
    let second = publish(&directory, "b", &record(1));
    cable.mend();
    assert_eq!(change(&mut watch), Change::Published(name("b"), record(1)));
    assert!(cable.take().received > 20 << 20, "all came, in parts");
    for number in 0..10 {
        let key = STANDARD.encode(format!("/p/large{number}"));
        server.post("kv/put", &json!({ "key": key, "value": value }));
    }
    let found = directory.list("", soon()).unwrap();
    assert_eq!(found.len(), 2, "in smaller pages");
    drop((first, second));
}

#[test]
fn user_and_password_are_checked_and_not_shown() {
    let Some(mut server) = Server::start() else { return };
    for (path, body) in [
        ("auth/user/add", json!({ "name": "root", "password": "root-secret" })),
        ("auth/user/grant", json!({ "user": "root", "role": "root" })),
        ("auth/user/add", json!({ "name": "peer", "password": "hunter:2" })),
        ("auth/role/add", json!({ "name": "names" })),
        // From "/p/" to "/p0".
        (
            "auth/role/grant",
            json!({ "name": "names", "perm": { "permType": 2, "key": "L3Av", "range_end": "L3Aw" } }),
        ),
        ("auth/user/grant", json!({ "user": "peer", "role": "names" })),
        ("auth/enable", json!({})),
    ] {
        let answer = server.post(path, &body);
        assert!(answer.get("error").is_none(), "{path}: {answer}");
    }
    let place = server.client.clone();
    let at = |user: &str, rest: &str| open(&format!("etcd://{user}{place}/{rest}")).unwrap();
    let denied = |user: &str, rest: &str| {
        let directory = at(user, rest);
        assert!(!format!("{directory:?} {}", directory.describe()).contains("hunter"));
        let error = directory.look_up(&name("a"), soon()).unwrap_err();
        assert!(matches!(error, Error::Denied { .. }), "{error}");
        let mut watch = directory.watch("").unwrap();
        let watched = watch.next(Duration::from_secs(5)).unwrap_err();
        assert!(matches!(watched, Error::Denied { .. }), "{watched}");
        let published = directory.publish(&name("a"), &record(1), soon()).unwrap_err();
        for error in [error, watched, published] {
            assert!(!format!("{error} {error:?}").contains("hunter"), "{error}");
        }
    };
    denied("", "p");
    denied("peer:hunter-wrong@", "p");
    denied("nothing:hunter@", "p");
    denied("peer:hunter%3A2@", "q");

    let directory = at("peer:hunter:2@", "p?lease=3");
    let lease = publish(&directory, "a", &record(1));
    let mut watch = directory.watch("").unwrap();
    assert!(matches!(change(&mut watch), Change::Published(..)));
    // A server that was started again knows no token of before.
    server.kill();
    server.start_again();
    assert!(address_of(&directory, "a").is_some());
    thread::sleep(Duration::from_secs(4));
    assert!(
        address_of(&directory, "a").is_some() && !lease.lost(),
        "the lease is prolonged with a new token"
    );
    drop(lease);
    assert_eq!(change(&mut watch), Change::Withdrawn(name("a")));
}

#[test]
fn tls_needs_a_certificate_that_is_known() {
    if !is_installed() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let openssl = |arguments: &str| {
        let common = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj";
        let made = Command::new("openssl")
            .args(common.split(' ').chain(arguments.split(' ')))
            .current_dir(folder.path())
            .output();
        let made = made.expect("openssl is installed");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    openssl("/CN=known -out known.pem -keyout known.key");
    openssl("/CN=other -out other.pem -keyout other.key");
    let names = "-addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE";
    openssl(&format!("/CN=etcd -CA known.pem -CAkey known.key {names} -out etcd.pem -keyout etcd.key"));
    let (known, other, key) = (file("known.pem"), file("other.pem"), file("etcd.key"));
    let server = Server::with_tls(&file("etcd.pem"), &key);
    let at = |rest: &str| open(&format!("etcds://{}/p{rest}", server.client)).unwrap();
    let directory = at(&format!("?ca={}", known.display()));
    let lease = publish(&directory, "a", &record(1));
    let mut watch = directory.watch("").unwrap();
    assert!(matches!(change(&mut watch), Change::Published(..)));
    drop(lease);
    assert_eq!(change(&mut watch), Change::Withdrawn(name("a")));

    let unknown = at(&format!("?ca={}", other.display()));
    let begun = Instant::now();
    let error = unknown.look_up(&name("a"), soon()).unwrap_err().to_string();
    assert!(error.contains("certificate") && begun.elapsed() < Duration::from_secs(2), "{error}");
    let plain = open(&format!("etcd://{}/p", server.client)).unwrap();
    let error = plain.look_up(&name("a"), Instant::now() + Duration::from_secs(2)).unwrap_err();
    println!("without TLS: {error}");
    for (file, what) in [("/no/such/file", "No such file"), (key.to_str().unwrap(), "no certificate")] {
        let error = open(&format!("etcds://h/p?ca={file}")).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
}

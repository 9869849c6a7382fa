//! The client before servers that err.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::played::{Answer, Played, settings, store, text};
use super::watching;
use crate::{Change, Directory, Error, Name, Record};

fn name() -> Name {
    Name::new("a").unwrap()
}

fn within(milliseconds: u64) -> Instant {
    Instant::now() + Duration::from_millis(milliseconds)
}

/// "/p/a", and the record of h:1.
const FOUND: &str = r#"{"header":{"revision":"5"},"kvs":[{"key":"L3AvYQ==","mod_revision":"5","value":"eyJhZGRyZXNzIjoiaDoxIn0="}]}"#;

#[test]
fn what_is_no_answer_of_etcd_is_an_error_that_says_so() {
    let huge = format!(r#"{{"kvs":[],"x":"{}"}}"#, "x".repeat(9 << 20));
    let cases = [
        Answer::Text(200, "<html>".to_owned()),
        Answer::Text(200, r#"{"kvs":[{"key":"no base64!"}]}"#.to_owned()),
        Answer::Text(404, "Not Found".to_owned()),
        Answer::Text(302, String::new()),
        Answer::Text(200, "[".repeat(1 << 20)),
    ];
    for answer in cases {
        let answer = std::sync::Mutex::new(Some(answer));
        let server = Played::new(move |_| answer.lock().unwrap().take().unwrap_or(Answer::Close));
        let error = store(&[&server.address], None).find(&name(), within(3000)).unwrap_err();
        assert!(matches!(error, Error::Answer { .. }), "{error}");
        assert!(error.to_string().contains(&server.address), "{error}");
    }
    for answer in [
        Answer::Text(200, huge),
        Answer::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_vec()),
        Answer::Raw(b"SSH-2.0-x\r\n".to_vec()),
        Answer::Raw([&b"HTTP/1.1 200 OK\r\nX: "[..], &b"x".repeat(1 << 20)].concat()),
        Answer::Text(503, "busy".to_owned()),
        Answer::Drip(Duration::from_millis(20)),
        Answer::Silence(Duration::from_secs(5)),
        Answer::Close,
    ] {
        let answer = std::sync::Mutex::new(Some(answer));
        let server = Played::new(move |_| answer.lock().unwrap().take().unwrap_or(Answer::Close));
        let begun = Instant::now();
        let error = store(&[&server.address], None).find(&name(), within(600)).unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        assert!(matches!(error, Error::Deadline { .. }), "{error}");
    }
}

#[test]
fn servers_are_tried_in_turn_and_the_good_one_is_kept() {
    let bad =
        Played::new(|_| Answer::Text(503, r#"{"code":14,"message":"etcdserver: no leader"}"#.to_owned()));
    let good = Played::new(|_| text(FOUND));
    let store = store(&["127.0.0.1:1", &bad.address, &good.address], None);
    for _ in 0..3 {
        assert!(store.find(&name(), within(3000)).unwrap().is_some());
    }
    assert_eq!((bad.seen().len(), good.seen().len()), (1, 3));
}

#[test]
fn a_busy_server_is_asked_again_until_the_deadline() {
    let count = AtomicUsize::new(0);
    let server = Played::new(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0..3 => Answer::Text(503, r#"{"code":14,"message":"etcdserver: leader changed"}"#.to_owned()),
        _ => text(FOUND),
    });
    assert!(store(&[&server.address], None).find(&name(), within(5000)).unwrap().is_some());
    assert_eq!(server.seen().len(), 4);
}

#[test]
fn a_token_is_renewed_once_and_sent_in_its_header_only() {
    let issued = AtomicUsize::new(0);
    let server = Played::new(move |request| match request.path.as_str() {
        "/v3/auth/authenticate" => {
            text(&format!(r#"{{"token":"t{}"}}"#, issued.fetch_add(1, Ordering::SeqCst)))
        }
        _ if request.token.as_deref() == Some("t1") => text(FOUND),
        _ => Answer::Text(401, r#"{"code":16,"message":"etcdserver: invalid auth token"}"#.to_owned()),
    });
    let store = store(&[&server.address], Some(("u", "hunter2")));
    assert!(store.find(&name(), within(3000)).unwrap().is_some());
    assert!(store.find(&name(), within(3000)).unwrap().is_some());
    let seen = server.seen();
    let paths: Vec<_> = seen.iter().map(|request| request.path.trim_start_matches("/v3/")).collect();
    assert_eq!(paths, ["auth/authenticate", "kv/range", "auth/authenticate", "kv/range", "kv/range"]);
    let with_password = seen.iter().filter(|request| request.body.contains("hunter2")).count();
    assert_eq!(with_password, 2);
    assert!(!format!("{store:?}").contains("hunter2") && !format!("{store:?}").contains("t1"), "{store:?}");
}

#[test]
fn a_token_that_is_never_accepted_ends_with_the_deadline() {
    for token in ["t", "", "a\\r\\nb"] {
        let server = Played::new(move |request| match request.path.as_str() {
            "/v3/auth/authenticate" => text(&format!(r#"{{"token":"{token}"}}"#)),
            _ => Answer::Text(401, r#"{"code":16,"message":"etcdserver: invalid auth token"}"#.to_owned()),
        });
        let begun = Instant::now();
        let error = store(&[&server.address], Some(("u", "p"))).find(&name(), within(500)).unwrap_err();
        assert!(matches!(error, Error::Deadline { .. } | Error::Answer { .. }), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
}

#[test]
fn a_server_without_users_is_used_without_a_token() {
    let server = Played::new(|request| match request.path.as_str() {
        "/v3/auth/authenticate" => Answer::Text(
            412,
            r#"{"code":9,"message":"etcdserver: authentication is not enabled"}"#.to_owned(),
        ),
        _ => text(FOUND),
    });
    assert!(store(&[&server.address], Some(("u", "p"))).find(&name(), within(3000)).unwrap().is_some());
}

#[test]
fn pages_are_joined() {
    let server = Played::new(|request| {
        if request.body.contains(r#""key":"L3Av""#) {
            return text(&FOUND.replacen('{', r#"{"more":true,"#, 1));
        }
        assert!(request.body.contains(r#""revision":"5""#), "{request:?}");
        // "/p/b"
        text(&FOUND.replace("L3AvYQ==", "L3AvYg==").replace(r#""revision":"5"}"#, r#""revision":"9"}"#))
    });
    let listed = store(&[&server.address], None).list("", within(3000)).unwrap();
    assert_eq!((listed.names.len(), listed.revision), (2, 5));
}

#[test]
fn a_watch_reports_a_bad_line_and_goes_on() {
    let count = AtomicUsize::new(0);
    let server = Played::new(move |request| match (request.path.as_str(), count.load(Ordering::SeqCst)) {
        ("/v3/watch", number) => {
            count.fetch_add(1, Ordering::SeqCst);
            match number {
                0 => text("{\"result\":{\"created\":true}}\nno JSON\n"),
                // Half a line.
                1 => text("{\"result\":{\"events\":[{\"type\":\"DELETE\""),
                2 => text("{\"error\":{\"grpc_code\":14,\"message\":\"etcdserver: no leader\"}}\n"),
                _ => text(
                    "{\"result\":{\"header\":{\"revision\":\"6\"},\"events\":[{\"type\":\"DELETE\",\"kv\":{\"key\":\"L3AvYQ==\"}}]}}\n",
                ),
            }
        }
        _ => text(FOUND),
    });
    let store = std::sync::Arc::new(store(&[&server.address], None));
    let mut watch = watching::start(store, "").unwrap();
    let mut next = || watch.next(Duration::from_secs(10));
    assert_eq!(next().unwrap(), Some(Change::Published(name(), Record::of_address("h:1"))));
    let error = next().unwrap_err();
    assert!(matches!(error, Error::Answer { .. }), "{error}");
    assert_eq!(next().unwrap(), Some(Change::Withdrawn(name())));
}

#[test]
fn withdrawing_many_names_waits_for_a_silent_server_once() {
    let server = Played::new(|request| match request.path.as_str() {
        "/v3/lease/grant" => text(r#"{"ID":"7","TTL":"2"}"#),
        "/v3/kv/txn" if request.body.contains("request_put") => text(r#"{"succeeded":true}"#),
        _ => Answer::Silence(Duration::from_secs(30)),
    });
    let etcd = super::Etcd::new(settings(&[&server.address], None)).unwrap();
    let publish = |number: usize| {
        etcd.publish(&Name::new(&format!("n{number}")).unwrap(), &Record::of_address("h:1"), within(5000))
    };
    let leases: Vec<_> = (0..50).map(|number| publish(number).unwrap()).collect();
    let begun = Instant::now();
    drop(leases);
    drop(etcd);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

//! The client before servers that err.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

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
        Answer::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_vec()),
        Answer::Raw(b"SSH-2.0-x\r\n".to_vec()),
        Answer::Raw([&b"HTTP/1.1 200 OK\r\nX: "[..], &b"x".repeat(1 << 20)].concat()),
        Answer::Text(503, "busy".to_owned()),
        Answer::Drip(200, Duration::from_millis(20)),
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
fn an_answer_that_is_too_long_is_told_as_that() {
    let huge = format!(r#"{{"kvs":[],"x":"{}"}}"#, "x".repeat(9 << 20));
    let server = Played::new(move |_| text(&huge));
    let begun = Instant::now();
    let error = store(&[&server.address], None).find(&name(), within(5000)).unwrap_err();
    assert!(matches!(error, Error::TooLong { limit: 8_388_608, .. }), "{error}");
    for said in [server.address.as_str(), "look up", "8 MiB", "/PREFIX"] {
        assert!(error.to_string().contains(said), "{said}: {error}");
    }
    assert!(begun.elapsed() < Duration::from_secs(3) && server.seen().len() == 1, "it is not asked again");
}

#[test]
fn a_list_takes_smaller_pages_where_values_are_large() {
    // Each value has 40 KiB, and there are 500.
    let server = Played::new(|request| {
        let body: serde_json::Value = serde_json::from_str(&request.body).unwrap();
        let number = |field: &str| body[field].as_str().and_then(|text| text.parse().ok());
        let limit: usize = number("limit").unwrap();
        let key = String::from_utf8(STANDARD.decode(body["key"].as_str().unwrap()).unwrap()).unwrap();
        let digits: String = key.chars().filter(char::is_ascii_digit).collect();
        let first = digits.parse().map_or(0, |last: usize| last + 1);
        let values: Vec<_> = (first..500.min(first + limit))
            .map(|number| {
                let key = STANDARD.encode(format!("/p/n{number:03}"));
                let record = format!(r#"{{"address":"h:1"}}{}"#, " ".repeat(40 << 10));
                serde_json::json!({ "key": key, "mod_revision": "5", "value": STANDARD.encode(record) })
            })
            .collect();
        let more = first + values.len() < 500;
        text(&serde_json::json!({ "header": { "revision": "5" }, "kvs": values, "more": more }).to_string())
    });
    let listed = store(&[&server.address], None).list("", within(20_000)).unwrap();
    // Records of that size are none of ours.
    assert_eq!((listed.names.len(), listed.revision), (0, 5));
    let asked = server.seen().len();
    assert!((6..30).contains(&asked), "{asked} requests");
}

#[test]
fn an_error_of_a_streamed_answer_has_its_code_and_its_text() {
    let is_told = |error: &Error| matches!(error, Error::Refused { code: 12, reason, .. } if reason.contains("space exceeded"));
    for body in [
        // The gateway of 3.4 and 3.5 before the first line of a stream, that of 3.6, and without a stream.
        r#"{"error":{"grpc_code":8,"http_code":429,"message":"etcdserver: mvcc: database space exceeded","http_status":"X"}}"#,
        r#"{"error":{"code":8,"message":"etcdserver: mvcc: database space exceeded","details":[]}}"#,
        r#"{"error":"etcdserver: mvcc: database space exceeded","code":8,"message":"etcdserver: mvcc: database space exceeded"}"#,
    ] {
        let body = body.replace(":8,", ":12,");
        for status in [501, 200] {
            let text = body.clone() + "\n";
            let server = Played::new(move |_| Answer::Text(status, text.clone()));
            let error = store(&[&server.address], None).keep_alive(7, within(1000)).unwrap_err();
            assert!(error.to_string().contains(&server.address), "{error}");
            assert!(is_told(&error), "{status}: {error}");
        }
        let server = Played::new(move |request| match request.path.as_str() {
            "/v3/watch" => Answer::Text(501, body.clone()),
            _ => text(FOUND),
        });
        let mut watch = watching::start(std::sync::Arc::new(store(&[&server.address], None)), "").unwrap();
        assert!(watch.next(Duration::from_secs(10)).unwrap().is_some());
        let error = watch.next(Duration::from_secs(10)).unwrap_err();
        assert!(is_told(&error), "{error}");
    }
}

#[test]
fn a_denial_has_its_code_and_a_canceled_watch_has_too() {
    let server = Played::new(|_| {
        Answer::Text(403, r#"{"code":7,"message":"etcdserver: permission denied"}"#.to_owned())
    });
    let error = store(&[&server.address], None).find(&name(), within(1000)).unwrap_err();
    assert!(matches!(error, Error::Denied { code: 7, .. }), "{error}");
    let server = Played::new(|request| match request.path.as_str() {
        "/v3/watch" => text(
            "{\"result\":{\"canceled\":true,\"cancel_reason\":\"rpc error: code = OutOfRange desc = etcdserver: future\"}}\n",
        ),
        _ => text(FOUND),
    });
    let mut watch = watching::start(std::sync::Arc::new(store(&[&server.address], None)), "").unwrap();
    assert!(watch.next(Duration::from_secs(10)).unwrap().is_some());
    let error = watch.next(Duration::from_secs(10)).unwrap_err();
    assert!(matches!(error, Error::Refused { code: 11, .. }), "{error}");
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

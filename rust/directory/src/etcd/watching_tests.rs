//! A watch before a gateway that sends too much, or too slowly.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::played::{Answer, Played, store, text};
use super::watching;
use crate::{Change, Error, Name, Record};

/// "/p/a", and the record of h:1.
const A: &str = r#"{"header":{"revision":"5"},"kvs":[{"key":"L3AvYQ==","mod_revision":"5","value":"eyJhZGRyZXNzIjoiaDoxIn0="}]}"#;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

#[test]
fn a_line_that_is_too_long_is_told_and_the_watch_goes_on_by_a_list() {
    let (watches, lists) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let server = Played::new(move |request| match request.path.as_str() {
        "/v3/watch" if watches.fetch_add(1, Ordering::SeqCst) == 0 => {
            text(&format!("{{\"result\":{{\"x\":\"{}\"}}}}\n", "x".repeat(9 << 20)))
        }
        "/v3/watch" if request.body.contains(r#""start_revision":"6""#) => {
            // The same place again would have the same line.
            text(&format!("{{\"result\":{{\"x\":\"{}\"}}}}\n", "x".repeat(9 << 20)))
        }
        "/v3/watch" => Answer::Silence(Duration::from_secs(30)),
        _ if lists.fetch_add(1, Ordering::SeqCst) == 0 => text(A),
        // "/p/b"
        _ => text(&A.replace("L3AvYQ==", "L3AvYg==").replace(r#""revision":"5""#, r#""revision":"8""#)),
    });
    let mut watch = watching::start(Arc::new(store(&[&server.address], None)), "").unwrap();
    let mut next = || watch.next(Duration::from_secs(10));
    assert_eq!(next().unwrap(), Some(Change::Published(name("a"), Record::of_address("h:1"))));
    let error = next().unwrap_err();
    assert!(matches!(error, Error::TooLong { limit: 8_388_608, .. }), "{error}");
    for said in [server.address.as_str(), "8 MiB", "/PREFIX"] {
        assert!(error.to_string().contains(said), "{said}: {error}");
    }
    let changes = [next().unwrap(), next().unwrap()];
    let published = Change::Published(name("b"), Record::of_address("h:1"));
    assert!(changes.contains(&Some(Change::Withdrawn(name("a")))), "{changes:?}");
    assert!(changes.contains(&Some(published)), "{changes:?}");
}

#[test]
fn etcd_is_asked_to_split_what_is_large_and_a_part_is_not_the_end_of_its_revision() {
    let count = AtomicUsize::new(0);
    let server = Played::new(move |request| match request.path.as_str() {
        "/v3/watch" => {
            assert!(request.body.contains(r#""fragment":true"#), "{request:?}");
            let at_seven = |more: &str, key: &str| {
                format!(
                    "{{\"result\":{{{more}\"events\":[{{\"kv\":{{\"key\":\"{key}\",\"mod_revision\":\"7\",\"value\":\"eyJhZGRyZXNzIjoiaDoxIn0=\"}}}}]}}}}\n"
                )
            };
            match count.fetch_add(1, Ordering::SeqCst) {
                // The server ends between two parts of revision 7: "/p/b", then "/p/c".
                0 => text(&at_seven("\"fragment\":true,", "L3AvYg==")),
                _ if request.body.contains(r#""start_revision":"7""#) => {
                    text(&(at_seven("\"fragment\":true,", "L3AvYg==") + &at_seven("", "L3AvYw==")))
                }
                _ => Answer::Silence(Duration::from_secs(30)),
            }
        }
        _ => text(A),
    });
    let mut watch = watching::start(Arc::new(store(&[&server.address], None)), "").unwrap();
    for expected in ["a", "b", "c"] {
        let change = watch.next(Duration::from_secs(10)).unwrap();
        assert_eq!(change, Some(Change::Published(name(expected), Record::of_address("h:1"))));
    }
}

#[test]
fn a_dropped_watch_ends_before_a_gateway_that_drips() {
    for status in [200, 500] {
        let server = Played::new(move |request| match request.path.as_str() {
            "/v3/watch" => Answer::Drip(status, Duration::from_millis(20)),
            _ => text(A),
        });
        let store = Arc::new(store(&[&server.address], None));
        let mut watch = watching::start(Arc::clone(&store), "").unwrap();
        assert!(watch.next(Duration::from_secs(10)).unwrap().is_some());
        let begun = Instant::now();
        while server.seen().len() < 2 {
            assert!(begun.elapsed() < Duration::from_secs(10), "it streams");
            sleep(Duration::from_millis(10));
        }
        let begun = Instant::now();
        drop(watch);
        assert!(begun.elapsed() < Duration::from_millis(100), "the drop itself waits for nothing");
        while Arc::strong_count(&store) > 1 {
            assert!(begun.elapsed() < Duration::from_secs(2), "status {status}: the thread goes on");
            sleep(Duration::from_millis(10));
        }
    }
}

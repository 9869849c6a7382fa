//! The lease and its names before a gateway that is slow, silent, or forgets.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Etcd;
use super::played::{Answer, Played, Request, settings, text};
use crate::{Directory, Error, Lease, Name, Record};

/// Of the lease in `settings`.
const TTL: Duration = Duration::from_secs(2);

/// An etcd with one lease at a time, as far as a keeper needs one.
#[derive(Default)]
struct Kept {
    lease: i64,
    ends: Option<Instant>,
    values: HashMap<String, String>,
    slow_put: Duration,
    slow_delete: Duration,
}

impl Kept {
    /// Whether `lease` has not run out.
    fn lives(&mut self, lease: &str) -> bool {
        if self.ends.is_none_or(|ends| Instant::now() >= ends) {
            self.values.clear();
            self.ends = None;
        }
        self.ends.is_some() && lease == self.lease.to_string()
    }

    fn answer(kept: &Mutex<Self>, request: &Request) -> Answer {
        let body: Value = serde_json::from_str(&request.body).unwrap();
        let success = &body["success"][0];
        let (put, delete) = (&success["request_put"], &success["request_delete_range"]);
        let wait = match (put.is_object(), delete.is_object()) {
            (true, _) => kept.lock().unwrap().slow_put,
            (_, true) => kept.lock().unwrap().slow_delete,
            _ => Duration::ZERO,
        };
        thread::sleep(wait);
        let key = put["key"].as_str().or_else(|| delete["key"].as_str()).unwrap_or_default();
        if STANDARD.decode(key).unwrap().ends_with(b"forbidden") {
            return Answer::Text(403, r#"{"code":7,"message":"etcdserver: permission denied"}"#.to_owned());
        }
        let mut kept = kept.lock().unwrap();
        let lease = put["lease"].as_str().or_else(|| body["ID"].as_str()).unwrap_or_default();
        let lives = kept.lives(lease);
        let (id, ttl) = (lease.to_owned(), if lives { "2" } else { "-1" });
        let answer = match request.path.trim_start_matches("/v3/") {
            "lease/grant" => {
                kept.lease += 1;
                kept.ends = Some(Instant::now() + TTL);
                json!({ "ID": kept.lease.to_string(), "TTL": "2" })
            }
            "lease/keepalive" => {
                if lives {
                    kept.ends = Some(Instant::now() + TTL);
                }
                json!({ "result": { "ID": id, "TTL": ttl } })
            }
            "lease/timetolive" => {
                json!({ "ID": id, "TTL": ttl, "keys": kept.values.keys().collect::<Vec<_>>() })
            }
            "kv/txn" if put.is_object() && !lives => {
                return Answer::Text(404, r#"{"code":5,"message":"requested lease not found"}"#.to_owned());
            }
            "kv/txn" if put.is_object() => {
                let (key, value) = (put["key"].as_str().unwrap(), put["value"].as_str().unwrap());
                match kept.values.get(key) {
                    Some(there) if body["compare"][0]["target"] == "CREATE" => {
                        let there = json!({ "key": key, "value": there, "mod_revision": "1" });
                        json!({ "succeeded": false, "responses": [{ "response_range": { "kvs": [there] } }] })
                    }
                    _ => {
                        kept.values.insert(key.to_owned(), value.to_owned());
                        json!({ "succeeded": true })
                    }
                }
            }
            "kv/txn" => {
                let is_there = kept.values.remove(delete["key"].as_str().unwrap()).is_some();
                json!({ "succeeded": is_there })
            }
            _ => json!({}),
        };
        text(&answer.to_string())
    }
}

fn play() -> (Arc<Mutex<Kept>>, Played) {
    let kept = Arc::new(Mutex::new(Kept::default()));
    let server = Arc::clone(&kept);
    (kept, Played::new(move |request| Kept::answer(&server, request)))
}

fn open(server: &Played) -> Arc<Etcd> {
    Arc::new(Etcd::new(settings(&[&server.address], None)).unwrap())
}

fn publish(etcd: &Etcd, name: &str, milliseconds: u64) -> Result<Lease, Error> {
    let deadline = Instant::now() + Duration::from_millis(milliseconds);
    etcd.publish(&Name::new(name).unwrap(), &Record::of_address("h:1"), deadline)
}

#[test]
fn names_that_take_longer_to_publish_than_the_lease_lasts_come_back_all() {
    let (kept, server) = play();
    let etcd = open(&server);
    let leases: Vec<_> = (0..30).map(|n| publish(&etcd, &format!("n{n}"), 5000).unwrap()).collect();
    {
        let mut kept = kept.lock().unwrap();
        kept.slow_put = Duration::from_millis(100);
        (kept.ends, kept.values) = (None, HashMap::new());
    }
    let begun = Instant::now();
    while kept.lock().unwrap().values.len() < leases.len() || leases.iter().any(Lease::lost) {
        assert!(begun.elapsed() < Duration::from_secs(10), "{}", kept.lock().unwrap().values.len());
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(kept.lock().unwrap().lease, 2, "one new lease holds them");
}

#[test]
fn a_name_that_is_published_while_it_is_withdrawn_stays() {
    let (kept, server) = play();
    let etcd = open(&server);
    let first = publish(&etcd, "a", 5000).unwrap();
    kept.lock().unwrap().slow_delete = Duration::from_millis(400);
    let withdrawing = thread::spawn(move || drop(first));
    thread::sleep(Duration::from_millis(100));
    let second = publish(&etcd, "a", 5000).unwrap();
    withdrawing.join().unwrap();
    assert_eq!(kept.lock().unwrap().values.len(), 1, "the second publication");
    assert!(!second.lost());
    drop(second);
    assert_eq!(kept.lock().unwrap().values.len(), 0);
}

#[test]
fn a_withdrawal_that_finds_its_name_in_work_is_made_up_for() {
    let (kept, server) = play();
    let etcd = open(&server);
    let first = publish(&etcd, "a", 5000).unwrap();
    kept.lock().unwrap().slow_put = Duration::from_millis(600);
    let again = Arc::clone(&etcd);
    // Too slow: it fails, and the name may be there.
    let publishing = thread::spawn(move || publish(&again, "a", 300).map(drop));
    thread::sleep(Duration::from_millis(100));
    let error = first.withdraw(Instant::now() + Duration::from_millis(50)).unwrap_err();
    assert!(error.to_string().contains("another thread publishes"), "{error}");
    assert!(publishing.join().unwrap().is_err());
    let begun = Instant::now();
    thread::sleep(Duration::from_millis(700));
    while !kept.lock().unwrap().values.is_empty() {
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "the lease is prolonged, so only the thread removes it"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_call_waits_for_the_lease_of_another_by_its_own_deadline() {
    let server = Played::new(|_| Answer::Silence(Duration::from_secs(30)));
    let etcd = open(&server);
    let other = Arc::clone(&etcd);
    let slow = thread::spawn(move || publish(&other, "a", 2500).map(drop));
    thread::sleep(Duration::from_millis(100));
    let begun = Instant::now();
    let error = publish(&etcd, "b", 300).unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?} {error}", begun.elapsed());
    assert!(slow.join().unwrap().is_err());
}

#[test]
fn a_name_that_may_not_be_written_keeps_no_other_from_being_looked_after() {
    let (kept, server) = play();
    let etcd = open(&server);
    let lease = publish(&etcd, "held", 1000).unwrap();
    let error = publish(&etcd, "forbidden", 1000).unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error}");
    // By hand. It is found out when the lease's names are asked for, and the name is published again.
    kept.lock().unwrap().values.clear();
    let started = Instant::now();
    while kept.lock().unwrap().values.is_empty() || lease.lost() {
        assert!(started.elapsed() < 4 * TTL, "nothing looks after the name");
        thread::sleep(Duration::from_millis(20));
    }
}

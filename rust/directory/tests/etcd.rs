//! Names in a real etcd of one member: how they live and die.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod etcd_server;
mod peer;

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use etcd_server::{Server, free_address};
use flagcx_p2p_directory::{Change, EngineDirectory, Error, Record, open};
use peer::{Peer, address_of, change, engine, eventually, name, publish, record, run_as_peer, soon};

#[test]
fn a_name_is_published_found_listed_watched_and_withdrawn() {
    let Some(server) = Server::start() else { return };
    let directory = open(&server.url("site/one")).unwrap();
    let other = open(&server.url("site/two")).unwrap();
    let mut watch = directory.watch("").unwrap();
    assert_eq!(directory.look_up(&name("a"), soon()).unwrap(), None);

    let told = Record { host: "h".to_owned(), session: Some("s".to_owned()), ..record(7) };
    let lease = publish(&directory, "a", &told);
    assert_eq!(directory.look_up(&name("a"), soon()).unwrap(), Some(told.clone()));
    assert_eq!(change(&mut watch), Change::Published(name("a"), told.clone()));
    let second = publish(&directory, "b/1", &record(8));
    assert_eq!(change(&mut watch), Change::Published(name("b/1"), record(8)));
    let all = directory.list("", soon()).unwrap();
    assert_eq!(all, [(name("a"), told), (name("b/1"), record(8))]);
    assert_eq!(directory.list("b/", soon()).unwrap().len(), 1);
    assert_eq!(other.list("", soon()).unwrap(), [], "another prefix");
    assert_eq!(directory.list("nothing", soon()).unwrap(), []);

    // A watch that begins late is told what there is, and one of a group nothing else.
    let mut late = directory.watch("b/").unwrap();
    assert_eq!(change(&mut late), Change::Published(name("b/1"), record(8)));
    lease.withdraw(soon()).unwrap();
    drop(second);
    assert_eq!(change(&mut watch), Change::Withdrawn(name("a")));
    assert_eq!(change(&mut watch), Change::Withdrawn(name("b/1")));
    assert_eq!(change(&mut late), Change::Withdrawn(name("b/1")));
    assert_eq!(watch.next(Duration::from_millis(50)).unwrap(), None);
    assert_eq!(directory.list("", soon()).unwrap(), []);
}

#[test]
fn a_killed_peer_vanishes_with_its_lease() {
    let Some(server) = Server::start() else { return };
    let url = server.url("p?lease=2");
    let directory = open(&url).unwrap();
    let mut peer = Peer::start(&url, "a");
    assert_eq!(address_of(&directory, "a"), Some(peer.address.clone()));
    // It lives longer than its lease.
    thread::sleep(Duration::from_secs(3));
    assert!(address_of(&directory, "a").is_some());
    peer.kill();
    let gone =
        eventually("the name vanishes", Duration::from_secs(4), || address_of(&directory, "a").is_none());
    println!("gone {gone:?} after the kill, with a lease of 2 s");
    assert!(gone > Duration::from_secs(1), "{gone:?}: the lease lives on for a while");
}

#[test]
fn a_restarted_peer_is_found_within_a_second() {
    let Some(server) = Server::start() else { return };
    let url = server.url("p?lease=60");
    let directory = open(&url).unwrap();
    let engine = engine();
    let mut watch = directory.watch("").unwrap();
    let mut first = Peer::start(&url, "a");
    assert!(matches!(change(&mut watch), Change::Published(..)));
    let connection = engine.connect_name("a", &*directory, soon()).unwrap();
    assert!(connection.is_usable());
    assert!(Arc::ptr_eq(&connection, &engine.connect_name("a", &*directory, soon()).unwrap()));
    first.kill();
    eventually("its end is noticed", Duration::from_secs(10), || !connection.is_usable());

    let begun = Instant::now();
    let error = engine.connect_name("a", &*directory, soon()).unwrap_err();
    assert!(matches!(error, Error::PeerGone { .. } | Error::Engine(_)), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());

    // The name still holds the dead one's record, for a minute.
    let second = Peer::start(&url, "a");
    let published = Instant::now();
    let connection = engine.connect_name("a", &*directory, soon()).unwrap();
    println!("connected again {:?} after the publishing", published.elapsed());
    assert!(published.elapsed() < Duration::from_secs(1), "{:?}", published.elapsed());
    assert_eq!(connection.peer().control.to_string(), second.address);
    let Change::Published(_, record) = change(&mut watch) else { panic!("a change of the record") };
    assert_eq!(record.address, second.address);
}

#[test]
fn a_peer_that_is_restarted_at_its_port_is_found() {
    let Some(server) = Server::start() else { return };
    let url = server.url("p?lease=60");
    let directory = open(&url).unwrap();
    let engine = engine();
    let port: u16 = free_address().rsplit_once(':').unwrap().1.parse().unwrap();
    let ports = format!("{}-{port}", port - 20);
    let mut first = Peer::start_at(&ports, &url, "a");
    let former = engine.connect_name("a", &*directory, soon()).unwrap();
    first.kill();
    let second = Peer::start_at(&ports, &url, "a");
    let connection = engine.connect_name("a", &*directory, soon()).unwrap();
    assert_ne!(connection.peer().incarnation, former.peer().incarnation);
    assert!(connection.is_usable() && !former.is_usable());
    assert!(Arc::ptr_eq(&connection, &engine.connect_name("a", &*directory, soon()).unwrap()));
    if second.address != first.address {
        println!("not tested: a port of {ports} was taken, and the second peer has another one");
    }
}

#[test]
fn a_name_in_use_is_refused_while_its_peer_answers() {
    let Some(server) = Server::start() else { return };
    let url = server.url("p");
    let directory = open(&url).unwrap();
    let peer = Peer::start(&url, "a");
    let engine = engine();
    let refused = |what: &str| {
        let error = engine.publish("a", &*directory).unwrap_err();
        assert!(
            matches!(&error, Error::NameInUse { address, .. } if *address == peer.address),
            "{what}: {error}"
        );
    };
    refused("it runs");
    peer.signal("-STOP");
    let begun = Instant::now();
    refused("it is stopped, and may go on");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let begun = Instant::now();
    let error = engine.connect_name("a", &*directory, begun + Duration::from_millis(700)).unwrap_err();
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}: {error}", begun.elapsed());
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
    peer.signal("-CONT");
    assert_eq!(address_of(&directory, "a"), Some(peer.address.clone()));

    // The same engine may publish a name again.
    let lease = engine.publish("b", &*directory).unwrap();
    let again = engine.publish("b", &*directory).unwrap();
    assert!(lease.lost() && !again.lost());
    drop(lease);
    assert!(address_of(&directory, "b").is_some(), "the later one holds it");
}

#[test]
fn a_name_is_not_taken_over_from_what_is_no_record() {
    let Some(server) = Server::start() else { return };
    let directory = open(&server.url("p")).unwrap();
    // "/p/a" and "configuration of something else".
    server.post(
        "kv/put",
        &serde_json::json!({ "key": "L3AvYQ==", "value": "Y29uZmlndXJhdGlvbiBvZiBzb21ldGhpbmcgZWxzZQ==" }),
    );
    let error = directory.publish(&name("a"), &record(1), soon()).unwrap_err();
    assert!(matches!(error, Error::Record { .. }), "{error}");
    assert!(matches!(directory.look_up(&name("a"), soon()), Err(Error::Record { .. })));
    assert_eq!(directory.list("", soon()).unwrap(), []);
}

#[test]
fn of_two_that_publish_at_once_one_wins() {
    let Some(server) = Server::start() else { return };
    let engines = [engine(), engine()];
    let barrier = Arc::new(Barrier::new(2));
    let threads = engines.map(|engine| {
        let (barrier, url) = (Arc::clone(&barrier), server.url("p"));
        thread::spawn(move || {
            let directory = open(&url).unwrap();
            let tries = (0..20).map(|number| {
                barrier.wait();
                engine.publish(&format!("n{number}"), &*directory)
            });
            let tries: Vec<_> = tries.collect();
            barrier.wait();
            (engine, tries)
        })
    });
    let [first, second] = threads.map(|thread| thread.join().unwrap());
    let directory = open(&server.url("p")).unwrap();
    for (number, (one, other)) in first.1.iter().zip(&second.1).enumerate() {
        let winner = match (one, other) {
            (Ok(_), Err(Error::NameInUse { .. })) => &first.0,
            (Err(Error::NameInUse { .. }), Ok(_)) => &second.0,
            other => panic!("{other:?}"),
        };
        let address = winner.record("test").unwrap().address;
        assert_eq!(address_of(&directory, &format!("n{number}")), Some(address));
    }
}

#[test]
fn a_name_that_leads_to_another_engine_is_found_out() {
    let Some(server) = Server::start() else { return };
    let directory = open(&server.url("p")).unwrap();
    let (engine, other) = (engine(), engine());
    let told = Record { engine_id: 1, ..other.record("test").unwrap() };
    let lease = publish(&directory, "a", &told);
    let error = engine.connect_name("a", &*directory, soon()).unwrap_err();
    assert!(matches!(error, Error::OtherEngine { published: 1, .. }), "{error}");
    let error = engine.connect_name("b", &*directory, soon()).unwrap_err();
    assert!(matches!(error, Error::NotPublished { .. }), "{error}");
    // Its place is free for the engine that answers there, and for any other one.
    let taken = engine.publish("a", &*directory).unwrap();
    assert!(!taken.lost());
    drop(lease);
}

#[test]
fn a_name_that_was_taken_over_is_lost() {
    let Some(server) = Server::start() else { return };
    let url = server.url("p?lease=2");
    let (here, there) = (open(&url).unwrap(), open(&url).unwrap());
    // Nothing listens at the address of the first.
    let first = publish(&here, "a", &record(1));
    let second = publish(&there, "a", &record(2));
    eventually("the first one is told", Duration::from_secs(6), || first.lost());
    drop(first);
    assert_eq!(there.look_up(&name("a"), soon()).unwrap().unwrap().engine_id, 2);
    assert!(!second.lost());
}

/// Not a test of its own: what the other process of the tests above runs.
#[test]
fn process_of_a_peer() {
    run_as_peer();
}

//! A thousand names in a real etcd: what they cost. The figures of docs/directory.md are what this prints.
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

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cable::Cable;
use etcd_server::Server;
use flagcx_p2p_directory::{Change, Directory, Record, open};
use peer::{change, name, publish, record, soon};

const NAMES: usize = 1000;

#[test]
fn a_thousand_names_have_one_lease() {
    let Some(server) = Server::start() else { return };
    let directory = open(&server.url("p?lease=10")).unwrap();
    let mut watch = directory.watch("").unwrap();
    let begun = Instant::now();
    let leases: Vec<_> = (0..NAMES).map(|n| publish(&directory, &format!("n{n:04}"), &typical(n))).collect();
    let took = begun.elapsed();
    println!("published {NAMES} names: {took:?}, {:?} each", took / NAMES as u32);
    for _ in 0..NAMES {
        assert!(matches!(change(&mut watch), Change::Published(..)));
    }
    let granted = server.post("lease/leases", &serde_json::json!({}));
    assert_eq!(granted["leases"].as_array().unwrap().len(), 1, "one lease for all: {granted}");

    let begun = Instant::now();
    let all = directory.list("", soon()).unwrap();
    println!("listed {} names: {:?}", all.len(), begun.elapsed());
    assert_eq!(all.len(), NAMES);
    let mut times: Vec<_> = (0..200)
        .map(|n| {
            let begun = Instant::now();
            assert!(directory.look_up(&name(&format!("n{:04}", n * 5)), soon()).unwrap().is_some());
            begun.elapsed()
        })
        .collect();
    times.sort();
    println!("look-up: median {:?}, slowest of 200 {:?}", times[100], times[199]);

    let mut delays: Vec<_> = (0..100)
        .map(|n| {
            let begun = Instant::now();
            let lease = publish(&directory, &format!("late{n}"), &typical(n));
            assert!(matches!(change(&mut watch), Change::Published(..)));
            let delay = begun.elapsed();
            drop(lease);
            assert!(matches!(change(&mut watch), Change::Withdrawn(..)));
            delay
        })
        .collect();
    delays.sort();
    println!(
        "from the call that publishes to the change in a watch: median {:?}, slowest of 100 {:?}",
        delays[50], delays[99]
    );
    assert!(delays[99] < Duration::from_secs(1), "{delays:?}");

    let begun = Instant::now();
    drop(leases);
    println!("withdrew {NAMES} names: {:?}", begun.elapsed());
    for _ in 0..NAMES {
        assert!(matches!(change(&mut watch), Change::Withdrawn(..)));
    }
    assert_eq!(directory.list("", soon()).unwrap(), []);
}

/// Two of its periods with the lease of 10 s: minutes are not needed, 20 s are.
#[test]
fn traffic_of_a_lease() {
    if std::env::var_os("FLAGCX_P2P_TEST_SHARE").is_none() {
        println!("not run: it measures for 20 s: ./x proofs");
        return;
    }
    let Some(server) = Server::start() else { return };
    for names in [1, NAMES] {
        let cable = Cable::new(&server.client);
        let directory: Arc<dyn Directory> = open(&format!("etcd://{}/t{names}", cable.address)).unwrap();
        let leases: Vec<_> =
            (0..names).map(|n| publish(&directory, &format!("n{n:04}"), &typical(n))).collect();
        cable.take();
        sleep(Duration::from_secs(20));
        let carried = cable.take();
        let (kept, checked) =
            (carried.count("POST /v3/lease/keepalive"), carried.count("POST /v3/lease/timetolive"));
        println!(
            "{names} names for 20 s: {kept} times kept alive, {checked} times checked, {} bytes/s sent, {} bytes/s received",
            carried.sent.len() / 20,
            carried.received / 20
        );
        assert!((4..=8).contains(&kept) && checked <= 3, "{kept} {checked}");
        assert!(leases.iter().all(|lease| !lease.lost()));

        drop(leases);
        drop(directory);
        let watch = open(&format!("etcd://{}/t{names}", cable.address)).unwrap().watch("").unwrap();
        sleep(Duration::from_secs(1));
        cable.take();
        sleep(Duration::from_secs(10));
        let carried = cable.take();
        let opened = carried.count("POST /v3/watch");
        println!(
            "a watch without changes for 10 s: opened {opened} times, {} bytes/s",
            (carried.sent.len() + carried.received) / 10
        );
        assert!(opened <= 3, "{opened}");
        drop(watch);
    }
}

/// As large as an engine's.
fn typical(number: usize) -> Record {
    Record {
        address: format!("192.0.2.7:{}", 7000 + number),
        session: Some(format!("192.0.2.7:{}?0?7001", 7000 + number)),
        version: "0.1.0".to_owned(),
        started_at: 1_700_000_000_000,
        host: "decode-pool-7.example".to_owned(),
        pid: 12345,
        ..record(0x1234_5678_9abc_def0)
    }
}

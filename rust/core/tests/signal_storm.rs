//! The whole life of connections while calls of both processes are interrupted over and over, as by a profiler.
//!
//! An interrupted call must never change what becomes of it: each connect takes the path that it takes without signals,
//! each transfer is done, each notification is taken.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod chaos;
mod support;

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use chaos::buffer::Buffer;
use chaos::peer::{INTERRUPTED, Peer, STORM_US, executable};
use chaos::random::Random;
use chaos::rig::{Rig, Settings, Way, settings_for};
use chaos::round::{self, FAMILIES};
use chaos::storm::Storm;
use chaos::tally::Tally;
use flagcx_p2p::internals::fabric::{PathKind, Paths};
use flagcx_p2p::internals::notify::Message;

/// Over the path that is found, and over the other one.
const WAYS: [(Way, PathKind); 2] =
    [(Way::CrossMemory, PathKind::CrossMemory), (Way::TcpBetweenProcesses, PathKind::Tcp)];

/// In the environment of the process in which every other call is interrupted.
const ROLE: &str = "FLAGCX_P2P_TEST_INTERRUPTED_CALLS";

/// Signals of a profiler: as many as the threads take, by chance in every place.
#[test]
fn no_signal_changes_a_path_or_an_outcome() {
    let rigs = WAYS.map(|(way, _)| start(way, (STORM_US, "200")));
    let _storm = Storm::begin(Duration::from_micros(200));
    for ((settings, peer), (_, path)) in rigs.into_iter().zip(WAYS) {
        live(120, &settings, peer, path);
    }
    println!("{} signals", Storm::delivered());
    assert!(Storm::delivered() > 1000);
}

/// Every call in its turn, for certain: also where this kernel never interrupts it.
#[test]
fn no_interrupted_call_changes_a_path_or_an_outcome() {
    if !cfg!(target_arch = "x86_64") {
        println!("not run: calls can be interrupted for certain on x86-64 only");
        return;
    }
    let output = Command::new(executable())
        .args(["--exact", "interrupted_process", "--nocapture", "--test-threads=1"])
        .env(ROLE, "")
        .output()
        .unwrap();
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success() && text.contains("calls were interrupted"), "{text}");
}

/// Not a test of its own: what the process of the test above runs.
#[test]
fn interrupted_process() {
    if std::env::var(ROLE).is_err() {
        println!("not run: it is what the other process of the tests here runs");
        return;
    }
    let _ = tracing_subscriber::fmt().with_ansi(false).try_init();
    #[cfg(target_arch = "x86_64")]
    {
        let rigs = WAYS.map(|(way, _)| start(way, (INTERRUPTED, "")));
        chaos::interrupts::begin();
        for ((settings, peer), (_, path)) in rigs.into_iter().zip(WAYS) {
            live(30, &settings, peer, path);
        }
        println!("{} calls were interrupted", chaos::interrupts::count());
        assert!(chaos::interrupts::count() > 1000);
    }
}

type Owned = Vec<(&'static str, &'static str)>;

/// Settings and a peer with them, which is started before anything is interrupted: what starts it could not bear that. The path is
/// found, not forced, where the way is the one that is found.
fn start(way: Way, of_peer: (&'static str, &'static str)) -> (Owned, Peer) {
    let mut settings = settings_for(way, &[of_peer]);
    settings.retain(|(name, value)| (*name, *value) != ("FLAGCX_P2P_PATH", "cross-memory"));
    let peer = Peer::start(&settings);
    (settings, peer)
}

/// Connects so often, and moves, notifies and closes each time.
fn live(times: usize, settings: &Settings<'_>, peer: Peer, path: PathKind) {
    let mut rig = Rig::towards(support::engine(settings), peer);
    let (mut random, mut tally) = (Random::new(1), Tally::new("signals", 1));
    for turn in 0..times {
        if turn % 8 == 7 {
            let client = support::engine(settings);
            rig.arena.near = Buffer::new(&client, chaos::rig::length());
            rig.client = client;
        }
        let port = rig.peer.as_ref().unwrap().port;
        rig.here = rig.client.connect("127.0.0.1", port, 0, false).unwrap();
        assert_eq!(rig.here.info().paths, Paths::both(path), "connect {turn}");
        assert!(round::run(&rig, FAMILIES[turn % FAMILIES.len()], &mut random, &mut tally), "{tally:?}");
        let message = Message::new(b"signals", &turn.to_le_bytes());
        assert!(rig.here.send_notification(&message).is_ok());
        Arc::clone(&rig.here).close();
    }
    assert_eq!((tally.false_successes, tally.damaged, tally.hangs), (0, 0, 0), "{tally:?}");
}

/// Not a test of its own: what the other process of the tests above runs.
#[test]
fn peer_process() {
    chaos::peer::play();
}

//! Sessions towards peers that are down, and that come back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod support;

use std::time::{Duration, Instant};

/// Connects that are refused give up after this, in milliseconds.
const PATIENCE: &str = "1000";

/// What does not even try takes less.
const AT_ONCE: Duration = Duration::from_millis(500);

fn free_port(address: std::net::IpAddr) -> u16 {
    std::net::TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port()
}

#[test]
fn a_dead_peer_costs_only_its_own_callers_and_is_found_again() {
    let client = support::engine(&[("FLAGCX_P2P_CONNECT_TIMEOUT_MS", PATIENCE)]);
    let alive = support::engine(&[]);
    alive.start_rpc_server().unwrap();
    let living = format!("{}:{}", alive.address(), alive.rpc_port().unwrap());
    assert!(client.session(&living).unwrap().is_usable());

    let port = free_port(client.address());
    let dead = format!("{}:{port}", alive.address());
    let begin = Instant::now();
    assert!(client.session(&dead).is_err());
    assert!(begin.elapsed() >= AT_ONCE, "the first call tries");
    // Further calls within the window do not. It doubles each time, so a slow machine meets it too.
    let fails_at_once = || {
        let begin = Instant::now();
        let error = client.session(&dead).unwrap_err().to_string();
        error.contains("not tried") && begin.elapsed() < AT_ONCE
    };
    assert!((0..5).any(|_| fails_at_once()));
    // Nor do other peers suffer.
    let begin = Instant::now();
    assert!(client.session(&living).unwrap().is_usable());
    assert!(begin.elapsed() < AT_ONCE);

    let range = format!("{port}-{}", port.saturating_add(40));
    let back = support::engine(&[("FLAGCX_P2P_PORT_RANGE", &range)]);
    assert_eq!(back.rpc_port(), Some(port), "the port is free again");
    back.start_rpc_server().unwrap();
    support::eventually("the peer is found again", || client.session(&dead).is_ok());
}

#[test]
fn a_restarted_peer_is_another_one() {
    let client = support::engine(&[]);
    let port = free_port(client.address());
    let range = format!("{port}-{}", port.saturating_add(40));
    let first = support::engine(&[("FLAGCX_P2P_PORT_RANGE", &range)]);
    assert_eq!(first.rpc_port(), Some(port));
    first.start_rpc_server().unwrap();
    let session = format!("{}:{port}", first.address());
    let before = client.session(&session).unwrap();
    first.close();
    drop(first);
    support::eventually("the end is noticed", || !before.is_usable());
    // The port is free when `close` returns.
    let second = support::engine(&[("FLAGCX_P2P_PORT_RANGE", &range)]);
    assert_eq!(second.rpc_port(), Some(port));
    second.start_rpc_server().unwrap();
    let after = client.session(&session).unwrap();
    assert!(after.is_usable() && before.peer().incarnation != after.peer().incarnation);
}

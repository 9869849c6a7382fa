//! Sessions towards peers that are down, and that come back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod support;

use std::time::{Duration, Instant};

/// Connects that are refused give up after this, in milliseconds.
const PATIENCE: &str = "1000";

/// A call that tries takes longer than this.
const TRIED: Duration = Duration::from_millis(900);

/// What does not try takes less. Of several calls, the quickest counts: a machine that stalls slows some.
const AT_ONCE: Duration = Duration::from_millis(50);

const CALLS: u32 = 20;

/// How long a call took, and its result.
fn timed<T>(call: impl FnOnce() -> T) -> (Duration, T) {
    let begin = Instant::now();
    let result = call();
    (begin.elapsed(), result)
}

/// A port that no other program is given meanwhile: below those that the system chooses. The tests give different `range`s.
fn free_port(address: std::net::IpAddr, range: std::ops::Range<u16>) -> u16 {
    let other_processes = std::process::id() as usize % 100;
    let mut free = range.filter(|port| std::net::TcpListener::bind((address, *port)).is_ok());
    free.nth(other_processes).unwrap()
}

#[test]
fn a_dead_peer_costs_only_its_own_callers_and_is_found_again() {
    let client = support::engine(&[("FLAGCX_P2P_CONNECT_TIMEOUT_MS", PATIENCE)]);
    let alive = support::engine(&[]);
    alive.start_rpc_server().unwrap();
    let living = format!("{}:{}", alive.address(), alive.rpc_port().unwrap());
    assert!(client.session(&living).unwrap().is_usable());

    let port = free_port(client.address(), 20_000..24_000);
    let dead = format!("{}:{port}", alive.address());
    let begin = Instant::now();
    let (took, result) = timed(|| client.session(&dead));
    assert!(result.is_err() && took >= TRIED, "the first call tries; it took {took:?}");
    // Further calls within the window do not.
    let calls = (0..CALLS).map(|_| timed(|| client.session(&dead).unwrap_err().to_string()));
    let (refused, tried): (Vec<_>, Vec<_>) = calls.partition(|(_, error)| error.contains("not tried"));
    assert!(tried.iter().all(|(took, _)| *took >= TRIED), "{tried:?}");
    assert!(refused.iter().any(|(took, _)| *took < AT_ONCE), "{refused:?}");
    // Each window is twice as long as the one before, the first 100 ms: a stalled machine makes time for few.
    let windows = Duration::from_millis(100) * ((1 << tried.len()) - 1);
    assert!(
        begin.elapsed() >= windows,
        "{} of {CALLS} calls tried within {:?}",
        tried.len(),
        begin.elapsed()
    );
    // Nor do other peers suffer.
    let calls = (0..CALLS).map(|_| timed(|| assert!(client.session(&living).unwrap().is_usable())));
    assert!(calls.min().is_some_and(|(took, ())| took < AT_ONCE));

    let range = format!("{port}-{}", port.saturating_add(40));
    let back = support::engine(&[("FLAGCX_P2P_PORT_RANGE", &range)]);
    assert_eq!(back.rpc_port(), Some(port), "the port is free again");
    back.start_rpc_server().unwrap();
    support::eventually("the peer is found again", || client.session(&dead).is_ok());
}

#[test]
fn a_restarted_peer_is_another_one() {
    let client = support::engine(&[]);
    let port = free_port(client.address(), 24_000..28_000);
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

//! Asynchronous events of the kernel's soft-RoCE device reach the engine's connections: the network interface below
//! it is turned off and on, and loses its address.
//!
//! Runs where `FLAGCX_P2P_TEST_RXE=1`, as in the guest of `tests/rdma-vm`; the tests reconfigure its interface.
#![cfg(feature = "verbs")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod support;

use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::observe;
use flagcx_p2p::internals::transfer::{Outcome, Status};
use support::{Pair, content, eventually, outcome, pattern};

/// The interface below the guest's soft-RoCE device, and its address.
const INTERFACE: &str = "dummy0";
const ADDRESS: &str = "10.77.0.1/24";
const OTHER_ADDRESS: &str = "10.79.0.1/24";

/// Longer than lanes wait for a port, and for a rebuild behind it.
const GIVEN_UP: Duration = Duration::from_secs(15);

const LENGTH: usize = 1 << 16;

/// The interface and the metrics are shared: one test at a time, and none outside the guest.
fn alone() -> Option<MutexGuard<'static, ()>> {
    static ALONE: Mutex<()> = Mutex::new(());
    if std::env::var_os("FLAGCX_P2P_TEST_RXE").is_none() {
        println!("not run: FLAGCX_P2P_TEST_RXE is not set; tests/rdma-vm/run.sh sets it in its guest");
        return None;
    }
    Some(ALONE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Two engines with a control plane that does not depend on the interface.
fn pair() -> Pair {
    // Soft-RoCE takes the default number of retries, 7, for ever.
    Pair::with(LENGTH, &[("FLAGCX_P2P_BIND", "127.0.0.1"), ("FLAGCX_IB_RETRY_CNT", "6")])
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("iproute2's ip runs");
    assert!(status.success(), "ip {arguments}");
}

/// The interface as it was, whatever becomes of the test.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        ip(&format!("link set {INTERFACE} up"));
        ip(&format!("address replace {ADDRESS} dev {INTERFACE}"));
        let _ = Command::new("ip").args(["address", "del", OTHER_ADDRESS, "dev", INTERFACE]).output();
    }
}

/// Starts a WRITE of fresh bytes and gives them too.
fn start(pair: &Pair, seed: u64) -> (flagcx_p2p::internals::transfer::TransferId, Vec<u8>) {
    let bytes = pattern(seed, LENGTH);
    assert!(pair.source.write(0, &bytes));
    (pair.here.submit(Opcode::Write, &[pair.iov(0, 0, LENGTH as u64)]).unwrap(), bytes)
}

fn write(pair: &Pair, seed: u64) {
    let (id, bytes) = start(pair, seed);
    assert_eq!(outcome(&pair.here, id), Outcome::Done);
    assert!(content(&pair.target) == bytes);
}

fn healthy(pair: &Pair) -> bool {
    [&pair.here, &pair.there].iter().all(|end| end.info().healthy_lanes == end.info().lanes)
}

fn events(kind: &str) -> u64 {
    let page = observe::prometheus_text(&observe::registry().snapshot()).unwrap();
    let of_kind = |line: &&str| {
        line.starts_with("flagcx_p2p_device_events") && line.contains(&format!("kind=\"{kind}\""))
    };
    page.lines().filter(of_kind).filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[test]
fn a_transfer_waits_for_a_link_that_comes_back() {
    let Some(_alone) = alone() else { return };
    let _restored = Restored;
    let pair = pair();
    write(&pair, 1);
    let before = [events("port-down"), events("port-up")];
    ip(&format!("link set {INTERFACE} down"));
    eventually("the lanes leave working order", || pair.here.info().healthy_lanes == 0);
    assert_eq!(events("port-down"), before[0] + 1);
    let (id, bytes) = start(&pair, 2);
    assert_eq!(pair.here.wait(id, Duration::from_millis(500)), Status::Pending);
    let begin = Instant::now();
    ip(&format!("link set {INTERFACE} up"));
    assert_eq!(outcome(&pair.here, id), Outcome::Done);
    println!("done {:?} after the link came back", begin.elapsed());
    assert!(content(&pair.target) == bytes);
    eventually("all lanes are back", || healthy(&pair));
    assert_eq!(events("port-up"), before[1] + 1);
}

#[test]
fn a_link_that_stays_down_fails_what_it_carries() {
    let Some(_alone) = alone() else { return };
    let _restored = Restored;
    let pair = pair();
    write(&pair, 1);
    let before = events("port-up");
    let begin = Instant::now();
    ip(&format!("link set {INTERFACE} down"));
    let (id, _) = start(&pair, 2);
    let ended = outcome(&pair.here, id);
    assert!(matches!(ended, Outcome::Failed(_)), "{ended:?}");
    eventually("both ends end", || !pair.here.is_usable() && !pair.there.is_usable());
    println!("given up after {:?}", begin.elapsed());
    assert!(begin.elapsed() < GIVEN_UP, "it took {:?}", begin.elapsed());
    ip(&format!("link set {INTERFACE} up"));
    eventually("the port is known to be up", || events("port-up") > before);
    write(&Pair::between(Arc::clone(&pair.client), Arc::clone(&pair.server), LENGTH), 3);
}

#[test]
fn lanes_move_to_the_address_that_is_left() {
    let Some(_alone) = alone() else { return };
    let _restored = Restored;
    let pair = pair();
    write(&pair, 1);
    let gid = || pair.client.device().unwrap().port().unwrap().gid;
    let (before, lanes) = (gid(), pair.here.info().lanes);
    ip(&format!("address add {OTHER_ADDRESS} dev {INTERFACE}"));
    ip(&format!("address del {ADDRESS} dev {INTERFACE}"));
    eventually("another GID is in use", || gid() != before);
    eventually("every lane is rebuilt", || rebuilds(&pair) >= lanes as u64 && healthy(&pair));
    write(&pair, 2);
    println!("GID now: {}", pair.client.device().unwrap().port().unwrap().gid_reason);
}

fn rebuilds(pair: &Pair) -> u64 {
    let page = observe::prometheus_text(&observe::registry().snapshot()).unwrap();
    let peer = format!("peer=\"{}\"", pair.here.info().peer);
    let of_peer = |line: &&str| line.starts_with("flagcx_p2p_peer_lane_rebuilds") && line.contains(&peer);
    page.lines().filter(of_peer).filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

//! The verbs provider over the kernel's soft-RoCE device, with real libibverbs.
//!
//! Runs where `FLAGCX_P2P_TEST_RXE=1`, as in the guest of `tests/rdma-vm`; there a missing device is a failure.
#![cfg(feature = "verbs")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod conformance;

use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use conformance::initiator::{request, writes};
use conformance::remote::{ROLE, RemotePeer, serve};
use conformance::{Initiator, LocalPeer, Peer, Rig, Window, caps, run};
use flagcx_p2p::internals::fabric::*;

/// About a second until an unreachable peer is given up: 4.096 us * 2^16, four times.
const GIVES_UP: VerbsOptionsOf = VerbsOptionsOf { timeout: 16, retry_count: 3 };
/// What the engine uses by default, which on soft-RoCE means to try for ever.
const FOR_EVER: VerbsOptionsOf = VerbsOptionsOf { timeout: 18, retry_count: 7 };

#[derive(Clone, Copy)]
struct VerbsOptionsOf {
    timeout: u8,
    retry_count: u8,
}

/// Tests that count what the process and the device hold must not run beside others, so none does.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_enabled() -> bool {
    let enabled = std::env::var_os("FLAGCX_P2P_TEST_RXE").is_some();
    if !enabled {
        println!("not run: FLAGCX_P2P_TEST_RXE is not set; tests/rdma-vm/run.sh sets it in its guest");
    }
    enabled
}

fn open(patience: VerbsOptionsOf) -> Arc<dyn Device> {
    let VerbsOptionsOf { timeout, retry_count } = patience;
    let options = VerbsOptions { timeout, retry_count, hca: "rxe".to_owned(), ..VerbsOptions::default() };
    verbs::open(&options).unwrap().remove(0)
}

fn in_process(device: &Arc<dyn Device>) -> Rig {
    Rig {
        device: Arc::clone(device),
        peer: Box::new(LocalPeer::new(Arc::clone(device))),
        path: PathKind::Rdma,
    }
}

/// The other end of the tests with two processes.
#[test]
fn peer() {
    if std::env::var_os(ROLE).is_some() {
        serve(LocalPeer::new(open(GIVES_UP)), |_, words| panic!("unknown command {words:?}"));
    } else {
        println!("not run: it is what the other process of the tests here runs");
    }
}

fn between_processes(device: &Arc<dyn Device>) -> Rig {
    Rig {
        device: Arc::clone(device),
        peer: Box::new(RemotePeer::start("peer", "peer")),
        path: PathKind::Rdma,
    }
}

#[test]
fn the_device_is_described() {
    if !is_enabled() {
        return;
    }
    let device = open(GIVES_UP);
    let (attributes, port) = (device.attributes(), device.port().unwrap());
    println!("{attributes:#?}\n{port:#?}");
    assert!(attributes.name.starts_with("rxe") && attributes.guid != 0);
    assert_eq!((port.active, port.link_layer, port.gid_index), (true, LINK_ETHERNET, 1));
    assert!(port.gid_reason.contains("RoCE v2"), "{}", port.gid_reason);
    assert!(device.event_fd().is_some());
}

#[test]
fn what_cannot_be_used_is_refused_in_one_line() {
    let _alone = alone();
    if !is_enabled() {
        return;
    }
    let refusal = |options: &VerbsOptions, parts: &[&str]| {
        let error = verbs::open(options).expect_err("nothing here can be opened").to_string();
        println!("{error}");
        assert!(!error.contains('\n'), "one line: {error}");
        assert!(parts.iter().all(|part| error.contains(part)), "{parts:?} are not all in: {error}");
    };
    let options = VerbsOptions::default();
    let unknown = VerbsOptions { hca: "mlx5_0".to_owned(), ..options.clone() };
    refusal(&unknown, &["rxe0 port 1", "FLAGCX_IB_HCA=\"mlx5_0\""]);
    let far = VerbsOptions { gid_index: Some(200), ..options.clone() };
    refusal(&far, &["FLAGCX_IB_GID_INDEX=200", "rxe0 port 1", "filled entries: 0, 1"]);
    let elsewhere = VerbsOptions { address_range: "198.51.100.0/24".to_owned(), ..options.clone() };
    refusal(&elsewhere, &["no usable GID", "198.51.100.0/24", "10.77.0.1 RoCE v2 on dummy0"]);
    let jumbo = VerbsOptions { max_mtu: 9000, ..options.clone() };
    refusal(&jumbo, &["9000", "256, 512, 1024, 2048 or 4096"]);
    link("down");
    let result = std::panic::catch_unwind(|| refusal(&options, &["rxe0 port 1 is DOWN, not ACTIVE"]));
    link("up");
    result.unwrap();
}

/// Turns the network interface below the device off or on.
fn link(state: &str) {
    let status = Command::new("ip").args(["link", "set", "dummy0", state]).status();
    assert!(status.expect("iproute2's ip runs").success());
}

#[test]
fn conformance_in_one_process() {
    let _alone = alone();
    if is_enabled() {
        let device = open(GIVES_UP);
        run(|| in_process(&device));
    }
}

#[test]
fn conformance_between_two_processes() {
    let _alone = alone();
    if is_enabled() {
        let device = open(GIVES_UP);
        run(|| between_processes(&device));
    }
}

/// A rig with a peer process that can be signalled, one connection, and buffers on both sides.
struct Connected {
    peer: RemotePeer,
    side: Initiator,
    local: Window,
    write: WorkRequest,
}

impl Connected {
    fn new(device: &Arc<dyn Device>) -> Self {
        let mut peer = RemotePeer::start("peer", "peer");
        let completions = Arc::clone(device).create_completion_queue(256).unwrap();
        let mut queue_pair = Arc::clone(device).create_queue_pair(&completions.handle(), &caps()).unwrap();
        let (counterpart, address) = peer.queue_pair();
        queue_pair.connect(&address, &path()).unwrap();
        peer.connect(counterpart, &queue_pair.address());
        let remote = peer.buffer(4096, 0, Access::FULL);
        let write = request(remote.address, remote.rkey, 0);
        let local = Window::patterned(device, 4096);
        let mut connected =
            Self { peer, side: Initiator { completions, queue_pair, counterpart }, local, write };
        assert_eq!(connected.write_once(), CompletionStatus::Success);
        connected
    }

    fn write_once(&mut self) -> CompletionStatus {
        self.side.post_all(&writes(1, &[self.write], &[self.local.sge(0, 4096)]));
        self.side.wait(1)[0].status
    }
}

fn path() -> PathOptions {
    PathOptions {
        rd_atomic_initiator: 16,
        rd_atomic_responder: 16,
        deadline: Instant::now() + Duration::from_secs(5),
    }
}

#[test]
fn a_killed_peer_is_noticed() {
    let _alone = alone();
    if !is_enabled() {
        return;
    }
    let mut connected = Connected::new(&open(GIVES_UP));
    connected.peer.kill();
    let started = Instant::now();
    assert_eq!(connected.write_once(), CompletionStatus::RetryExceeded);
    println!("noticed after {:?}", started.elapsed());
    assert!(connected.side.queue_pair.is_broken());
    assert_eq!(connected.write_once(), CompletionStatus::Flushed);
}

#[test]
fn set_error_ends_what_would_be_tried_for_ever() {
    let _alone = alone();
    if !is_enabled() {
        return;
    }
    let mut connected = Connected::new(&open(FOR_EVER));
    connected.peer.kill();
    let write = connected.write;
    let entries = [connected.local.sge(0, 4096)];
    connected.side.post_all(&Batch { signal_every: 0, ..writes(1, &[write; 2], &entries) });
    std::thread::sleep(Duration::from_millis(500));
    connected.side.expect_none();
    let started = Instant::now();
    connected.side.queue_pair.set_error().unwrap();
    let ended: Vec<_> =
        connected.side.wait(2).iter().map(|completion| (completion.id, completion.status)).collect();
    assert_eq!(ended, [(1, CompletionStatus::Flushed), (2, CompletionStatus::Flushed)]);
    assert!(started.elapsed() < Duration::from_secs(5), "flushed after {:?}", started.elapsed());
}

#[test]
fn a_stopped_peer_is_still_served_by_its_device() {
    let _alone = alone();
    if !is_enabled() {
        return;
    }
    let mut connected = Connected::new(&open(GIVES_UP));
    let pid = connected.peer.pid().try_into().unwrap();
    // SAFETY: a signal to our own child.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGSTOP) }, 0);
    assert_eq!(connected.write_once(), CompletionStatus::Success);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGCONT) }, 0);
}

#[test]
fn a_thousand_connections_leave_nothing_behind() {
    let _alone = alone();
    if !is_enabled() {
        return;
    }
    let unopened = (open_files(), held_by_kernel());
    let device = open(GIVES_UP);
    // Opens the device, which stays open as long as it is held.
    device.check_use().unwrap();
    let before = (open_files(), held_by_kernel());
    for round in 0..1000_u64 {
        let mut rig = in_process(&device);
        let mut side = Initiator::new(&mut rig);
        let local = Window::patterned(&device, 64);
        let remote = rig.peer.buffer(64, 0, Access::FULL);
        // Every tenth one ends in an error.
        let rkey = if round % 10 == 0 { !remote.rkey } else { remote.rkey };
        side.post_all(&writes(round, &[request(remote.address, rkey, 0)], &[local.sge(0, 64)]));
        assert_eq!(side.wait(1)[0].id, round);
    }
    assert_eq!((open_files(), held_by_kernel()), before);
    drop(device);
    assert_eq!((open_files(), held_by_kernel()), unopened);
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The kernel's count of queue pairs, regions and so on of each device.
fn held_by_kernel() -> String {
    let output = Command::new("rdma").args(["resource", "show"]).output().expect("iproute2's rdma runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

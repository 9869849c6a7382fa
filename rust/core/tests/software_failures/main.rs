//! How the software fabric behaves when things go wrong: dead and stopped peers, ordered faults, other clients, overruns.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod clients;
mod closing;
#[path = "../conformance/mod.rs"]
mod conformance;
mod handshakes;
mod memory;
mod orders;
mod peers;
mod polling;
mod switches;

use std::sync::Arc;
use std::time::{Duration, Instant};

use conformance::initiator::{request, writes};
use conformance::remote::{ROLE, RemotePeer, address_from_text, address_to_text, serve};
use conformance::{Initiator, LocalPeer, Peer, Rig, Window, caps, peer};
use flagcx_p2p::internals::fabric::software::{self, SoftwareDevice};
use flagcx_p2p::internals::fabric::{
    Access, Backing, Batch, Completion, CompletionQueue, CompletionStatus, Device, DeviceEvent, MemoryRange,
    Opcode, PathKind, Posted, QpAddress, QueuePairCaps, Sge, SoftwareOptions,
};
use rustix::process::Pid;

const PATHS: [PathKind; 3] = [PathKind::InProcess, PathKind::CrossMemory, PathKind::Tcp];

fn open(options: SoftwareOptions) -> Arc<SoftwareDevice> {
    software::open_software(&options).unwrap().remove(0)
}

fn forced(path: PathKind) -> SoftwareOptions {
    SoftwareOptions { force: Some(path), ..SoftwareOptions::default() }
}

/// This side on a device with `options`, the other one on a plain device of this process.
fn rig(options: SoftwareOptions) -> (Rig, Arc<SoftwareDevice>) {
    let path = options.force.unwrap();
    let device = open(options);
    let peer = Box::new(LocalPeer::new(open(forced(path))));
    (Rig { device: Arc::clone(&device) as Arc<dyn Device>, peer, path }, device)
}

fn remote_rig(path: PathKind) -> (Rig, Pid) {
    let remote = RemotePeer::start("peer_process", &path.to_string());
    let pid = Pid::from_raw(i32::try_from(remote.pid()).unwrap()).unwrap();
    (Rig { device: open(forced(path)), peer: Box::new(remote), path }, pid)
}

/// Not a test of its own: what the other process of the tests below runs.
#[test]
fn peer_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let options = match role.as_str() {
        "tcp" => forced(PathKind::Tcp),
        "holding initiator" => {
            SoftwareOptions { faults: "hold=us:60000000".to_owned(), ..forced(PathKind::CrossMemory) }
        }
        _ => SoftwareOptions::default(),
    };
    let device: Arc<dyn Device> = open(options);
    let mut completions = Arc::clone(&device).create_completion_queue(16).unwrap();
    let mut queue_pair = Arc::clone(&device).create_queue_pair(&completions.handle(), &caps()).unwrap();
    let local = Window::new(&device, 64, 7);
    serve(LocalPeer::new(device), |_, words| match words[0] {
        // A child that holds every descriptor of this process.
        "fork" => {
            // By the system call, for handlers of the C library close the sockets of a child.
            // SAFETY: the child does nothing but wait to be killed.
            match unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } {
                0 => loop {
                    std::thread::sleep(Duration::from_secs(60));
                },
                child => child.to_string(),
            }
        }
        "initiator_address" => address_to_text(&queue_pair.address()),
        "initiator_connect" => {
            queue_pair.connect(&address_from_text(words[1]), &peer::path()).unwrap();
            String::new()
        }
        // Writes and then holds for a minute: the write pins its region that long.
        "initiator_write" => {
            let write = request(words[1].parse().unwrap(), words[2].parse().unwrap(), 0);
            assert_eq!(queue_pair.post(&writes(1, &[write], &[local.sge(0, 64)])).accepted, 1);
            completions.poll(&mut [Completion::default()]).unwrap();
            String::new()
        }
        other => panic!("unknown command {other}"),
    });
}

fn statuses(completions: &[Completion]) -> Vec<CompletionStatus> {
    completions.iter().map(|completion| completion.status).collect()
}

fn within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
    started.elapsed()
}

//! The provider conformance suite over the software fabric: every path, one process and two.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod conformance;

use std::sync::Arc;

use conformance::remote::{ROLE, RemotePeer, serve};
use conformance::{Detached, LocalPeer, Rig, run};
use flagcx_p2p::internals::fabric::{Backing, PathKind, SoftwareOptions, software};

fn options(force: Option<PathKind>) -> SoftwareOptions {
    SoftwareOptions { force, device_count: 2, ..SoftwareOptions::default() }
}

/// Both ends in this process, on two devices.
fn one_process(path: PathKind) -> Rig {
    let devices = software::open(&options(Some(path))).unwrap();
    Rig { device: Arc::clone(&devices[0]), peer: Box::new(LocalPeer::new(Arc::clone(&devices[1]))), path }
}

/// The peer in a process of its own. `force` on this side; the path is the responder's to offer.
fn two_processes(force: Option<PathKind>, path: PathKind) -> Rig {
    let devices = software::open(&options(force)).unwrap();
    let peer = RemotePeer::start("peer_process", &path.to_string());
    Rig { device: Arc::clone(&devices[0]), peer: Box::new(peer), path }
}

#[test]
fn in_process() {
    run(|| one_process(PathKind::InProcess));
}

/// Of memory that may be taken away, the kernel makes the copies.
#[test]
fn in_process_with_memory_of_a_file() {
    run(|| {
        let devices = software::open(&options(Some(PathKind::InProcess))).unwrap();
        let peer = LocalPeer::with_backing(Arc::clone(&devices[1]), Backing::Mapped);
        Rig { device: Arc::clone(&devices[0]), peer: Box::new(peer), path: PathKind::InProcess }
    });
}

#[test]
fn cross_memory_within_a_process() {
    run(|| one_process(PathKind::CrossMemory));
}

#[test]
fn tcp_within_a_process() {
    run(|| one_process(PathKind::Tcp));
}

/// The same suite while another thread moves the bytes, on every path.
#[test]
fn bytes_moved_by_another_thread() {
    for path in [PathKind::InProcess, PathKind::CrossMemory, PathKind::Tcp] {
        run(|| {
            let rig = one_process(path);
            Rig { device: Arc::new(Detached(rig.device)), ..rig }
        });
    }
}

#[test]
fn cross_memory_between_processes() {
    run(|| two_processes(None, PathKind::CrossMemory));
}

#[test]
fn tcp_between_processes() {
    run(|| two_processes(Some(PathKind::Tcp), PathKind::Tcp));
}

/// Not a test of its own: what the other process of the tests above runs.
#[test]
fn peer_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let force = (role == "tcp").then_some(PathKind::Tcp);
    let devices = software::open(&options(force)).unwrap();
    serve(LocalPeer::new(Arc::clone(&devices[0])), |_, words| panic!("unknown command {words:?}"));
}

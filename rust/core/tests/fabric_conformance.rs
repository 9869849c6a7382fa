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
use conformance::{Detached, Kind, LocalPeer, Rig, run};
use flagcx_p2p::internals::fabric::{Backing, PathKind, SoftwareOptions, software};

fn options(force: Option<PathKind>) -> SoftwareOptions {
    SoftwareOptions { force, device_count: 2, ..SoftwareOptions::default() }
}

/// Both ends in this process, on two devices.
fn one_process(path: PathKind) -> Rig {
    let devices = software::open(&options(Some(path))).unwrap();
    let peer = match path {
        PathKind::Shared => LocalPeer::with_memory(Arc::clone(&devices[1]), Kind::Own),
        _ => LocalPeer::new(Arc::clone(&devices[1])),
    };
    Rig { device: Arc::clone(&devices[0]), peer: Box::new(peer), path }
}

/// The peer in a process of its own. `force` on this side; the path is the responder's to offer.
fn two_processes(force: Option<PathKind>, path: PathKind) -> Rig {
    two_processes_as(force, path, &path.to_string())
}

/// The peer plays `role`.
fn two_processes_as(force: Option<PathKind>, path: PathKind, role: &str) -> Rig {
    let devices = software::open(&options(force)).unwrap();
    let peer = RemotePeer::start("peer_process", role);
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
    for path in [PathKind::InProcess, PathKind::CrossMemory, PathKind::Shared, PathKind::Tcp] {
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

#[test]
fn shared_within_a_process() {
    run(|| one_process(PathKind::Shared));
}

#[test]
fn shared_between_processes() {
    run(|| two_processes(Some(PathKind::Shared), PathKind::Shared));
}

/// Files that may shrink at any time, also while they are said not to: the kernel makes the copies.
#[test]
fn shared_between_processes_with_files_of_the_program() {
    run(|| two_processes_as(Some(PathKind::Shared), PathKind::Shared, "foreign"));
    run(|| two_processes_as(Some(PathKind::Shared), PathKind::Shared, "claimed"));
}

/// Each region is copied by the kernel at first and by its mapping from some request on.
#[test]
fn cross_memory_between_processes_until_a_region_is_mapped() {
    run(|| two_processes_as(None, PathKind::CrossMemory, "shared"));
}

/// Not a test of its own: what the other process of the tests above runs.
#[test]
fn peer_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let force = (role == "tcp").then_some(PathKind::Tcp);
    let devices = software::open(&options(force)).unwrap();
    let kind = match role.as_str() {
        "shared" => Kind::Own,
        "foreign" => Kind::Foreign,
        "claimed" => Kind::Claimed,
        _ => Kind::Heap(Backing::Anonymous),
    };
    serve(LocalPeer::with_memory(Arc::clone(&devices[0]), kind), |_, words| {
        panic!("unknown command {words:?}")
    });
}

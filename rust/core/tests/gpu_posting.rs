//! The posting half of the conformance suite over copy streams of a played GPU: host memory here, GPU memory there.
#![allow(unsafe_code, reason = "calls the CUDA driver's stand-in")]
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and helpers are shared"
)]

mod conformance;
#[path = "gpu_suite/cuda.rs"]
mod cuda;
#[path = "played_gpu/mod.rs"]
mod played_gpu;

use std::sync::Arc;

use conformance::{Initiator, Rig, run_posting};
use flagcx_p2p::internals::fabric::{Access, CompletionStatus, PathKind};
use played_gpu::{GpuPeer, PlayedGpu};

fn rig() -> Rig {
    let device = Arc::new(PlayedGpu::new());
    Rig { device, peer: Box::new(GpuPeer::default()), path: PathKind::InProcess }
}

#[test]
fn posting_conforms() {
    run_posting(rig);
}

/// A copy that cannot be started fails its request, with the runtime's code, and the later ones are flushed.
#[test]
fn a_copy_that_cannot_be_started_fails_its_request() {
    let mut rig = rig();
    let mut side = Initiator::new(&mut rig);
    let local = conformance::Window::patterned(&rig.device, 64);
    let remote = rig.peer.buffer(64, 0, Access::FULL);
    let good = conformance::initiator::request(remote.address, remote.rkey, 0);
    let bad = conformance::initiator::request(remote.address + 1, remote.rkey, 0);
    let batch = [good, bad, good];
    side.post_all(&conformance::initiator::writes(1, &batch, &[local.sge(0, 64)]));
    let found: Vec<_> = side.wait(3).iter().map(|end| (end.id, end.status, end.vendor_error)).collect();
    let (done, failed, flushed) =
        (CompletionStatus::Success, CompletionStatus::General, CompletionStatus::Flushed);
    assert_eq!(found, [(1, done, 0), (2, failed, 1), (3, flushed, 0)]);
    assert!(side.queue_pair.is_broken() && side.queue_pair.error_text().contains("cuMemcpyAsync"));
    assert_eq!(rig.peer.bytes(remote.index), *local.bytes());
    // A new stream, and it goes on.
    side.queue_pair.renew().unwrap();
    side.post_all(&conformance::initiator::writes(4, &[good], &[local.sge(0, 64)]));
    assert_eq!(side.wait(1)[0].status, done);
}

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

use std::ffi::{c_int, c_uint, c_void};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
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

/// Names the misuse in the other process.
const MISUSE: &str = "GPU_POSTING_MISUSE";

/// The suites would not see a wrong order of destruction otherwise: with the driver it may work by chance.
#[test]
fn the_stand_in_aborts_where_the_driver_crashes() {
    for (misuse, message) in [
        ("stream", "cuStreamDestroy_v2: the stream is destroyed"),
        ("event", "cuEventQuery: the event is destroyed"),
        ("null", "cuEventQuery: the event is destroyed, or was never created"),
    ] {
        let mut other = Command::new(std::env::current_exe().unwrap());
        other.args(["--exact", "misuse_of_the_other_process", "--nocapture"]).env(MISUSE, misuse);
        cuda::choose(&cuda::library(), &mut other);
        let ended = other.output().unwrap();
        let text = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.signal(), Some(libc::SIGABRT), "{misuse}: {text}");
        assert!(text.contains(message), "{misuse}: {text}");
    }
}

#[test]
fn misuse_of_the_other_process() {
    type Create = unsafe extern "C" fn(*mut *mut c_void, c_uint) -> c_int;
    type Use = unsafe extern "C" fn(*mut c_void) -> c_int;
    let Some(misuse) = std::env::var_os(MISUSE) else {
        return println!("not run: what the other process of the tests does");
    };
    cuda::cuda().set_context(cuda::cuda().primary(0));
    // SAFETY: the stand-in does nothing when it is loaded.
    let driver = unsafe { libloading::Library::new(cuda::library()) }.unwrap();
    // SAFETY: the types are those of the driver's documentation for these names.
    let create = |name: &str| *unsafe { driver.get::<Create>(name.as_bytes()) }.unwrap();
    // SAFETY: as above.
    let call = |name: &str| *unsafe { driver.get::<Use>(name.as_bytes()) }.unwrap();
    let mut object = std::ptr::null_mut();
    // SAFETY: out parameters are valid; what is wrong about these calls the stand-in finds before it accesses the object.
    unsafe {
        match misuse.to_str().unwrap() {
            "stream" => {
                assert_eq!(create("cuStreamCreate")(&raw mut object, 1), 0);
                assert_eq!(call("cuStreamDestroy_v2")(object), 0);
                call("cuStreamDestroy_v2")(object);
            }
            "event" => {
                assert_eq!(create("cuEventCreate")(&raw mut object, 2), 0);
                assert_eq!([call("cuEventQuery")(object), call("cuEventDestroy_v2")(object)], [0, 0]);
                call("cuEventQuery")(object);
            }
            _ => {
                call("cuEventQuery")(object);
            }
        }
    }
}

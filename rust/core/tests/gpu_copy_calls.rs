//! What a copy of GPU memory asks of the driver: exact numbers of its calls, counted by the stand-in. One test, because all of the
//! process is counted.
#![allow(unsafe_code, reason = "asks the CUDA driver's stand-in")]
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

#[path = "gpu_suite/calls.rs"]
mod calls;
#[path = "gpu_suite/cuda.rs"]
mod cuda;
#[path = "gpu_suite/memory.rs"]
mod memory;
mod support;

use std::sync::Arc;

use calls::{Call, Engines};
use cuda::cuda;
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::gpu::{self, CudaRuntime};
use flagcx_p2p::internals::transfer::Outcome;
use memory::{Kind, Registered};

/// `struct nullcuda_calls`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
struct Counted {
    copies: u64,
    copied_bytes: u64,
    events_recorded: u64,
    host_calls: u64,
    streams: u64,
    contexts_set: u64,
}

fn counted() -> Counted {
    let mut counted = Counted::default();
    // SAFETY: the stand-in is loaded already, and the structures are alike.
    unsafe {
        let library = libloading::Library::new(cuda::library()).unwrap();
        let ask = library.get::<unsafe extern "C" fn(*mut Counted)>(b"nullcuda_calls");
        ask.unwrap()(&raw mut counted);
    }
    counted
}

/// 64 MiB are one copy, with one event behind it, and no byte is copied twice; so is 1 MiB.
#[test]
fn a_copy_is_one_call_and_no_byte_is_copied_twice() {
    let runtime = CudaRuntime::load(cuda::library().to_str().unwrap()).unwrap();
    gpu::install(Some(Arc::new(runtime)));
    cuda().set_context(cuda().primary(0));
    let engines = Engines::new();
    for (from, to) in [(Kind::Gpu, Kind::Gpu), (Kind::Pinned, Kind::Gpu), (Kind::Gpu, Kind::Host)] {
        for length in [1_u64 << 20, 64 << 20] {
            let local = Registered::new(&engines.client, from, length as usize);
            let remote = Registered::new(&engines.server, to, length as usize);
            let iov = engines.iov((&local, 0), (&remote, 0), length);
            let carry = || {
                assert_eq!(Call::Submit.carry(&engines.here, Opcode::Write, &[iov]), Ok(Outcome::Done));
            };
            // The first one opens the stream.
            carry();
            let before = counted();
            carry();
            let after = counted();
            println!("{} KiB {from:?} -> {to:?}: {before:?} {after:?}", length >> 10);
            assert_eq!(after.copies - before.copies, 1);
            assert_eq!(after.copied_bytes - before.copied_bytes, length);
            assert_eq!(after.events_recorded - before.events_recorded, 1);
            assert_eq!(after.streams, before.streams);
            assert!(after.host_calls - before.host_calls <= 1);
        }
    }
    drop(engines);
    memory::forget_contexts();
    gpu::install(None);
}

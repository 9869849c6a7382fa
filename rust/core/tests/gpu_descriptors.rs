//! GPU memory that was mapped from more allocations than the process may have descriptors: few of its dma-bufs are open at a time.
//! One test, because the limit is the process's.
#![cfg(feature = "verbs")]
#![allow(unsafe_code, reason = "registers memory of the CUDA driver's stand-in")]
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails, and helpers are shared"
)]

#[path = "gpu_suite/cuda.rs"]
mod cuda;
#[path = "gpu_suite/memory.rs"]
mod memory;
mod nullverbs;
mod support;
#[path = "gpu_suite/vmm.rs"]
mod vmm;

use std::sync::Arc;

use cuda::cuda;
use flagcx_p2p::internals::engine::{Engine, EngineOptions, RegisterOptions};
use flagcx_p2p::internals::fabric::{DeviceList, FabricChoice, FabricOptions};
use flagcx_p2p::internals::gpu::{self, CudaRuntime};
use nullverbs::Standin;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vmm::{Segments, Shareable};

const ALLOCATIONS: usize = 300;

/// Descriptors that the process may open beyond those that it has: fewer than a tenth of the allocations.
const SPARE: u64 = 64;

#[test]
fn a_range_of_many_allocations_needs_few_descriptors() {
    let runtime = CudaRuntime::load(cuda::library().to_str().unwrap()).unwrap();
    gpu::install(Some(Arc::new(runtime)));
    cuda().set_context(cuda().primary(0));
    let standin = Standin::new(&[]);
    let options =
        FabricOptions { choice: FabricChoice::Verbs, verbs: standin.options(), ..FabricOptions::default() };
    let devices = Some(Arc::new(DeviceList::open(&options).unwrap()));
    let engine = Engine::open(support::config(&[]), EngineOptions { gpu_index: 0, devices }).unwrap();
    let memory = Segments::new(ALLOCATIONS, Shareable::No);
    // The device is open by then.
    let warm = engine.allocate(4096).unwrap();
    let numbers = std::fs::read_dir("/proc/self/fd").unwrap();
    let highest = numbers.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse::<u64>().unwrap());
    let limit = highest.max().unwrap() + 1 + SPARE;
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(limit), ..before }).unwrap();
    // SAFETY: the memory is unmapped behind the engine's region.
    let registered =
        unsafe { engine.register(memory.address, memory.length() as u64, RegisterOptions::default()) };
    setrlimit(Resource::Nofile, before).unwrap();
    let region = registered.unwrap();
    let found = engine.find_region(memory.address, memory.length() as u64).unwrap();
    assert_eq!(found.segment_count(), ALLOCATIONS, "by a dma-buf of each");
    assert!(engine.deregister(region));
    drop((found, warm));
}

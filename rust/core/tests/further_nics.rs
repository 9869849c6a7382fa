//! Memory of an engine with several NICs, over played ones: which memory is registered with which, and how that ends.
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
mod nullverbs;
mod support;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cuda::cuda;
use flagcx_p2p::internals::connection::{Context, DeviceChoice, NicContext};
use flagcx_p2p::internals::fabric::{Access, verbs};
use flagcx_p2p::internals::gpu::{self, CudaRuntime};
use flagcx_p2p::internals::memory::{MemoryKind, RegionId};
use flagcx_p2p::internals::topology::{Gpu, HostTopology, Nic, PciPlace, PciStep};
use nullverbs::Standin;

const BYTES: usize = 16 * 4096;
const LIMIT: Duration = Duration::from_secs(20);

/// NIC 0 shares a switch with GPU 0, NIC 1 hangs on the same root, 2 and 3 on the other socket.
fn topology() -> HostTopology {
    let place = |steps: &[&str], node| {
        let step = |name: &&str| PciStep { name: (*name).to_owned(), link_mbps: None };
        PciPlace { steps: steps.iter().map(step).collect(), node: Some(node) }
    };
    let nic = |number: usize, place| Nic {
        name: format!("nv{number}"),
        port: 1,
        speed_mbps: 100_000,
        is_virtual: false,
        place,
    };
    let switch = ["pci0000:00", "0000:00:01.0", "0000:01:00.0"];
    let gpu = place(&[switch.as_slice(), &["0000:02:00.0"]].concat(), 0);
    HostTopology {
        gpus: vec![Gpu { index: 0, bus_id: "0000:02:00.0".to_owned(), place: gpu }],
        nics: vec![
            nic(0, place(&[switch.as_slice(), &["0000:03:00.0"]].concat(), 0)),
            nic(1, place(&["pci0000:00", "0000:00:02.0", "0000:05:00.0"], 0)),
            nic(2, place(&["pci0000:80", "0000:80:01.0", "0000:81:00.0"], 1)),
            nic(3, place(&["pci0000:80", "0000:80:02.0", "0000:85:00.0"], 1)),
        ],
        ..HostTopology::default()
    }
}

fn has(nic: &NicContext, id: RegionId) -> bool {
    nic.registry.snapshot().by_id(id).is_some()
}

#[track_caller]
fn until(condition: impl Fn() -> bool) {
    let end = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < end, "not within {LIMIT:?}");
        thread::yield_now();
    }
}

/// Over the stand-in of the CUDA driver, which is one for all tests of the process: one at a time.
struct Bench {
    standin: Standin,
    context: Context,
    _alone: MutexGuard<'static, ()>,
}

impl Bench {
    fn new(topology: &HostTopology) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let runtime = CudaRuntime::load(cuda::library().to_str().unwrap()).unwrap();
        gpu::install(Some(Arc::new(runtime)));
        cuda().set_context(cuda().primary(0));
        let standin = Standin::new(&[("devs", 4)]);
        let devices = verbs::open(&standin.options()).unwrap();
        let config = support::config(&[]);
        let choice = DeviceChoice { devices: &devices, chosen: 0, unusable: &[], topology };
        let context = Context::open_among(&config, &devices[0], choice).unwrap();
        Self { standin, context, _alone }
    }

    fn register(&self, address: u64, length: usize) -> RegionId {
        let (range, registry) = ((address, length as u64), &self.context.registry);
        registry.register(range, MemoryKind::Probe, Access::FULL, true, None, None).unwrap()
    }

    fn open_further(&self) -> [Arc<NicContext>; 3] {
        [1, 2, 3].map(|number| self.context.open_nic(number).unwrap())
    }

    /// From all NICs.
    fn deregister(&self, ids: &[RegionId]) {
        let regions = ids.iter().map(|id| self.context.registry.remove(*id).unwrap().unwrap());
        assert!(self.context.retire(regions.collect(), Instant::now()));
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        gpu::install(None);
    }
}

#[test]
fn gpu_memory_is_registered_with_near_nics_and_a_spare_and_host_memory_with_all() {
    let bench = Bench::new(&topology());
    let names: Vec<_> = bench.context.nics().iter().map(|nic| nic.name.as_str()).collect();
    assert_eq!(names, ["nv0", "nv1", "nv2", "nv3"]);
    let before = bench.standin.live().regions;
    let (on_gpu, on_host) = (cuda().allocate(BYTES), vec![0_u8; BYTES]);
    let first = bench.register(on_gpu, BYTES);
    let nics = bench.open_further();
    let [second, host] = [on_gpu + BYTES as u64 / 2, on_host.as_ptr().expose_provenance() as u64]
        .map(|start| bench.register(start, BYTES / 2));
    // Each NIC has them in the order of their registration.
    until(|| nics.iter().all(|nic| has(nic, host)));
    let seen = nics.each_ref().map(|nic| [first, second, host].map(|id| has(nic, id)));
    assert_eq!(seen, [[true; 3], [false, false, true], [false, false, true]]);
    assert_eq!(bench.standin.live().regions, before + 3 + 3 + 1 + 1);
    let announced = |nic: &NicContext| nic.registry.announced().table().0.len();
    assert_eq!(nics.each_ref().map(|nic| announced(nic)), [3, 1, 1]);
    bench.deregister(&[first, second, host]);
    assert_eq!(bench.standin.live().regions, before, "on all NICs");
    drop(bench);
    cuda().free(on_gpu);
}

/// How often the stand-in has exported memory of a GPU.
fn exported() -> u64 {
    // SAFETY: the stand-in is loaded already, and the prototype is that of its source.
    unsafe {
        let library = libloading::Library::new(cuda::library()).unwrap();
        library.get::<unsafe extern "C" fn() -> u64>(b"nullcuda_exported").unwrap()()
    }
}

/// The first NIC registers a region when the program says so, the further ones later, with one export for all that do so at the same time.
#[test]
fn nics_that_register_gpu_memory_at_the_same_time_share_one_export() {
    const FURTHER: u64 = 0b1110;
    let mut topology = topology();
    // Two more near the GPU, and the fourth is the spare one: all take its memory.
    for nic in [1, 2] {
        topology.nics[nic].place = topology.nics[0].place.clone();
    }
    let bench = Bench::new(&topology);
    let on_gpu = cuda().allocate(BYTES);
    let nics = bench.open_further();
    let before = exported();
    bench.standin.set("held_devices", FURTHER);
    let batch = bench.register(on_gpu, BYTES);
    until(|| bench.standin.held() == 3);
    assert_eq!(exported() - before, 2, "that of the first NIC, and one for the three others");
    bench.standin.set("held_devices", 0);
    until(|| nics.iter().all(|nic| has(nic, batch)));
    assert_eq!(exported() - before, 2);
    bench.deregister(&[batch]);
    drop(bench);
    cuda().free(on_gpu);
}

//! GPU memory of a played CUDA driver, registered with a played NIC: by dma-buf, by its address, and flushed behind WRITEs.
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

use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cuda::cuda;
use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::{Engine, EngineOptions, RegisterOptions};
use flagcx_p2p::internals::fabric::{Access, DeviceList, DmaBuf, FabricChoice, FabricOptions, Opcode};
use flagcx_p2p::internals::gpu::{self, CudaRuntime};
use flagcx_p2p::internals::memory::{MemoryKind, RegionId};
use flagcx_p2p::internals::transfer::{Iov, Outcome, RemoteRange};
use nullverbs::Standin;
use support::{outcome, pattern};

const PAGE: usize = 4096;

/// Two engines on a NIC; the GPU runtime of the process is one for all tests, so they run one after the other.
struct Bench {
    standin: Standin,
    client: Arc<Engine>,
    server: Arc<Engine>,
    _alone: MutexGuard<'static, ()>,
}

impl Bench {
    fn new(nic: &[(&str, u64)], settings: &[(&str, &str)]) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let runtime = CudaRuntime::load(cuda::library().to_str().unwrap()).unwrap();
        gpu::install(Some(Arc::new(runtime)));
        cuda().set_context(cuda().primary(0));
        let standin = Standin::new(nic);
        let options = FabricOptions {
            choice: FabricChoice::Verbs,
            verbs: standin.options(),
            ..FabricOptions::default()
        };
        let devices = Some(Arc::new(DeviceList::open(&options).unwrap()));
        let config = support::config(settings);
        let open = || {
            let options = EngineOptions { gpu_index: 0, devices: devices.clone() };
            Engine::open(Arc::clone(&config), options).unwrap()
        };
        let (client, server) = (open(), open());
        Self { standin, client, server, _alone: alone }
    }

    /// Not said to be in one process: there the GPU's copy engine would carry what is in GPU memory.
    fn connect(&self) -> (Arc<Connection>, Arc<Connection>) {
        let server = Arc::clone(&self.server);
        let accepting = std::thread::spawn(move || server.accept().unwrap().connection);
        let (host, port) = (self.server.address().to_string(), self.server.rpc_port().unwrap());
        let here = self.client.connect(&host, port, 0, false).unwrap();
        (here, accepting.join().unwrap())
    }

    fn register(&self, address: u64, length: usize) -> Result<RegionId, String> {
        self.register_with(address, length, RegisterOptions::default())
    }

    fn register_with(
        &self,
        address: u64,
        length: usize,
        options: RegisterOptions,
    ) -> Result<RegionId, String> {
        // SAFETY: memory is freed behind the bench.
        unsafe { self.server.register(address, length as u64, options) }.map_err(|error| error.to_string())
    }

    /// WRITEs `bytes` in `pieces` of one transfer, each to its own place, and waits for its end.
    fn write(&self, here: &Connection, bytes: &[u8], pieces: &[(usize, RemoteRange)]) {
        let source = self.client.allocate(bytes.len()).unwrap();
        assert!(source.write(0, bytes));
        let iovs: Vec<_> = pieces
            .iter()
            .map(|(offset, remote)| Iov {
                local: source.address() + *offset as u64,
                length: u64::from(remote.size),
                region: Some(source.region()),
                remote: *remote,
            })
            .collect();
        let id = here.submit(Opcode::Write, &iovs[..]).unwrap();
        assert_eq!(outcome(here, id), Outcome::Done);
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        gpu::install(None);
    }
}

/// GPU memory of the played driver, freed when dropped.
struct GpuMemory {
    address: u64,
    length: usize,
}

impl GpuMemory {
    fn new(length: usize) -> Self {
        Self { address: cuda().allocate(length), length }
    }

    /// As the GPU sees it.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length];
        // SAFETY: both ranges are valid.
        unsafe { cuda().copy(bytes.as_mut_ptr() as u64, self.address, self.length) };
        bytes
    }
}

impl Drop for GpuMemory {
    fn drop(&mut self) {
        cuda().free(self.address);
    }
}

/// How often copies of an allocation were made synchronous.
fn synchronous() -> u64 {
    // SAFETY: the stand-in is loaded already, and the prototype is that of its source.
    unsafe {
        let library = libloading::Library::new(cuda::library()).unwrap();
        library.get::<unsafe extern "C" fn() -> u64>(b"nullcuda_synchronous").unwrap()()
    }
}

/// Sets a number of the played driver, until dropped.
struct Played(&'static [u8]);

impl Played {
    const POOL_EXPORTS: &[u8] = b"nullcuda_answer_pool_exports";
    const COMPUTE_CAPABILITY: &[u8] = b"nullcuda_set_compute_capability";

    fn new(name: &'static [u8], value: i32) -> Self {
        set(name, value);
        Self(name)
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        set(self.0, 0);
    }
}

fn set(name: &[u8], value: i32) {
    // SAFETY: the stand-in is loaded already, and the prototype is that of its source.
    unsafe {
        let library = libloading::Library::new(cuda::library()).unwrap();
        library.get::<unsafe extern "C" fn(libc::c_int)>(name).unwrap()(value);
    }
}

#[test]
fn unaligned_gpu_memory_is_registered_by_dma_buf() {
    let bench = Bench::new(&[], &[]);
    let memory = GpuMemory::new(64 * PAGE);
    let (here, _there) = bench.connect();
    let before = synchronous();
    // The tail of an allocation, as a part of an expandable segment is: neither begins nor ends on a page.
    let (offset, length) = (17 * PAGE + 100, 40 * PAGE + 11);
    let region = bench.register(memory.address + offset as u64, length).unwrap();
    assert_eq!(synchronous() - before, 1, "SYNC_MEMOPS of the allocation");
    let sent = pattern(3, length);
    let remote = here.describe_remote(memory.address + offset as u64, length as u32).unwrap();
    // The CPU cannot touch the address, so the NIC has gone by the dma-buf.
    bench.write(&here, &sent, &[(0, remote)]);
    let mut expected = vec![0; memory.length];
    expected[offset..][..length].copy_from_slice(&sent);
    assert!(memory.bytes() == expected, "the bytes behind the address, and no others");
    assert!(bench.server.deregister(region));
}

#[test]
fn dma_bufs_are_closed_once_registered() {
    let bench = Bench::new(&[], &[]);
    let memory = GpuMemory::new(8 * PAGE);
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    let regions = bench.standin.live().regions;
    let region = bench.register(memory.address, 8 * PAGE).unwrap();
    assert_eq!((descriptors(), bench.standin.live().regions), (before, regions + 1));
    assert!(bench.server.deregister(region));
    assert_eq!(bench.standin.live().regions, regions);
}

/// A driver that answers EOPNOTSUPP to descriptor -1 is not asked for dma-bufs; the address is left to nvidia-peermem.
#[test]
fn a_nic_without_dma_bufs_registers_the_address() {
    let bench = Bench::new(&[("dma_buf", 0)], &[]);
    let attributes = flagcx_p2p::internals::fabric::verbs::open(&bench.standin.options()).unwrap();
    assert!(!attributes[0].attributes().dma_buf, "probed");
    let memory = GpuMemory::new(4 * PAGE);
    bench.register(memory.address, 4 * PAGE).unwrap();
    bench.standin.set("locked_bytes", 0);
    let error = bench.register(memory.address + PAGE as u64, PAGE).unwrap_err();
    for part in ["nv0 cannot register any", "nvidia-peermem", "dma-buf"] {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

#[test]
fn a_nic_with_dma_bufs_is_found_by_the_probe() {
    let standin = Standin::new(&[]);
    let devices = flagcx_p2p::internals::fabric::verbs::open(&standin.options()).unwrap();
    assert!(devices[0].attributes().dma_buf);
    assert_eq!(standin.live().regions, 0, "the probe registers nothing");
}

/// The stand-in checks what the kernel does, so the tests above mean something.
#[test]
fn a_dma_buf_with_a_wrong_offset_is_refused() {
    let bench = Bench::new(&[], &[]);
    let memory = GpuMemory::new(4 * PAGE);
    let file = tempfile::tempfile().unwrap();
    file.set_len(2 * PAGE as u64).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
    let register = |fd, offset, length| {
        let dma_buf = Some(DmaBuf { fd, offset });
        bench.register_with(memory.address, length, RegisterOptions { dma_buf, ..RegisterOptions::default() })
    };
    for (fd, offset, length, part) in [
        (fd, 8, PAGE, "inside the dma-buf"),
        (fd, PAGE as u64, 2 * PAGE, "inside the dma-buf"),
        (-1, 0, PAGE, "no dma-buf"),
    ] {
        let error = register(fd, offset, length).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
    register(fd, PAGE as u64, PAGE).unwrap();
}

/// WRITEs to memory that is registered before and after the peer connects, of one piece, of several, and over several lanes.
fn written_and_seen(flush: &str) -> [bool; 5] {
    let nic = [("late_writes", 1)];
    let settings = [("FLAGCX_GDR_WRITE_REQUIRES_FLUSH", flush), ("FLAGCX_P2P_QPS_PER_CONN", "4")];
    let bench = Bench::new(&nic, &settings);
    let memory = GpuMemory::new(8 << 20);
    let early = bench.register(memory.address, 2 << 20).unwrap();
    let (here, _there) = bench.connect();
    let late = bench.register(memory.address + (2 << 20), 2 << 20).unwrap();
    let unannounced = RegisterOptions { announced: false, ..RegisterOptions::default() };
    let hidden = bench.register_with(memory.address + (4 << 20), 4096, unannounced).unwrap();
    // The flush is a READ, which peers may not do otherwise.
    let access = Access { remote_read: false, ..Access::FULL };
    let write_only = RegisterOptions { access, ..RegisterOptions::default() };
    let written = bench.register_with(memory.address + (5 << 20), 4096, write_only).unwrap();
    let range = |region, offset: usize, size: usize| {
        (0, bench.server.describe(region, memory.address + offset as u64, size as u64).unwrap())
    };
    // A look-up brings the region that was registered last.
    here.describe_remote(memory.address + (2 << 20), 8).unwrap();
    let seen = |pieces: &[(usize, RemoteRange)], seed: u8| {
        let longest = pieces.iter().map(|(_, remote)| remote.size as usize).max().unwrap();
        let sent = pattern(seed.into(), longest);
        bench.write(&here, &sent, pieces);
        let bytes = memory.bytes();
        pieces.iter().all(|(_, remote)| {
            let offset = (remote.address - memory.address) as usize;
            bytes[offset..][..remote.size as usize] == sent[..remote.size as usize]
        })
    };
    [
        seen(&[range(early, 5, 64)], 1),
        seen(&[range(early, 4096, 9000), range(late, 2 << 20, 70_000), range(early, 100_000, 1)], 2),
        seen(&[range(early, 0, 2 << 20)], 3),
        seen(&[range(hidden, 4 << 20, 4096)], 4),
        seen(&[range(written, 5 << 20, 4096)], 5),
    ]
}

#[test]
fn what_is_written_is_seen_when_the_transfer_is_done_if_it_is_flushed() {
    assert_eq!(written_and_seen("1"), [true; 5]);
    assert_eq!(written_and_seen("0"), [false; 5], "the played GPU needs the flush");
    assert_eq!(written_and_seen("-1"), [false; 5], "a GPU of compute capability 9 needs none");
}

/// A dma-buf of a device without a runtime in this process: whether it needs the flush is not known, so it is flushed.
#[test]
fn memory_of_an_unknown_device_is_flushed() {
    let bench = Bench::new(&[("late_writes", 1)], &[]);
    let (file, address) = (tempfile::tempfile().unwrap(), 0x6000_0000_0000_u64);
    file.set_len(2 * PAGE as u64).unwrap();
    let dma_buf = Some(DmaBuf { fd: std::os::fd::AsRawFd::as_raw_fd(&file), offset: 0 });
    let options = RegisterOptions { dma_buf, ..RegisterOptions::default() };
    bench.register_with(address, PAGE, options).unwrap();
    let declared = RegisterOptions { kind: MemoryKind::Host, ..options };
    let of_host = bench.register_with(address + PAGE as u64, PAGE, declared).unwrap();
    let (here, _there) = bench.connect();
    let sent = pattern(7, PAGE);
    bench.write(&here, &sent, &[(0, here.describe_remote(address, PAGE as u32).unwrap())]);
    let mut seen = vec![0; PAGE];
    file.read_exact_at(&mut seen, 0).unwrap();
    assert!(seen == sent, "flushed");
    let (sent, start) = (pattern(8, PAGE), address + PAGE as u64);
    let remote = bench.server.describe(of_host, start, PAGE as u64).unwrap();
    bench.write(&here, &sent, &[(0, remote)]);
    file.read_exact_at(&mut seen, 0).unwrap();
    assert!(seen != sent, "what the caller declares to be host memory is not");
}

/// The first GPU memory that a peer writes to, by a descriptor, of which it has been told nothing; of a GPU of this compute capability.
fn first_written_is_seen(flush: &str, capability: i32) -> bool {
    let bench = Bench::new(&[("late_writes", 1)], &[("FLAGCX_GDR_WRITE_REQUIRES_FLUSH", flush)]);
    // Of the process: no other bench is there.
    let _capability = Played::new(Played::COMPUTE_CAPABILITY, capability);
    let memory = GpuMemory::new(PAGE);
    let (here, _there) = bench.connect();
    let unannounced = RegisterOptions { announced: false, ..RegisterOptions::default() };
    let hidden = bench.register_with(memory.address, PAGE, unannounced).unwrap();
    let sent = pattern(9, PAGE);
    bench.write(&here, &sent, &[(0, bench.server.describe(hidden, memory.address, PAGE as u64).unwrap())]);
    memory.bytes() == sent
}

#[test]
fn a_peer_with_gpus_that_need_it_is_flushed_before_it_has_announced_any_memory() {
    for (flush, capability, seen) in
        [("1", 9, true), ("0", 9, false), ("-1", 9, false), ("-1", 8, true), ("0", 8, false)]
    {
        assert_eq!(first_written_is_seen(flush, capability), seen, "{flush}, capability {capability}");
    }
}

/// Host memory that peers may write to and not read, and of which they are told nothing.
fn for_writing_alone(bench: &Bench, target: &[u8]) -> RemoteRange {
    let access = Access { remote_read: false, ..Access::FULL };
    let options = RegisterOptions { access, announced: false, ..RegisterOptions::default() };
    let address = target.as_ptr().expose_provenance() as u64;
    let region = bench.register_with(address, target.len(), options).unwrap();
    bench.server.describe(region, address, target.len() as u64).unwrap()
}

/// The flush is a READ. Host memory that peers may only write to gets the right to it, or is not flushed at all: where it was registered
/// before there was a GPU that needs it.
#[test]
fn memory_for_writing_alone_is_written_to_before_and_after_there_is_such_a_gpu() {
    for before in [false, true] {
        let bench = Bench::new(&[], &[]);
        let _capability = Played::new(Played::COMPUTE_CAPABILITY, if before { 9 } else { 8 });
        let target = vec![0_u8; PAGE];
        let remote = for_writing_alone(&bench, &target);
        set(Played::COMPUTE_CAPABILITY, 8);
        let (here, _there) = bench.connect();
        bench.write(&here, &pattern(4, PAGE), &[(0, remote)]);
        assert!(target == pattern(4, PAGE), "before: {before}");
    }
}

/// The peer flushes by what it was told when it connected: there may have been no answer of the driver then, and now there is no such GPU.
#[test]
fn memory_for_writing_alone_is_written_to_by_a_peer_that_was_told_of_such_a_gpu() {
    let (bench, target) = (Bench::new(&[], &[]), vec![0_u8; PAGE]);
    let _capability = Played::new(Played::COMPUTE_CAPABILITY, 8);
    let (here, _there) = bench.connect();
    set(Played::COMPUTE_CAPABILITY, 9);
    let remote = for_writing_alone(&bench, &target);
    bench.write(&here, &pattern(5, PAGE), &[(0, remote)]);
    assert!(target == pattern(5, PAGE));
}

/// As when the process has no descriptors left: the next question is answered anew.
#[test]
fn a_driver_that_cannot_export_a_pool_now_is_asked_again() {
    const OPERATING_SYSTEM: i32 = 304;
    let _bench = Bench::new(&[], &[]);
    let engine = support::engine(&[]);
    let of_pool = vmm::OfPool::new(PAGE, vmm::Shareable::Yes);
    // SAFETY: the memory is freed behind the engine's region.
    let region =
        unsafe { engine.register(of_pool.address, PAGE as u64, RegisterOptions::default()) }.unwrap();
    let is_shared = || engine.ipc_info(of_pool.address).unwrap().is_some();
    let failing = Played::new(Played::POOL_EXPORTS, OPERATING_SYSTEM);
    assert!(!is_shared());
    drop(failing);
    assert!(is_shared());
    assert!(engine.deregister(region));
}

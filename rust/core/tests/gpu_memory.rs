//! GPU memory, played by a table of callbacks, registered with a NIC by the mapping that the table makes of it.
#![cfg(feature = "verbs")]
#![allow(unsafe_code, reason = "plays the C side")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod nullverbs;
mod support;

use std::ffi::{c_int, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flagcx_p2p::internals::engine::{Engine, EngineOptions, RegisterOptions};
use flagcx_p2p::internals::fabric::{Access, DeviceList, FabricChoice, FabricOptions, Opcode};
use flagcx_p2p::internals::gpu::{self, GpuTable, TableRuntime};
use flagcx_p2p::internals::memory::{MemoryKind, RegionId, Registry};
use flagcx_p2p::internals::transfer::{Iov, Outcome};
use nullverbs::Standin;
use support::{outcome, pattern};

const PAGE: usize = 4096;
const BYTES: usize = 16 * PAGE;
const FAILED: c_int = 3;

/// Calls of the table: (address or mapping, size) of each.
#[derive(Default)]
struct Calls {
    maps: Vec<(usize, usize)>,
    unmaps: Vec<(usize, usize)>,
    refuse_to_map: bool,
    refuse_to_unmap: bool,
    answer_null: bool,
}

static CALLS: Mutex<Calls> = Mutex::new(Calls {
    maps: Vec::new(),
    unmaps: Vec::new(),
    refuse_to_map: false,
    refuse_to_unmap: false,
    answer_null: false,
});
static GPU: Mutex<Option<Gpu>> = Mutex::new(None);

/// Addresses that nothing may touch, and the bytes behind them, which the CPU sees elsewhere.
#[derive(Clone, Copy)]
struct Gpu {
    device: usize,
    cpu: usize,
}

fn calls() -> MutexGuard<'static, Calls> {
    CALLS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often memory was mapped and unmapped.
fn counts() -> (usize, usize) {
    let calls = calls();
    (calls.maps.len(), calls.unmaps.len())
}

fn gpu() -> Gpu {
    let map = |protection| {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new private mapping wherever the kernel likes, never unmapped.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), BYTES, protection, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        start.expose_provenance()
    };
    let mut gpu = GPU.lock().unwrap_or_else(PoisonError::into_inner);
    *gpu.get_or_insert_with(|| Gpu {
        device: map(libc::PROT_NONE),
        cpu: map(libc::PROT_READ | libc::PROT_WRITE),
    })
}

fn bytes_of(gpu: Gpu, offset: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let from = std::ptr::with_exposed_provenance::<u8>(gpu.cpu + offset);
    // SAFETY: inside the mapping, and no transfer is under way.
    unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), length) };
    bytes
}

unsafe extern "C" fn map(out: *mut *mut c_void, address: *mut c_void, size: usize) -> c_int {
    let (gpu, address, mut calls) = (gpu(), address as usize, calls());
    if calls.refuse_to_map || !(gpu.device..gpu.device + BYTES).contains(&address) {
        return FAILED;
    }
    assert!(
        address % PAGE == 0 && size.is_multiple_of(PAGE) && address + size <= gpu.device + BYTES,
        "whole pages"
    );
    calls.maps.push((address, size));
    if !calls.answer_null {
        // SAFETY: the engine gives a valid out parameter.
        unsafe { *out = std::ptr::with_exposed_provenance_mut(address - gpu.device + gpu.cpu) };
    }
    0
}

unsafe extern "C" fn unmap(mapped: *mut c_void, size: usize) -> c_int {
    let mut calls = calls();
    calls.unmaps.push((mapped as usize, size));
    if calls.refuse_to_unmap { FAILED } else { 0 }
}

unsafe extern "C" fn handle_create(handle: *mut *mut c_void, size: *mut usize) -> c_int {
    // SAFETY: the engine gives valid out parameters.
    unsafe { (*handle, *size) = (Box::into_raw(Box::new(0_u64)).cast(), 8) };
    0
}
unsafe extern "C" fn handle_get(_handle: *mut c_void, address: *mut c_void) -> c_int {
    let gpu = gpu();
    if (gpu.device..gpu.device + BYTES).contains(&(address as usize)) { 0 } else { FAILED }
}
unsafe extern "C" fn handle_free(handle: *mut c_void) -> c_int {
    // SAFETY: made by `handle_create`, given back once.
    drop(unsafe { Box::from_raw(handle.cast::<u64>()) });
    0
}

const FULL: GpuTable = {
    let mut table = NOTHING;
    table.gdr_ptr_mmap = Some(map);
    table.gdr_ptr_munmap = Some(unmap);
    table.ipc_mem_handle_create = Some(handle_create);
    table.ipc_mem_handle_get = Some(handle_get);
    table.ipc_mem_handle_free = Some(handle_free);
    table
};

/// The table of the process is one for all tests, so they run one after the other.
struct Bench {
    standin: Standin,
    client: Arc<Engine>,
    server: Arc<Engine>,
    _alone: MutexGuard<'static, ()>,
}

impl Bench {
    fn new(table: GpuTable) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        *calls() = Calls::default();
        // SAFETY: the callbacks above conform.
        gpu::install(Some(Arc::new(unsafe { TableRuntime::new(move || table) })));
        let standin = Standin::new(&[]);
        let options = FabricOptions {
            choice: FabricChoice::Verbs,
            verbs: standin.options(),
            ..FabricOptions::default()
        };
        let devices = Some(Arc::new(DeviceList::open(&options).unwrap()));
        let config = support::config(&[]);
        let open = || {
            let options = EngineOptions { gpu_index: 0, devices: devices.clone() };
            Engine::open(Arc::clone(&config), options).unwrap()
        };
        let (client, server) = (open(), open());
        Self { standin, client, server, _alone: alone }
    }

    fn register(&self, address: usize, length: usize, kind: MemoryKind) -> Result<u64, String> {
        let options = RegisterOptions { kind, ..RegisterOptions::default() };
        // SAFETY: the played GPU's mappings are never unmapped.
        let id = unsafe { self.server.register(address as u64, length as u64, options) };
        id.map(|id| id.0).map_err(|error| error.to_string())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        gpu::install(None);
    }
}

#[test]
fn a_peer_writes_device_memory_that_was_mapped_to_be_registered() {
    let bench = Bench::new(FULL);
    let gpu = gpu();
    // Neither the start nor the length is that of a page.
    let (start, length) = (gpu.device + PAGE + 100, 3 * PAGE);
    bench.register(start, length, MemoryKind::Probe).unwrap();
    let pages = (gpu.device + PAGE, 4 * PAGE);
    assert_eq!(calls().maps, [pages]);
    assert_eq!(calls().unmaps, [(gpu.cpu + PAGE, 4 * PAGE)], "as soon as it is registered");

    let source = bench.client.allocate(length).unwrap();
    let sent = pattern(5, length);
    assert!(source.write(0, &sent));
    let before = bytes_of(gpu, 0, BYTES);
    let (here, _there) = support::connect(&bench.client, &bench.server);
    let remote = here.describe_remote(start as u64, length as u32).unwrap();
    let iov = Iov { local: source.address(), length: length as u64, region: Some(source.region()), remote };
    let id = here.submit(Opcode::Write, &[iov][..]).unwrap();
    assert_eq!(outcome(&here, id), Outcome::Done);
    let mut expected = before;
    expected[PAGE + 100..][..length].copy_from_slice(&sent);
    assert!(bytes_of(gpu, 0, BYTES) == expected, "the bytes behind the address, and no others");
}

#[test]
fn whatever_fails_is_unmapped_and_nothing_stays_registered() {
    let bench = Bench::new(FULL);
    let start = gpu().device;
    bench.standin.set("locked_bytes", 0);
    let error = bench.register(start, PAGE, MemoryKind::Gpu).unwrap_err();
    assert!(error.contains("ibv_reg_mr_iova2"), "{error}");
    assert_eq!(counts(), (1, 1));

    bench.standin.set("locked_bytes", u64::MAX);
    let regions = bench.standin.live().regions;
    // A mapping that cannot be ended is the program's trouble: the memory is registered all the same.
    calls().refuse_to_unmap = true;
    let id = bench.register(start, PAGE, MemoryKind::Gpu).unwrap();
    assert_eq!(bench.standin.live().regions, regions + 1);
    assert!(bench.server.deregister(RegionId(id)));
    assert_eq!(bench.standin.live().regions, regions);
    assert_eq!(counts(), (2, 2), "deregistering maps nothing");
}

#[test]
fn without_a_mapping_the_address_itself_is_registered() {
    let bench = Bench::new(FULL);
    let start = gpu().device;
    for (refuse_to_map, answer_null) in [(true, false), (false, true)] {
        *calls() = Calls { refuse_to_map, answer_null, ..Calls::default() };
        bench.register(start + if answer_null { PAGE } else { 0 }, PAGE, MemoryKind::Gpu).unwrap();
        assert_eq!(calls().unmaps, [], "what was not mapped is not unmapped");
    }
}

#[test]
fn host_memory_is_not_mapped() {
    let bench = Bench::new(FULL);
    let memory = vec![0_u8; PAGE];
    let address = memory.as_ptr().expose_provenance();
    bench.register(address, PAGE, MemoryKind::Probe).unwrap();
    // Declared to be the host's, it is believed: the table is not asked.
    bench.register(gpu().cpu, PAGE, MemoryKind::Host).unwrap();
    assert_eq!(counts(), (0, 0));
}

#[test]
fn either_callback_alone_maps_nothing() {
    for table in [GpuTable { gdr_ptr_munmap: None, ..FULL }, GpuTable { gdr_ptr_mmap: None, ..FULL }] {
        let bench = Bench::new(table);
        bench.register(gpu().device, PAGE, MemoryKind::Gpu).unwrap();
        assert_eq!(counts(), (0, 0));
    }
}

#[test]
fn a_table_that_cannot_tell_device_memory_is_asked_to_map_it() {
    let bench = Bench::new(GpuTable { ipc_mem_handle_get: None, ..FULL });
    bench.register(gpu().device, PAGE, MemoryKind::Probe).unwrap();
    assert_eq!(counts(), (1, 1));
}

/// As short as it is, the CPU is not to read it: that would be the end of the process.
#[test]
fn a_small_write_of_device_memory_that_no_runtime_knows_is_not_sent_inline() {
    let bench = Bench::new(GpuTable { ipc_mem_handle_get: None, ..FULL });
    let gpu = gpu();
    // SAFETY: the played GPU's mappings are never unmapped.
    let region = unsafe { bench.client.register(gpu.device as u64, PAGE as u64, RegisterOptions::default()) };
    let target = bench.server.allocate(PAGE).unwrap();
    let (here, _there) = support::connect(&bench.client, &bench.server);
    let remote = here.describe_remote(target.address(), 48).unwrap();
    let iov = Iov { local: gpu.device as u64, length: 48, region: Some(region.unwrap()), remote };
    let id = here.submit(Opcode::Write, &[iov][..]).unwrap();
    assert_eq!(outcome(&here, id), Outcome::Done);
    assert!(support::content(&target)[..48] == bytes_of(gpu, 0, 48));
}

#[test]
fn a_registration_apart_is_mapped_each_time() {
    let bench = Bench::new(FULL);
    let devices = flagcx_p2p::internals::fabric::verbs::open(&bench.standin.options()).unwrap();
    let registry = Registry::new(Arc::clone(&devices[0]));
    let whole = (gpu().device as u64, BYTES as u64);
    for round in 1..=2 {
        registry.register_apart(whole, MemoryKind::Probe, Access::FULL, false, None, None).unwrap();
        assert_eq!(counts(), (round, round));
    }
}

/// No callback at all.
const NOTHING: GpuTable = GpuTable {
    device_memcpy: None,
    set_device: None,
    get_device: None,
    get_device_count: None,
    gdr_ptr_mmap: None,
    gdr_ptr_munmap: None,
    stream_create: None,
    stream_destroy: None,
    event_create: None,
    event_destroy: None,
    event_record: None,
    event_query: None,
    ipc_mem_handle_create: None,
    ipc_mem_handle_get: None,
    ipc_mem_handle_open: None,
    ipc_mem_handle_close: None,
    ipc_mem_handle_free: None,
    get_device_pci_bus_id: None,
    get_device_by_pci_bus_id: None,
    get_last_error: None,
    launch_host_func: None,
    dma_support: None,
    get_handle_for_address_range: None,
    get_pointer_type: None,
};

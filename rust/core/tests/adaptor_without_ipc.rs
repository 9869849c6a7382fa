//! An adaptor as those of HIP, MUSA, CANN and MLU: it copies, its IPC part is not written, and it says nothing of pointers. GPU
//! memory moves between two engines of a process all the same, by the adaptor's own copies and by nothing else.
#![allow(unsafe_code, reason = "plays the C side")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a panic is how a test fails"
)]

mod support;

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::{Engine, EngineOptions, RegisterOptions};
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::gpu::{self, GpuTable, TableRuntime};
use flagcx_p2p::internals::memory::{MemoryKind, RegionId};
use flagcx_p2p::internals::transfer::{Iov, Outcome, SubmitError};
use support::{blocks, outcome};

/// Bytes of the played GPU's memory.
const BYTES: usize = 160 << 20;
/// The longest copy, and a page.
const BIG: usize = LONGEST + 4096;
const LONGEST: usize = 64 << 20;
/// The device of the engines, which is not that of a thread that has not chosen one.
const DEVICE: c_int = 3;
const NOT_SUPPORTED: c_int = 9;
const FAILED: c_int = 1;

/// Addresses that nothing may touch, and where their bytes are.
struct Gpu {
    start: usize,
    bytes: usize,
}

fn gpu() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    let map = |protection| {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new private mapping wherever the kernel likes, never unmapped.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), BYTES, protection, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        start.expose_provenance()
    };
    GPU.get_or_init(|| Gpu { start: map(libc::PROT_NONE), bytes: map(libc::PROT_READ | libc::PROT_WRITE) })
}

impl Gpu {
    /// Whether the range is its memory, and where the CPU finds that.
    fn behind(&self, address: usize, length: usize) -> (bool, usize) {
        let ours = address >= self.start && address + length <= self.start + BYTES;
        (ours, if ours { self.bytes + (address - self.start) } else { address })
    }

    fn content(&self, offset: usize, length: usize) -> Vec<u8> {
        // SAFETY: inside the mapping, and no copy is under way.
        unsafe { std::slice::from_raw_parts((self.bytes + offset) as *const u8, length) }.to_vec()
    }

    fn fill(&self, offset: usize, bytes: &[u8]) {
        // SAFETY: as above.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), (self.bytes + offset) as *mut u8, bytes.len())
        };
    }
}

/// Each copy of the adaptor: its direction and its bytes.
static COPIES: Mutex<Vec<(c_int, usize)>> = Mutex::new(Vec::new());

thread_local! {
    /// What the thread has chosen. Until then its calls fail, as those of CANN.
    static CHOSEN: Cell<Option<c_int>> = const { Cell::new(None) };
}

unsafe extern "C" fn set_device(device: c_int) -> c_int {
    CHOSEN.set(Some(device));
    0
}
unsafe extern "C" fn get_device(device: *mut c_int) -> c_int {
    let Some(chosen) = CHOSEN.get() else { return FAILED };
    // SAFETY: the engine gives a valid out parameter.
    unsafe { *device = chosen };
    0
}
/// Whether the engine's device is current for the thread: aborts if it is not, as some runtimes crash then.
fn check_device(call: &str) {
    if CHOSEN.get() != Some(DEVICE) {
        eprintln!("{call} with device {:?} instead of {DEVICE}", CHOSEN.get());
        std::process::abort();
    }
}
unsafe extern "C" fn copy(
    to: *mut c_void,
    from: *mut c_void,
    size: usize,
    direction: c_int,
    _stream: *mut c_void,
    _args: *mut c_void,
) -> c_int {
    check_device("deviceMemcpy");
    let ((to_gpu, to), (from_gpu, from)) =
        (gpu().behind(to as usize, size), gpu().behind(from as usize, size));
    if (from_gpu, to_gpu) != [(false, true), (true, false), (true, true)][direction as usize] {
        return FAILED;
    }
    COPIES.lock().unwrap_or_else(PoisonError::into_inner).push((direction, size));
    // SAFETY: both are memory of as many bytes, as just checked for the GPU's and as the engine has checked for the host's.
    unsafe { std::ptr::copy(from as *const u8, to as *mut u8, size) };
    0
}
unsafe extern "C" fn create(object: *mut *mut c_void) -> c_int {
    check_device("streamCreate");
    // SAFETY: the engine gives a valid out parameter.
    unsafe { *object = Box::into_raw(Box::new(0_u64)).cast() };
    0
}
unsafe extern "C" fn create_event(object: *mut *mut c_void, _: c_int) -> c_int {
    // SAFETY: as of the caller.
    unsafe { create(object) }
}
unsafe extern "C" fn destroy(object: *mut c_void) -> c_int {
    check_device("destroy");
    // SAFETY: made by `create`, given back once.
    drop(unsafe { Box::from_raw(object.cast::<u64>()) });
    0
}
unsafe extern "C" fn record(_: *mut c_void, _: *mut c_void) -> c_int {
    check_device("eventRecord");
    0
}
unsafe extern "C" fn query(_: *mut c_void) -> c_int {
    check_device("eventQuery");
    0
}
unsafe extern "C" fn create_handle(_: *mut *mut c_void, _: *mut usize) -> c_int {
    NOT_SUPPORTED
}
unsafe extern "C" fn use_handle(_: *mut c_void, _: *mut c_void) -> c_int {
    NOT_SUPPORTED
}
unsafe extern "C" fn free_handle(_: *mut c_void) -> c_int {
    NOT_SUPPORTED
}

fn table() -> GpuTable {
    GpuTable {
        device_memcpy: Some(copy),
        set_device: Some(set_device),
        get_device: Some(get_device),
        stream_create: Some(create),
        stream_destroy: Some(destroy),
        event_create: Some(create_event),
        event_destroy: Some(destroy),
        event_record: Some(record),
        event_query: Some(query),
        ipc_mem_handle_create: Some(create_handle),
        ipc_mem_handle_get: Some(use_handle),
        ipc_mem_handle_free: Some(free_handle),
        ..GpuTable::default()
    }
}

/// Two engines of device 3, connected. The table of the process is one for all tests, so they run one after the other.
struct Bench {
    client: Arc<Engine>,
    server: Arc<Engine>,
    here: Arc<Connection>,
    _there: Arc<Connection>,
    _alone: MutexGuard<'static, ()>,
}

impl Bench {
    fn new() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the callbacks above conform.
        gpu::install(Some(Arc::new(unsafe { TableRuntime::new(table) })));
        let config = support::config(&[]);
        let devices = support::devices(&config);
        let open = || {
            let options = EngineOptions { gpu_index: DEVICE, devices: Some(Arc::clone(&devices)) };
            Engine::open(Arc::clone(&config), options).unwrap()
        };
        let (client, server) = (open(), open());
        let (here, there) = support::connect(&client, &server);
        Self { client, server, here, _there: there, _alone: alone }
    }

    fn iov(&self, local: (u64, RegionId), remote: (u64, RegionId), length: usize) -> Iov {
        let remote = self.server.describe(remote.1, remote.0, length as u64).unwrap();
        Iov { local: local.0, length: length as u64, region: Some(local.1), remote }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.here.close();
        self.client.close();
        self.server.close();
        gpu::install(None);
        COPIES.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// What the kind is found to be, without a word of the caller.
fn register(engine: &Engine, address: usize, length: usize) -> Result<(u64, RegionId), String> {
    // SAFETY: the played GPU's memory is never unmapped, and host memory outlives the engine's use of it.
    let region = unsafe { engine.register(address as u64, length as u64, RegisterOptions::default()) };
    region.map(|region| (address as u64, region)).map_err(|error| error.to_string())
}

fn copies() -> Vec<(c_int, usize)> {
    std::mem::take(&mut *COPIES.lock().unwrap_or_else(PoisonError::into_inner))
}

/// 64 MiB and a page each way: as many bytes are copied as there are, by as few calls as there can be, and none twice.
#[test]
fn bytes_are_copied_once_and_by_the_adaptor() {
    let bench = Bench::new();
    let (gpu, source) = (gpu(), bench.client.allocate(BIG).unwrap());
    let sent = blocks(1, BIG);
    assert!(source.write(0, &sent));
    let host = (source.address(), source.region());
    let near = register(&bench.client, gpu.start, BIG).unwrap();
    let far = register(&bench.server, gpu.start + BIG, BIG).unwrap();
    for (address, engine) in [(near.0, &bench.client), (far.0, &bench.server)] {
        assert_eq!(engine.find_region(address, 1).unwrap().kind, MemoryKind::Gpu);
        assert_eq!(engine.ipc_info(address), Some(None), "there is no IPC");
    }
    let carry = |opcode, iov: Iov| {
        let id = bench.here.submit(opcode, &[iov][..]).unwrap();
        assert_eq!(outcome(&bench.here, id), Outcome::Done);
        copies()
    };
    let (to_gpu, to_host, within) = (0, 1, 2);
    let whole = |direction| [(direction, LONGEST), (direction, BIG - LONGEST)];
    assert_eq!(carry(Opcode::Write, bench.iov(host, far, BIG)), whole(to_gpu));
    assert!(gpu.content(BIG, BIG) == sent);
    assert_eq!(carry(Opcode::Read, bench.iov(near, far, BIG)), whole(within));
    assert!(gpu.content(0, BIG) == sent);
    let target = bench.server.allocate(BIG).unwrap();
    let there = (target.address(), target.region());
    assert_eq!(carry(Opcode::Write, bench.iov(near, there, BIG)), whole(to_host));
    assert!(support::content(&target) == sent);
}

/// Pieces of the host and of the GPU in one transfer, from threads that have not chosen a device, and that have chosen another.
#[test]
fn any_thread_moves_pieces_of_both_kinds() {
    const PIECE: usize = 10_007;
    let bench = Bench::new();
    let (gpu, source) = (gpu(), bench.client.allocate(PIECE).unwrap());
    let (sent, target) = (blocks(2, PIECE), bench.server.allocate(2 * PIECE).unwrap());
    assert!(source.write(0, &sent));
    let near = register(&bench.client, gpu.start, PIECE).unwrap();
    let far = register(&bench.server, gpu.start + BIG + 5, PIECE).unwrap();
    gpu.fill(0, &sent);
    let (host, there) = ((source.address(), source.region()), (target.address(), target.region()));
    let behind = (there.0 + PIECE as u64, there.1);
    let iovs = [bench.iov(host, far, PIECE), bench.iov(near, there, PIECE), bench.iov(host, behind, PIECE)];
    for chosen in [None, Some(0), Some(DEVICE)] {
        gpu.fill(BIG + 5, &vec![0; PIECE]);
        assert!(target.write(0, &vec![0; 2 * PIECE]));
        let carry = || {
            CHOSEN.set(chosen);
            let id = bench.here.submit(Opcode::Write, &iovs[..]).unwrap();
            assert_eq!(outcome(&bench.here, id), Outcome::Done);
            // A thread that had chosen nothing cannot be brought back to that.
            assert_eq!(CHOSEN.get().filter(|_| chosen.is_some()), chosen);
        };
        std::thread::scope(|scope| scope.spawn(carry).join().unwrap());
        assert!(gpu.content(BIG + 5, PIECE) == sent);
        assert!(support::content(&target) == [sent.clone(), sent.clone()].concat());
    }
}

/// The adaptor cannot tell, so registering it may not fail; the transfer does, with the adaptor's answer.
#[test]
fn memory_of_no_gpu_fails_its_transfer_and_half_of_a_range_is_refused() {
    const PAGE: usize = 4096;
    let bench = Bench::new();
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new private mapping wherever the kernel likes, and the first page of it made accessible.
    let foreign = unsafe {
        let start = libc::mmap(std::ptr::null_mut(), 2 * PAGE, libc::PROT_NONE, flags, -1, 0);
        assert_ne!(start, libc::MAP_FAILED);
        assert_eq!(libc::mprotect(start, PAGE, libc::PROT_READ | libc::PROT_WRITE), 0);
        start.expose_provenance()
    };
    let refused = register(&bench.server, foreign, 2 * PAGE).unwrap_err();
    assert!(refused.contains(&format!("from byte {PAGE} on")), "{refused}");
    let (far, source) =
        (register(&bench.server, foreign + PAGE, PAGE).unwrap(), bench.client.allocate(PAGE).unwrap());
    let iov = bench.iov((source.address(), source.region()), far, PAGE);
    let reason = match bench.here.submit(Opcode::Write, &[iov][..]) {
        Err(SubmitError::Gpu { reason, .. }) => reason,
        Err(other) => panic!("{other}"),
        Ok(id) => match outcome(&bench.here, id) {
            Outcome::Failed(failure) => failure.reason,
            other => panic!("{other:?}"),
        },
    };
    assert!(reason.contains("deviceMemcpy failed: callback error 1"), "{reason}");
}

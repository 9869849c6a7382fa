//! Which NIC an engine uses, and when it is chosen: four played NICs that are equally near, and GPUs that are played by a table of
//! callbacks. GPU `g` then has the NIC that the bits of `g`, mirrored, number: GPU 1 has nv2, GPU 2 has nv1.
#![cfg(feature = "verbs")]
#![allow(unsafe_code, reason = "plays the C side")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

mod captured_log;
mod nullverbs;
mod support;

use std::ffi::{c_int, c_void};
use std::io::Write;
use std::net::TcpStream;
use std::ops::Range;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use captured_log::Captured;
use flagcx_p2p::internals::engine::{Engine, EngineError, EngineOptions, RegisterOptions};
use flagcx_p2p::internals::fabric::{DeviceList, verbs};
use flagcx_p2p::internals::gpu::{self, GpuTable, TableRuntime};
use flagcx_p2p::internals::memory::RegionId;
use nullverbs::Standin;
use tracing::Level;

/// The GPU that is current for every thread; -1 for none.
static CURRENT: AtomicI32 = AtomicI32::new(-1);
/// The next thread that counts GPUs, as the one does that chooses, waits here twice for another one.
static HELD: Mutex<Option<Arc<Barrier>>> = Mutex::new(None);
/// The addresses that are GPU memory.
static ON_GPU: Mutex<Range<usize>> = Mutex::new(0..0);

/// Four NICs, GPUs of a runtime that does not say on which of them memory is, and memory of one.
struct Played {
    devices: Arc<DeviceList>,
    gpu_memory: Vec<u8>,
    host_memory: Vec<u8>,
    log: &'static Captured,
    _standin: Standin,
    _alone: MutexGuard<'static, ()>,
}

impl Played {
    fn new(current: i32) -> Self {
        Self::with(current, &[])
    }

    fn with(current: i32, settings: &[(&str, u64)]) -> Self {
        let (alone, log) = Captured::alone();
        let standin = Standin::new(&[&[("devs", 4)], settings].concat());
        let devices = Arc::new(DeviceList::of(verbs::open(&standin.options()).unwrap()));
        let (gpu_memory, host_memory) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        let start = gpu_memory.as_ptr().expose_provenance();
        *ON_GPU.lock().unwrap_or_else(PoisonError::into_inner) = start..start + gpu_memory.len();
        CURRENT.store(current, Ordering::Relaxed);
        // SAFETY: the callbacks below conform.
        gpu::install(Some(Arc::new(unsafe { TableRuntime::new(table) })));
        Self { devices, gpu_memory, host_memory, log, _standin: standin, _alone: alone }
    }

    fn try_open(&self, gpu_index: i32, settings: &[(&str, &str)]) -> Result<Arc<Engine>, EngineError> {
        let bind = [("FLAGCX_P2P_BIND", "127.0.0.1")];
        let config = support::config(&[&bind, settings].concat());
        Engine::open(config, EngineOptions { gpu_index, devices: Some(Arc::clone(&self.devices)) })
    }

    /// An engine for which no GPU is named.
    fn open(&self) -> Arc<Engine> {
        self.try_open(EngineOptions::default().gpu_index, &[]).unwrap()
    }

    /// The line about a choice that begins so, after the first `skipped` lines.
    fn line(&self, skipped: usize, beginning: &str) -> String {
        let lines = self.log.lines();
        let found = lines.iter().skip(skipped).find(|line| line.message.starts_with(beginning));
        found.unwrap_or_else(|| panic!("no line {beginning:?}")).message.clone()
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        gpu::install(None);
    }
}

fn register(engine: &Engine, memory: &[u8]) -> RegionId {
    let (address, length) = (memory.as_ptr().expose_provenance() as u64, memory.len() as u64);
    // SAFETY: the memory outlives the engine, and nothing else uses it.
    unsafe { engine.register(address, length, RegisterOptions::default()) }.unwrap()
}

fn nic(engine: &Engine) -> Option<String> {
    engine.device().map(|device| device.attributes().name.clone())
}

#[test]
fn the_first_gpu_memory_decides() {
    let played = Played::new(0);
    let (engine, before) = (played.open(), played.log.lines().len());
    assert_eq!(nic(&engine), None, "nothing is assumed as long as nothing needs it");
    // The program has chosen another GPU since.
    CURRENT.store(1, Ordering::Relaxed);
    let id = register(&engine, &played.gpu_memory);
    assert_eq!(nic(&engine).as_deref(), Some("nv2"));
    let line = played.line(before, "NIC chosen for GPU 1");
    assert!(
        line.contains("assumed because it is current") && line.contains("does not say on which GPU"),
        "{line}"
    );
    assert!(line.contains("one of 4 equal paths"), "{line}");
    // It stays.
    CURRENT.store(3, Ordering::Relaxed);
    assert!(engine.deregister(id));
    register(&engine, &played.gpu_memory);
    assert_eq!(nic(&engine).as_deref(), Some("nv2"));
    // Peers are told what was current when the engine opened, as by the original one.
    assert!(engine.metadata().unwrap().contains("?0?"));
}

#[test]
fn host_memory_first_goes_by_the_current_gpu_and_says_so() {
    let played = Played::new(2);
    let (engine, before) = (played.open(), played.log.lines().len());
    register(&engine, &played.host_memory);
    assert_eq!(nic(&engine).as_deref(), Some("nv1"));
    let line = played.line(before, "NIC chosen for GPU 2, which is assumed because it is current");
    assert!(line.contains("host memory is registered before any GPU memory"), "{line}");
    assert!(engine.metadata().unwrap().contains("?2?"));
}

#[test]
fn without_a_current_gpu_the_choice_is_for_host_memory() {
    let played = Played::new(-1);
    let before = played.log.lines().len();
    let (client, server) = (played.open(), played.open());
    server.start_rpc_server().unwrap();
    assert_eq!(nic(&server), None, "a server without a peer needs no NIC yet");
    let session = format!("127.0.0.1:{}", server.rpc_port().unwrap());
    let connection = client.session(&session).unwrap();
    assert_eq!((nic(&client).as_deref(), nic(&server).as_deref()), (Some("nv0"), Some("nv0")));
    let line = played.line(before, "NIC chosen for host memory");
    assert!(line.contains("no GPU is current and a peer connects before any GPU memory"), "{line}");
    drop(connection);
}

#[test]
fn a_named_gpu_decides_at_once() {
    let played = Played::new(3);
    let chosen = |gpu| nic(&played.try_open(gpu, &[]).unwrap());
    let expected = ["nv0", "nv2", "nv1", "nv3"].map(|name| Some(name.to_owned()));
    assert_eq!([0, 1, 2, 3].map(chosen), expected);
    let engine = played.try_open(1, &[]).unwrap();
    register(&engine, &played.gpu_memory);
    assert_eq!(nic(&engine).as_deref(), Some("nv2"));
    assert!(engine.metadata().unwrap().contains("?1?"));
}

#[test]
fn an_engine_that_has_chosen_nothing_answers_everything() {
    let played = Played::new(0);
    let engine = played.open();
    assert!(engine.deregister(RegionId(1)));
    assert!(engine.find_region(4096, 1).is_none() && engine.ipc_info(4096).is_none());
    assert!(engine.describe(RegionId(1), 4096, 1).unwrap_err().to_string().contains("no such region"));
    assert!(engine.free(4096).is_err());
    assert_eq!(nic(&engine), None, "none of that needs a NIC");
    engine.close();
    assert!(engine.allocate(4096).is_err());
    assert_eq!(nic(&engine), None);
}

#[test]
fn threads_that_come_at_once_have_one_choice() {
    let played = Played::new(1);
    for _ in 0..8 {
        let (engine, before) = (played.open(), played.log.lines().len());
        thread::scope(|scope| {
            for part in played.gpu_memory.chunks(1 << 13) {
                let engine = &engine;
                scope.spawn(move || register(engine, part));
            }
        });
        assert_eq!(nic(&engine).as_deref(), Some("nv2"));
        let lines = played.log.lines();
        let chosen = lines.iter().skip(before).filter(|line| line.message.starts_with("NIC chosen for"));
        assert_eq!(chosen.count(), 1);
    }
}

#[test]
fn the_map_wins_and_one_that_names_nothing_is_refused() {
    let played = Played::new(-1);
    let open = |gpu, settings: &[_]| played.try_open(gpu, settings).map(|engine| nic(&engine).unwrap());
    let map = ("FLAGCX_P2P_NIC_MAP", "1=nv3,2=nv0:1");
    assert_eq!([0, 1, 2, 3].map(|gpu| open(gpu, &[map]).unwrap()), ["nv0", "nv3", "nv0", "nv3"]);
    let affinity = ("FLAGCX_P2P_DEST_DEV_AFFINITY", "1");
    assert_eq!([0, 1, 2, 3].map(|gpu| open(gpu, &[map, affinity]).unwrap()), ["nv0", "nv3", "nv0", "nv3"]);
    for (text, named) in [("0=nv0,1=mlx5_9", "1=mlx5_9"), ("7=nv0:2", "7=nv0:2")] {
        let error = open(0, &[("FLAGCX_P2P_NIC_MAP", text)]).unwrap_err().to_string();
        let expected = format!(
            "FLAGCX_P2P_NIC_MAP: {named} names no NIC that this process uses: there are nv0:1, nv1:1, nv2:1, nv3:1"
        );
        assert!(error.starts_with(&expected), "{error}");
    }
    let error = open(0, &[("FLAGCX_P2P_NIC_MAP", "nv0")]).unwrap_err().to_string();
    assert!(error.contains("is not GPU=name"), "{error}");
}

#[test]
fn flagcx_s_topology_file_names_nics_that_the_map_does_not() {
    let played = Played::new(-1);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(
        br#"<system><gpu dev="0" net="nv3"/><gpu dev="1" net="nv3"/><gpu dev="2" net="gone"/></system>"#,
    )
    .unwrap();
    let path = file.path().to_str().unwrap();
    let (file, map) = (("FLAGCX_TOPO_FILE", path), ("FLAGCX_P2P_NIC_MAP", "1=nv0"));
    let before = played.log.lines().len();
    let open = |gpu, settings: &[_]| nic(&played.try_open(gpu, settings).unwrap()).unwrap();
    assert_eq!([0, 1, 2, 3].map(|gpu| open(gpu, &[file, map])), ["nv3", "nv0", "nv1", "nv3"]);
    assert!(played.line(before, "FLAGCX_TOPO_FILE=").contains("2=gone names no NIC"));
    assert_eq!(open(0, &[("FLAGCX_TOPO_FILE", "/nonexistent")]), "nv0");
    assert!(played.line(before, "FLAGCX_TOPO_FILE is not used").contains("/nonexistent"));
}

#[test]
fn the_topology_file_says_nothing_by_a_nic_that_is_not_there() {
    let played = Played::new(-1);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(br#"<system><gpu dev="1" net="gone"/></system>"#).unwrap();
    let settings =
        [("FLAGCX_TOPO_FILE", file.path().to_str().unwrap()), ("FLAGCX_P2P_DEST_DEV_AFFINITY", "1")];
    assert_eq!(nic(&played.try_open(1, &settings).unwrap()).as_deref(), Some("nv1"), "its rail");
}

#[test]
fn a_nic_of_the_map_that_cannot_be_used_is_named_in_the_log() {
    let played = Played::with(-1, &[("no_rc", 1)]);
    let before = played.log.lines().len();
    let engine = played.try_open(0, &[("FLAGCX_P2P_NIC_MAP", "0=nv0")]).unwrap();
    assert_eq!(nic(&engine).as_deref(), Some("nv1"));
    let line = played.line(before, "not used, although FLAGCX_P2P_NIC_MAP");
    assert!(line.contains("names it for GPU 0: "), "{line}");
}

/// Each need tries them again, in each engine: the first refusal of each device is news.
#[test]
fn devices_that_cannot_be_used_are_told_once_each() {
    let played = Played::with(-1, &[("no_rc", u64::MAX)]);
    let before = played.log.lines().len();
    let levels = || {
        let lines = played.log.lines();
        let told = lines.iter().skip(before).filter(|line| line.message.starts_with("not used"));
        let (warned, others): (Vec<_>, Vec<_>) = told.partition(|line| line.level == Level::WARN);
        assert!(others.iter().all(|line| line.level == Level::DEBUG));
        let mut names: Vec<_> = warned.iter().map(|line| line.fields["device"].clone()).collect();
        names.sort();
        (names.join(" "), others.len())
    };
    let engines = [played.open(), played.open()];
    for (needs, engine) in (1..).zip([&engines[0], &engines[0], &engines[1]]) {
        let (address, length) = (played.host_memory.as_ptr().expose_provenance() as u64, 4096);
        // SAFETY: the memory outlives the engine, and nothing else uses it.
        let refused = unsafe { engine.register(address, length, RegisterOptions::default()) }.unwrap_err();
        assert!(refused.to_string().contains("nv3"), "{refused}");
        assert_eq!(levels(), ("nv0 nv1 nv2 nv3".to_owned(), 4 * (needs - 1)));
    }
}

/// A device that cannot be used keeps its number: only the GPU on its rail has another NIC.
#[test]
fn rails_stay_when_a_device_cannot_be_used() {
    let played = Played::with(-1, &[("no_rc", 1 << 1)]);
    let open = |gpu| nic(&played.try_open(gpu, &[("FLAGCX_P2P_DEST_DEV_AFFINITY", "1")]).unwrap()).unwrap();
    assert_eq!([0, 2, 3, 4, 6].map(open), ["nv0", "nv2", "nv3", "nv0", "nv2"]);
    let before = played.log.lines().len();
    assert_ne!(open(1), "nv1");
    let line = played.line(before, "NIC chosen for GPU 1");
    assert!(!line.contains("number of the GPU"), "{line}");
}

#[test]
fn host_memory_has_no_rail() {
    let played = Played::new(-1);
    let before = played.log.lines().len();
    let unnamed = EngineOptions::default().gpu_index;
    let engine = played.try_open(unnamed, &[("FLAGCX_P2P_DEST_DEV_AFFINITY", "1")]).unwrap();
    register(&engine, &played.host_memory);
    let line = played.line(before, "NIC chosen for host memory");
    assert!(!line.contains("number of the GPU"), "{line}");
}

#[test]
fn for_a_peer_counts_the_gpu_that_was_current_when_the_engine_opened() {
    let played = Played::new(2);
    let server = played.open();
    server.start_rpc_server().unwrap();
    // What a thread of the engine's own is told by a runtime that has a current GPU for every thread.
    CURRENT.store(0, Ordering::Relaxed);
    let client = played.open();
    let connection = client.session(&format!("127.0.0.1:{}", server.rpc_port().unwrap())).unwrap();
    assert_eq!((nic(&client).as_deref(), nic(&server).as_deref()), (Some("nv0"), Some("nv1")));
    drop(connection);
}

#[test]
fn a_client_that_is_no_peer_decides_nothing() {
    let played = Played::new(1);
    let (server, before) = (played.open(), played.log.lines().len());
    server.start_rpc_server().unwrap();
    let connect = || TcpStream::connect(("127.0.0.1", server.rpc_port().unwrap())).unwrap();
    drop(connect());
    let mut scan = connect();
    scan.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let refused = || {
        let lines = played.log.lines();
        lines.iter().skip(before).filter(|line| line.message.contains("is no peer")).count()
    };
    let begun = Instant::now();
    while refused() < 2 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{} were refused", refused());
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(nic(&server), None);
}

#[test]
fn an_engine_that_is_closed_while_its_nic_is_chosen_registers_nothing() {
    let played = Played::new(1);
    let engine = played.open();
    let barrier = Arc::new(Barrier::new(2));
    *HELD.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&barrier));
    let (address, length) = (played.host_memory.as_ptr().expose_provenance() as u64, 4096);
    thread::scope(|scope| {
        // SAFETY: the memory outlives the engine, and nothing else uses it.
        let registered =
            scope.spawn(|| unsafe { engine.register(address, length, RegisterOptions::default()) });
        barrier.wait();
        engine.close();
        barrier.wait();
        let error = registered.join().unwrap().unwrap_err();
        assert!(matches!(error, EngineError::Closed { .. }), "{error}");
    });
    assert!(engine.find_region(address, length).is_none());
}

fn table() -> GpuTable {
    GpuTable {
        get_device: Some(get_device),
        set_device: Some(set_device),
        get_device_count: Some(get_device_count),
        gdr_ptr_mmap: Some(map),
        gdr_ptr_munmap: Some(unmap),
        ipc_mem_handle_create: Some(handle_create),
        ipc_mem_handle_get: Some(handle_get),
        ipc_mem_handle_free: Some(handle_free),
        ..GpuTable::default()
    }
}

unsafe extern "C" fn get_device(gpu: *mut c_int) -> c_int {
    let current = CURRENT.load(Ordering::Relaxed);
    // SAFETY: the engine gives a valid out parameter.
    unsafe { *gpu = current };
    c_int::from(current < 0)
}
unsafe extern "C" fn set_device(gpu: c_int) -> c_int {
    CURRENT.store(gpu, Ordering::Relaxed);
    0
}
unsafe extern "C" fn get_device_count(count: *mut c_int) -> c_int {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(barrier) = held {
        barrier.wait();
        barrier.wait();
    }
    // SAFETY: the engine gives a valid out parameter.
    unsafe { *count = 4 };
    0
}
unsafe extern "C" fn map(out: *mut *mut c_void, address: *mut c_void, _: usize) -> c_int {
    // SAFETY: the engine gives a valid out parameter.
    unsafe { *out = address };
    0
}
unsafe extern "C" fn unmap(_: *mut c_void, _: usize) -> c_int {
    0
}
unsafe extern "C" fn handle_create(handle: *mut *mut c_void, size: *mut usize) -> c_int {
    // SAFETY: the engine gives valid out parameters.
    unsafe { (*handle, *size) = (Box::into_raw(Box::new(0_u64)).cast(), 8) };
    0
}
unsafe extern "C" fn handle_get(_: *mut c_void, address: *mut c_void) -> c_int {
    let on_gpu = ON_GPU.lock().unwrap_or_else(PoisonError::into_inner);
    c_int::from(!on_gpu.contains(&address.expose_provenance()))
}
unsafe extern "C" fn handle_free(handle: *mut c_void) -> c_int {
    // SAFETY: made by `handle_create`, given back once.
    drop(unsafe { Box::from_raw(handle.cast::<u64>()) });
    0
}

//! Which NIC an engine uses, and when it is chosen: four played NICs that are equally near, and GPUs that are played by a table of
//! callbacks. GPU `g` then has the NIC that the bits of `g`, mirrored, number: GPU 1 has nv2, GPU 2 has nv1.
#![cfg(feature = "verbs")]
#![allow(unsafe_code, reason = "plays the C side")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

#[allow(dead_code, reason = "it is used by other tests as well")]
mod captured_log;
mod nullverbs;
mod support;

use std::ffi::{c_int, c_void};
use std::io::Write;
use std::ops::Range;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use captured_log::Captured;
use flagcx_p2p::internals::engine::{Engine, EngineError, EngineOptions, RegisterOptions};
use flagcx_p2p::internals::fabric::{DeviceList, verbs};
use flagcx_p2p::internals::gpu::{self, GpuTable, TableRuntime};
use flagcx_p2p::internals::memory::RegionId;
use nullverbs::Standin;

/// The GPU that is current for every thread; -1 for none.
static CURRENT: AtomicI32 = AtomicI32::new(-1);
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
        let (alone, log) = Captured::alone();
        let standin = Standin::new(&[("devs", 4)]);
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
unsafe extern "C" fn set_device(_: c_int) -> c_int {
    0
}
unsafe extern "C" fn get_device_count(count: *mut c_int) -> c_int {
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

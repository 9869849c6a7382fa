//! A table that plays GPU memory: addresses that no CPU may touch, copies only through the callbacks.
#![allow(unsafe_code, reason = "plays the C side")]

use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;

use super::super::fake_gpu::{FakeGpu, GPU, GPU_BYTES, answer, gpu, out};
use super::super::*;

mod adaptors;

const FAILED: c_int = 3;
const RUNNING: c_int = 7;
/// Bytes of each allocation of the GPU's memory.
const ALLOCATION: u64 = 2048;

/// What of the table alone is played, by the thread of a test.
struct Played {
    handle_bytes: usize,
    /// Errors that were cleared.
    cleared: u32,
    /// Whether dma-bufs are said to be there, and what was asked of them: the device, the start and the bytes.
    dma: bool,
    dma_range: Option<(u64, u64, usize)>,
    /// What the table says of GPU memory, unless 0.
    pointer_type: c_int,
}

thread_local! {
    static PLAYED: RefCell<Played> = const { RefCell::new(Played {
        handle_bytes: 24, cleared: 0, dma: true, dma_range: None, pointer_type: 2,
    }) };
}

fn played<T>(act: impl FnOnce(&mut Played) -> T) -> T {
    PLAYED.with_borrow_mut(act)
}

fn result(name: &'static str, act: impl FnOnce(&mut FakeGpu) -> c_int) -> c_int {
    answer(name, FAILED, act)
}

/// Aborts if the device that the test wants is not current, as an adaptor may crash.
fn check_device() {
    gpu(|gpu| assert!(gpu.wanted.is_none_or(|wanted| wanted == gpu.current), "a call on another device"));
}

/// Room for any of the played objects.
type Object = [u64; 16];

fn object(gpu: &mut FakeGpu, to: *mut *mut c_void) -> c_int {
    gpu.live_objects += 1;
    out(to, Box::into_raw(Box::<Object>::default()).cast::<c_void>())
}

unsafe extern "C" fn memcpy(
    destination: *mut c_void,
    source: *mut c_void,
    size: usize,
    direction: c_int,
    stream: *mut c_void,
    args: *mut c_void,
) -> c_int {
    assert!(!stream.is_null() && args.is_null());
    check_device();
    let offset = |address: *mut c_void| (address as u64 - GPU) as usize;
    result("memcpy", |gpu| {
        match direction {
            0 => {
                // SAFETY: the test passes a host buffer of `size` bytes.
                let source = unsafe { std::slice::from_raw_parts(source.cast::<u8>(), size) };
                gpu.memory[offset(destination)..][..size].copy_from_slice(source);
            }
            1 => {
                // SAFETY: as above.
                let destination = unsafe { std::slice::from_raw_parts_mut(destination.cast::<u8>(), size) };
                destination.copy_from_slice(&gpu.memory[offset(source)..][..size]);
            }
            2 => gpu.memory.copy_within(offset(source)..offset(source) + size, offset(destination)),
            other => panic!("direction {other}"),
        }
        0
    })
}
unsafe extern "C" fn set_device(device: c_int) -> c_int {
    result("set_device", |gpu| {
        gpu.current = device as u64;
        0
    })
}
unsafe extern "C" fn get_device(device: *mut c_int) -> c_int {
    result("get_device", |gpu| out(device, gpu.current as c_int))
}
unsafe extern "C" fn device_count(count: *mut c_int) -> c_int {
    out(count, 2)
}
unsafe extern "C" fn create(stream: *mut *mut c_void) -> c_int {
    result("stream_create", |gpu| object(gpu, stream))
}
unsafe extern "C" fn event_create(event: *mut *mut c_void, kind: c_int) -> c_int {
    assert_eq!(kind, 1);
    result("event_create", |gpu| object(gpu, event))
}
unsafe extern "C" fn destroy(object: *mut c_void) -> c_int {
    assert!(!object.is_null());
    // SAFETY: the runtime under test gives back what `object` made, once.
    drop(unsafe { Box::from_raw(object.cast::<Object>()) });
    gpu(|gpu| gpu.live_objects -= 1);
    0
}
unsafe extern "C" fn record(event: *mut c_void, stream: *mut c_void) -> c_int {
    assert!(!event.is_null() && !stream.is_null());
    check_device();
    result("record", |_| 0)
}
unsafe extern "C" fn query(_event: *mut c_void) -> c_int {
    check_device();
    result("query", |gpu| gpu.query(RUNNING))
}
unsafe extern "C" fn handle_create(handle: *mut *mut c_void, size: *mut usize) -> c_int {
    result("handle_create", |gpu| {
        out(size, played(|played| played.handle_bytes));
        object(gpu, handle)
    })
}
unsafe extern "C" fn handle_get(handle: *mut c_void, address: *mut c_void) -> c_int {
    let inside = (GPU..GPU + GPU_BYTES as u64).contains(&(address as u64));
    if !inside {
        return FAILED;
    }
    // As `cudaIpcGetMemHandle`: of the allocation, not of the address in it.
    let start = address as u64 - (address as u64 - GPU) % ALLOCATION;
    // SAFETY: the object has at least eight bytes.
    result("handle_get", |_| unsafe {
        handle.cast::<u64>().write(start ^ 0xFFFF);
        0
    })
}
unsafe extern "C" fn handle_open(handle: *mut c_void, address: *mut *mut c_void) -> c_int {
    // SAFETY: the runtime under test gives an aligned object of 64 bytes.
    result("handle_open", |_| out(address, unsafe { handle.cast::<u64>().read() ^ 0xFFFF } as *mut c_void))
}
unsafe extern "C" fn handle_close(_address: *mut c_void) -> c_int {
    result("handle_close", |_| 0)
}
unsafe extern "C" fn bus_id(text: *mut c_char, room: c_int, device: c_int) -> c_int {
    let id = c"0000:1A:00.0";
    assert!(room as usize > id.to_bytes().len());
    if device > 1 {
        return FAILED;
    }
    // SAFETY: there is room, as just checked.
    unsafe { ptr::copy_nonoverlapping(id.as_ptr(), text, id.to_bytes_with_nul().len()) };
    0
}
unsafe extern "C" fn last_error() -> c_int {
    played(|played| played.cleared += 1);
    0
}
unsafe extern "C" fn gdr_map(mapped: *mut *mut c_void, address: *mut c_void, _size: usize) -> c_int {
    result("gdr_map", |_| out(mapped, address.wrapping_add(0x1000)))
}
unsafe extern "C" fn gdr_unmap(_address: *mut c_void, _size: usize) -> c_int {
    0
}

unsafe extern "C" fn launch_host(
    stream: *mut c_void,
    called: unsafe extern "C" fn(*mut c_void),
    argument: *mut c_void,
) -> c_int {
    assert!(!stream.is_null());
    result("launch_host", |_| {
        // SAFETY: called once, with its argument.
        unsafe { called(argument) };
        0
    })
}
unsafe extern "C" fn dma_support(supported: *mut u8) -> c_int {
    result("dma_support", |_| out(supported, u8::from(played(|played| played.dma))))
}
unsafe extern "C" fn handle_for_range(
    fd: *mut c_void,
    buffer: *mut c_void,
    size: usize,
    flags: std::ffi::c_ulonglong,
) -> c_int {
    assert_eq!(flags, 0);
    result("handle_for_range", |gpu| {
        played(|played| played.dma_range = Some((gpu.current, buffer as u64, size)));
        // Without FD_CLOEXEC.
        let file = rustix::io::dup(std::fs::File::open("/dev/null").unwrap()).unwrap();
        out(fd.cast::<c_int>(), std::os::fd::IntoRawFd::into_raw_fd(file))
    })
}
unsafe extern "C" fn pointer_type(address: *const c_void, kind: *mut c_int) -> c_int {
    let inside = (GPU..GPU + GPU_BYTES as u64).contains(&(address as u64));
    result("pointer_type", |_| out(kind, if inside { played(|played| played.pointer_type) } else { 1 }))
}

/// All callbacks of an adaptor of today: it has nothing that names the kind of memory.
fn full() -> GpuTable {
    GpuTable {
        device_memcpy: Some(memcpy),
        set_device: Some(set_device),
        get_device: Some(get_device),
        get_device_count: Some(device_count),
        gdr_ptr_mmap: Some(gdr_map),
        gdr_ptr_munmap: Some(gdr_unmap),
        stream_create: Some(create),
        stream_destroy: Some(destroy),
        event_create: Some(event_create),
        event_destroy: Some(destroy),
        event_record: Some(record),
        event_query: Some(query),
        ipc_mem_handle_create: Some(handle_create),
        ipc_mem_handle_get: Some(handle_get),
        ipc_mem_handle_open: Some(handle_open),
        ipc_mem_handle_close: Some(handle_close),
        ipc_mem_handle_free: Some(destroy),
        get_device_pci_bus_id: Some(bus_id),
        get_device_by_pci_bus_id: None,
        get_last_error: Some(last_error),
        launch_host_func: Some(launch_host),
        dma_support: Some(dma_support),
        get_handle_for_address_range: Some(handle_for_range),
        get_pointer_type: None,
    }
}

fn over(table: GpuTable) -> TableRuntime {
    // SAFETY: the callbacks above conform.
    unsafe { TableRuntime::new(move || table) }
}

fn copy(
    stream: &mut dyn CopyStream,
    to: u64,
    from: u64,
    length: usize,
    way: CopyDirection,
) -> Result<(), GpuError> {
    // SAFETY: the tests name host buffers and played GPU memory of this length.
    unsafe { stream.copy(to, from, length as u64, way) }
}

fn live_objects() -> i32 {
    gpu(|gpu| gpu.live_objects)
}

#[test]
fn pointers_are_told_apart_and_nothing_leaks() {
    let runtime = over(full());
    let host = 7_u8;
    assert_eq!(runtime.pointer_kind(GPU + 8), Ok(PointerKind::Gpu(None)));
    assert_eq!(played(|played| played.cleared), 0);
    assert_eq!(runtime.pointer_kind(&raw const host as u64), Ok(PointerKind::Host));
    assert_eq!(played(|played| played.cleared), 1, "the failed probe's error is cleared");
    assert_eq!(live_objects(), 0);
}

#[test]
fn without_a_way_to_probe_memory_is_unknown_or_the_hosts() {
    for strip in [
        |table: &mut GpuTable| table.ipc_mem_handle_create = None,
        |table: &mut GpuTable| table.ipc_mem_handle_get = None,
        |table: &mut GpuTable| table.ipc_mem_handle_free = None,
    ] {
        let mut table = full();
        strip(&mut table);
        assert_eq!(over(table).pointer_kind(GPU), Ok(PointerKind::Unknown));
        // What copies nothing has no GPU memory to move.
        let table = GpuTable { device_memcpy: None, ..table };
        assert_eq!(over(table).pointer_kind(GPU), Ok(PointerKind::Host));
    }
}

#[test]
fn copies_run_there_and_back() {
    let runtime = over(full());
    let mut stream = runtime.open_stream().unwrap();
    let (source, mut back) = ([1_u8, 2, 3, 4], [0_u8; 4]);
    copy(&mut *stream, GPU + 100, source.as_ptr() as u64, 4, CopyDirection::HostToGpu).unwrap();
    copy(&mut *stream, GPU + 200, GPU + 100, 4, CopyDirection::GpuToGpu).unwrap();
    copy(&mut *stream, back.as_mut_ptr() as u64, GPU + 200, 4, CopyDirection::GpuToHost).unwrap();
    gpu(|gpu| gpu.running = 2);
    stream.mark(0).unwrap();
    assert_eq!([stream.is_done(0), stream.is_done(0), stream.is_done(0)], [Ok(false), Ok(false), Ok(true)]);
    assert_eq!(back, source);
    drop(stream);
    assert_eq!(live_objects(), 0);
}

#[test]
fn failures_carry_the_call_and_its_code() {
    let runtime = over(full());
    let mut stream = runtime.open_stream().unwrap();
    let buffer = [0_u8; 4];
    let failed =
        |operation| Err(GpuError::Call { runtime: "callback", operation, code: FAILED, text: String::new() });
    let fail = |name| gpu(|gpu| gpu.fails = name);
    fail("memcpy");
    assert_eq!(
        copy(&mut *stream, GPU, buffer.as_ptr() as u64, 4, CopyDirection::HostToGpu),
        failed("deviceMemcpy")
    );
    fail("record");
    assert_eq!(stream.mark(0), failed("eventRecord"));
    fail("query");
    assert_eq!(stream.is_done(0).map(|_| ()), failed("eventQuery"));
    for (name, operation) in [("stream_create", "streamCreate"), ("event_create", "eventCreate")] {
        fail(name);
        assert_eq!(runtime.open_stream().map(|_| ()), failed(operation));
    }
    fail("handle_open");
    assert_eq!(runtime.ipc_open(&[0; 64]).map(|_| ()), failed("ipcMemHandleOpen"));
    fail("");
    drop(stream);
    assert_eq!(live_objects(), 0, "nothing leaks on failure");
}

#[test]
fn the_current_device_is_restored() {
    let runtime = over(full());
    gpu(|gpu| gpu.current = 1);
    assert_eq!(runtime.current_gpu(), Ok(1));
    {
        let _current = CurrentGpu::enter(&runtime, 0).unwrap();
        assert_eq!(gpu(|gpu| gpu.current), 0);
    }
    assert_eq!(gpu(|gpu| gpu.current), 1);
    gpu(|gpu| gpu.fails = "set_device");
    assert!(CurrentGpu::enter(&runtime, 0).is_err());
    gpu(|gpu| gpu.fails = "");
    let blind = over(GpuTable { get_device: None, ..full() });
    drop(CurrentGpu::enter(&blind, 0).unwrap());
    assert_eq!(gpu(|gpu| gpu.current), 0, "unknown before, so left");
}

/// A device error says that the copies are over; other answers say nothing.
#[test]
fn only_a_device_error_is_proof() {
    let runtime = over(full());
    let mut stream = runtime.open_stream().unwrap();
    stream.mark(0).unwrap();
    gpu(|gpu| gpu.query_fails = 1);
    assert!(matches!(stream.is_done(0), Err(GpuError::Lost { code: 1, .. })));
    gpu(|gpu| gpu.query_fails = 5);
    assert!(matches!(stream.is_done(0), Err(GpuError::Call { code: 5, .. })));
}

#[test]
fn the_host_is_called_where_the_table_can() {
    let runtime = over(full());
    let mut stream = runtime.open_stream().unwrap();
    let notifier = Arc::new(Notifier::new().unwrap());
    gpu(|gpu| gpu.fails = "launch_host");
    assert!(stream.notify(&notifier).is_err());
    gpu(|gpu| gpu.fails = "");
    stream.notify(&notifier).unwrap();
    assert!(notifier.is_notified() && Arc::strong_count(&notifier) == 1);
    let without = over(GpuTable { launch_host_func: None, ..full() });
    let refused = without.open_stream().unwrap().notify(&notifier);
    assert!(matches!(refused, Err(GpuError::Unsupported { .. })));
}

/// The device that was current when it was opened is current for each call, and then the caller's again.
#[test]
fn a_stream_carries_its_device_into_every_call() {
    let runtime = over(full());
    gpu(|gpu| gpu.current = 1);
    let mut stream = runtime.open_stream().unwrap();
    gpu(|gpu| (gpu.current, gpu.wanted) = (0, Some(1)));
    let buffer = [0_u8; 4];
    copy(&mut *stream, GPU, buffer.as_ptr() as u64, 4, CopyDirection::HostToGpu).unwrap();
    stream.mark(3).unwrap();
    assert_eq!(stream.is_done(3), Ok(true));
    assert_eq!(gpu(|gpu| gpu.current), 0);
    drop(stream);
    assert_eq!((gpu(|gpu| gpu.current), live_objects()), (0, 0));
}

#[test]
fn ipc_handles_travel_as_bytes() {
    let runtime = over(full());
    let export = runtime.ipc_export(GPU + 64).unwrap();
    assert_eq!(runtime.ipc_open(&export.handle), Ok(GPU), "the allocation, not the address in it");
    runtime.ipc_close(GPU).unwrap();
    assert!(runtime.ipc_export(64).is_err(), "host memory");
    played(|played| played.handle_bytes = 65);
    assert!(matches!(runtime.ipc_export(GPU), Err(GpuError::Malformed { .. })));
    assert_eq!(live_objects(), 0);
}

#[test]
fn an_empty_table_is_a_host_without_gpu() {
    let runtime = over(GpuTable::default());
    assert_eq!(runtime.pointer_kind(GPU), Ok(PointerKind::Host));
    assert_eq!(runtime.gpu_count(), Ok(0));
    assert_eq!(runtime.map_for_cpu(GPU, 64), Ok(None));
    let unsupported = |error: GpuError| assert!(matches!(error, GpuError::Unsupported { .. }), "{error}");
    unsupported(runtime.open_stream().map(|_| ()).unwrap_err());
    unsupported(runtime.current_gpu().unwrap_err());
    unsupported(runtime.pci_bus_id(0).unwrap_err());
    unsupported(runtime.enter(0).map(|_| ()).unwrap_err());
    unsupported(runtime.ipc_export(GPU).map(|_| ()).unwrap_err());
    unsupported(runtime.ipc_open(&[0; 64]).map(|_| ()).unwrap_err());
    unsupported(runtime.ipc_close(GPU).unwrap_err());
    unsupported(runtime.dma_buf(GPU, 64).map(|_| ()).unwrap_err());
}

#[test]
fn the_table_is_read_at_each_use() {
    use std::sync::atomic::{AtomicBool, Ordering};
    static PLUGGED: AtomicBool = AtomicBool::new(false);
    // SAFETY: the callbacks above conform.
    let runtime = unsafe {
        TableRuntime::new(|| if PLUGGED.load(Ordering::Relaxed) { full() } else { GpuTable::default() })
    };
    assert_eq!(runtime.gpu_count(), Ok(0));
    PLUGGED.store(true, Ordering::Relaxed);
    assert_eq!(runtime.gpu_count(), Ok(2));
    assert_eq!(runtime.pci_bus_id(0).as_deref(), Ok("0000:1A:00.0"));
    assert!(runtime.pci_bus_id(2).is_err());
    assert_eq!(runtime.map_for_cpu(GPU, 64), Ok(Some(GPU + 0x1000)));
    assert_eq!(runtime.unmap_for_cpu(GPU + 0x1000, 64), Ok(()));
}

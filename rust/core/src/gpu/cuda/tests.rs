//! A played driver: what is asked of it, and what is made of its answers.
#![allow(unsafe_code, reason = "plays the driver")]

use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_uint, c_void};

use super::super::fake_gpu::{GPU, answer, gpu, out};
use super::super::*;
use super::symbols::{IpcMemHandle, Symbols};

mod contexts;

const MANAGED: u64 = 0x7e00_0000_0000;
const PINNED: u64 = 0x7d00_0000_0000;
const NOT_PERMITTED: c_int = 800;

/// What of the driver alone is played, by the thread of a test.
#[derive(Default)]
struct Played {
    initialised: bool,
    retained: u32,
    range: Option<(u64, usize)>,
    /// What initialising the driver answers.
    init_answers: c_int,
    /// The primary contexts were reset: handles of before are no contexts any more.
    resets: u64,
    /// The context that memory was allocated in, if it was in one.
    owner: u64,
    /// Allocations, side by side from the start of the GPU's memory; one of 1 MiB if there are none.
    allocations: Vec<u64>,
    /// They are mappings of `cuMemMap`.
    mapped: bool,
    /// What the GPU answers; nothing else is known.
    attributes: std::collections::HashMap<c_int, c_int>,
    set: Vec<(c_int, u32, u64)>,
}

thread_local! {
    static PLAYED: RefCell<Played> = RefCell::default();
}

fn driver<T>(act: impl FnOnce(&mut Played) -> T) -> T {
    PLAYED.with_borrow_mut(act)
}

unsafe extern "C" fn init(_: c_uint) -> c_int {
    driver(|driver| {
        driver.initialised = driver.init_answers == 0;
        driver.init_answers
    })
}
unsafe extern "C" fn error_string(code: c_int, text: *mut *const c_char) -> c_int {
    if code == NOT_PERMITTED { out(text, c"operation not permitted".as_ptr()) } else { 1 }
}
unsafe extern "C" fn device_count(count: *mut c_int) -> c_int {
    if driver(|driver| driver.initialised) { out(count, 2) } else { 3 }
}
unsafe extern "C" fn device_get(device: *mut c_int, ordinal: c_int) -> c_int {
    if ordinal < 2 { out(device, ordinal + 10) } else { 101 }
}
unsafe extern "C" fn pci_bus_id(text: *mut c_char, _: c_int, device: c_int) -> c_int {
    assert!(device >= 10, "a device, not an ordinal");
    // SAFETY: the runtime under test gives room for more than this.
    unsafe { text.copy_from_nonoverlapping(c"0000:3B:00.0".as_ptr(), 13) };
    0
}
unsafe extern "C" fn device_attribute(value: *mut c_int, attribute: c_int, device: c_int) -> c_int {
    assert!(device >= 10, "a device, not an ordinal");
    driver(|driver| driver.attributes.get(&attribute).map_or(1, |answer| out(value, *answer)))
}
unsafe extern "C" fn set_pointer_attribute(value: *const c_void, attribute: c_int, address: u64) -> c_int {
    // SAFETY: the value of every attribute that is set is a 32-bit integer.
    let value = unsafe { *value.cast::<u32>() };
    driver(|driver| driver.set.push((attribute, value, address)));
    0
}
unsafe extern "C" fn primary_context(context: *mut *mut c_void, device: c_int) -> c_int {
    driver(|driver| driver.retained += 1);
    out(context, (0x1000 + 0x100 * driver(|driver| driver.resets) + device as u64) as *mut c_void)
}
unsafe extern "C" fn get_context(context: *mut *mut c_void) -> c_int {
    out(context, gpu(|gpu| gpu.current) as *mut c_void)
}
unsafe extern "C" fn context_device(device: *mut c_int) -> c_int {
    match gpu(|gpu| gpu.current) {
        context @ 0x1000.. => out(device, (context & 0xff) as c_int),
        _ => 201,
    }
}
unsafe extern "C" fn set_context(context: *mut c_void) -> c_int {
    let oldest = 0x1000 + 0x100 * driver(|driver| driver.resets);
    if (0x1000..oldest).contains(&(context as u64)) {
        return 709;
    }
    gpu(|gpu| gpu.current = context as u64);
    0
}
/// Where the allocations of the GPU's memory begin and end.
fn allocations() -> Vec<(u64, u64)> {
    let lengths = driver(|driver| driver.allocations.clone());
    let lengths = if lengths.is_empty() { vec![1 << 20] } else { lengths };
    let mut end = GPU;
    let place = |length| {
        end += length;
        (end - length, length)
    };
    lengths.into_iter().map(place).collect()
}
unsafe extern "C" fn pointer_attribute(value: *mut c_void, attribute: c_int, address: u64) -> c_int {
    if !driver(|driver| driver.initialised) {
        return 3;
    }
    let known = allocations().iter().any(|(base, length)| (*base..base + length).contains(&address));
    if (GPU..GPU + (1 << 32)).contains(&address) && !known {
        return 1;
    }
    let answer = match (attribute, address & 0x7fff_0000_0000) {
        (1, GPU) => return out(value.cast::<u64>(), driver(|driver| driver.owner)),
        (10, GPU) => u32::from(!driver(|driver| driver.mapped)),
        (2, GPU | MANAGED) => 2,
        (2, PINNED) => 1,
        (8, managed) => u32::from(managed == MANAGED),
        (9, _) => 1,
        _ => return 1,
    };
    out(value.cast::<u32>(), answer)
}
/// Aborts unless a context of the GPU with the memory is current: GPU 1, of which the device is 11.
fn on_its_gpu() {
    assert_eq!(gpu(|gpu| gpu.current & 0xff), 11, "a context of another GPU, or none");
}
unsafe extern "C" fn address_range(base: *mut u64, length: *mut usize, address: u64) -> c_int {
    on_its_gpu();
    let found = allocations().into_iter().find(|(base, length)| (*base..base + length).contains(&address));
    found.map_or(1, |(start, bytes)| out(base, start) + out(length, bytes as usize))
}
/// An object of the thread's context.
fn object() -> *mut c_void {
    (gpu(|gpu| gpu.current) << 4 | 8) as *mut c_void
}
/// Aborts where the driver would crash or take the object for another one: its context is not current.
fn use_object(object: *mut c_void) {
    assert!(!object.is_null(), "an object that was not made");
    assert_eq!(object as u64 >> 4, gpu(|gpu| gpu.current), "an object of a context that is not current");
}
unsafe extern "C" fn memcpy_async(_: u64, _: u64, _: usize, stream: *mut c_void) -> c_int {
    use_object(stream);
    answer("memcpy", NOT_PERMITTED, |_| 0)
}
unsafe extern "C" fn create(made: *mut *mut c_void, flags: c_uint) -> c_int {
    assert_ne!(flags, 0);
    gpu(|gpu| gpu.live_objects += 1);
    out(made, object())
}
unsafe extern "C" fn event_create(made: *mut *mut c_void, flags: c_uint) -> c_int {
    assert_ne!(flags, 0);
    let event = object();
    answer("event_create", NOT_PERMITTED, |gpu| {
        gpu.live_objects += 1;
        out(made, event)
    })
}
unsafe extern "C" fn destroy(object: *mut c_void) -> c_int {
    use_object(object);
    gpu(|gpu| gpu.live_objects -= 1);
    0
}
unsafe extern "C" fn event_record(event: *mut c_void, stream: *mut c_void) -> c_int {
    use_object(event);
    use_object(stream);
    0
}
unsafe extern "C" fn event_query(event: *mut c_void) -> c_int {
    use_object(event);
    gpu(|gpu| gpu.query(600))
}
unsafe extern "C" fn ipc_get(handle: *mut IpcMemHandle, base: u64) -> c_int {
    on_its_gpu();
    assert_eq!(base, GPU, "of the allocation's start");
    out(handle, IpcMemHandle([7; 64]))
}
unsafe extern "C" fn ipc_open(address: *mut u64, handle: IpcMemHandle, flags: c_uint) -> c_int {
    assert_eq!(flags, 1);
    if handle.0 == [7; 64] { out(address, GPU + 42) } else { 1 }
}
unsafe extern "C" fn ipc_close(address: u64) -> c_int {
    c_int::from(address != GPU + 42)
}
unsafe extern "C" fn handle_for_range(
    fd: *mut c_void,
    address: u64,
    bytes: usize,
    kind: c_int,
    _: u64,
) -> c_int {
    on_its_gpu();
    assert_eq!(kind, 1);
    driver(|driver| driver.range = Some((address, bytes)));
    // Without FD_CLOEXEC.
    let file = rustix::io::dup(std::fs::File::open("/dev/null").unwrap()).unwrap();
    out(fd.cast::<c_int>(), std::os::fd::IntoRawFd::into_raw_fd(file))
}

unsafe extern "C" fn launch_host(
    stream: *mut c_void,
    called: unsafe extern "C" fn(*mut c_void),
    argument: *mut c_void,
) -> c_int {
    use_object(stream);
    answer("launch_host", NOT_PERMITTED, |_| {
        // SAFETY: the function is called once with its argument, on another thread, as the driver does.
        let call = move |argument: usize| unsafe { called(argument as *mut c_void) };
        let argument = argument as usize;
        std::thread::spawn(move || call(argument)).join().map_or(1, |()| 0)
    })
}

fn played() -> CudaRuntime {
    CudaRuntime::over(Symbols {
        init,
        error_string,
        device_count,
        device_get,
        device_attribute,
        pci_bus_id,
        primary_context,
        get_context,
        context_device,
        set_context,
        pointer_attribute,
        set_pointer_attribute,
        address_range,
        memcpy_async,
        stream_create: create,
        stream_destroy: destroy,
        event_create,
        event_destroy: destroy,
        event_record,
        event_query,
        ipc_get,
        ipc_open,
        ipc_close,
        handle_for_range: Some(handle_for_range),
        launch_host: Some(launch_host),
        mappings: None,
        pools: None,
        _library: None,
    })
}

#[test]
fn pointers_are_told_apart_without_initialising_the_driver() {
    let cuda = played();
    assert_eq!(cuda.pointer_kind(GPU), Ok(PointerKind::Host), "not initialised: there is no GPU memory");
    assert!(!driver(|driver| driver.initialised));
    assert_eq!(cuda.gpu_count(), Ok(2));
    assert!(driver(|driver| driver.initialised));
    assert_eq!(cuda.pointer_kind(GPU), Ok(PointerKind::Gpu(Some(1))));
    for host in [PINNED, MANAGED, 0x1234] {
        assert_eq!(cuda.pointer_kind(host), Ok(PointerKind::Host), "{host:#x}");
    }
}

#[test]
fn the_callers_context_is_restored_and_each_primary_one_taken_once() {
    let cuda = played();
    gpu(|gpu| gpu.current = 0x77);
    for _ in 0..3 {
        let _current = CurrentGpu::enter(&cuda, 1).unwrap();
        assert_eq!(gpu(|gpu| gpu.current), 0x100b);
        assert_eq!(cuda.current_gpu(), Ok(1));
    }
    assert_eq!((gpu(|gpu| gpu.current), driver(|driver| driver.retained)), (0x77, 1));
    assert!(CurrentGpu::enter(&cuda, 5).is_err());
    assert_eq!(gpu(|gpu| gpu.current), 0x77);
    assert_eq!(cuda.pci_bus_id(0).as_deref(), Ok("0000:3B:00.0"));
}

#[test]
fn copies_end_when_the_event_is_ready() {
    let cuda = played();
    let mut stream = cuda.open_stream().unwrap();
    // SAFETY: the played driver touches neither range.
    unsafe { stream.copy(GPU, 0x1000, 64, CopyDirection::HostToGpu) }.unwrap();
    stream.mark(0).unwrap();
    gpu(|gpu| gpu.running = 1);
    assert_eq!([stream.is_done(0), stream.is_done(0)], [Ok(false), Ok(true)]);
    gpu(|gpu| gpu.fails = "memcpy");
    // SAFETY: as above.
    let error = unsafe { stream.copy(GPU, 0x1000, 64, CopyDirection::HostToGpu) }.unwrap_err();
    assert_eq!(error.to_string(), "cuMemcpyAsync failed: cuda error 800, operation not permitted");
    gpu(|gpu| gpu.fails = "event_create");
    assert!(cuda.open_stream().is_err(), "no event");
    drop(stream);
    assert_eq!(gpu(|gpu| gpu.live_objects), 0, "nothing leaks");
}

/// Marks are apart: one says nothing of copies behind it. Only what proves a lost context says that nothing runs.
#[test]
fn a_mark_speaks_of_the_copies_before_it() {
    let cuda = played();
    let mut stream = cuda.open_stream().unwrap();
    [0, 3, 1].into_iter().for_each(|mark| stream.mark(mark).unwrap());
    assert_eq!(gpu(|gpu| gpu.live_objects), 5, "a stream, and events for the marks 0 to 3");
    assert_eq!(stream.is_done(9), Ok(true), "never put: nothing is before it");
    gpu(|gpu| gpu.query_fails = NOT_PERMITTED);
    assert!(matches!(stream.is_done(3), Err(GpuError::Call { code: NOT_PERMITTED, .. })), "says nothing");
    for lost in [201, 700, 719] {
        gpu(|gpu| gpu.query_fails = lost);
        assert!(matches!(stream.is_done(3), Err(GpuError::Lost { code, .. }) if code == lost));
    }
}

/// On any thread, whatever context it has: the stream's own is current for the call, and then the thread's again.
#[test]
fn a_stream_carries_its_context_into_every_call() {
    let cuda = played();
    gpu(|gpu| gpu.current = 0x1001);
    let mut stream = cuda.open_stream().unwrap();
    let notifier = Arc::new(Notifier::new().unwrap());
    for current in [0, 0x1001, 0x2002] {
        let calls = || {
            gpu(|gpu| gpu.current = current);
            // SAFETY: the played driver touches neither range.
            unsafe { stream.copy(GPU, 0x1000, 64, CopyDirection::HostToGpu) }.unwrap();
            stream.mark(1).unwrap();
            assert_eq!(stream.is_done(1), Ok(true));
            stream.notify(&notifier).unwrap();
            assert_eq!(gpu(|gpu| gpu.current), current);
        };
        std::thread::scope(|scope| scope.spawn(calls).join().unwrap());
    }
    std::thread::scope(|scope| scope.spawn(move || drop(stream)).join().unwrap());
}

#[test]
fn the_host_is_called_once_and_nothing_leaks() {
    let cuda = played();
    let mut stream = cuda.open_stream().unwrap();
    let notifier = Arc::new(Notifier::new().unwrap());
    gpu(|gpu| gpu.fails = "launch_host");
    assert!(stream.notify(&notifier).is_err() && !notifier.is_notified());
    gpu(|gpu| gpu.fails = "");
    stream.notify(&notifier).unwrap();
    assert!(notifier.is_notified());
    assert_eq!(Arc::strong_count(&notifier), 1);
}

#[test]
fn ipc_names_the_allocation() {
    let cuda = played();
    assert_eq!(cuda.gpu_count(), Ok(2), "initialised");
    let export = cuda.ipc_export(GPU + 4096).unwrap();
    assert_eq!(export.base, Some(GPU));
    assert_eq!(cuda.ipc_open(&export.handle), Ok(GPU + 42));
    assert!(cuda.ipc_open(&[0; 64]).is_err());
    assert_eq!(cuda.ipc_close(GPU + 42), Ok(()));
    assert!(cuda.ipc_close(1).is_err());
}

#[test]
fn a_dma_buf_covers_whole_pages() {
    let cuda = played();
    let page = rustix::param::page_size();
    let export = cuda.dma_buf(GPU + 100, 2 * page as u64).unwrap();
    assert_eq!(export.offset, 100);
    assert_eq!(rustix::io::fcntl_getfd(&export.fd), Ok(FdFlags::CLOEXEC));
    assert_eq!(driver(|driver| driver.range), Some((GPU, 3 * page)));
    assert!(matches!(cuda.dma_buf(u64::MAX, u64::MAX), Err(GpuError::Malformed { .. })));
}

#[test]
fn a_gpu_that_says_it_has_no_dma_bufs_is_not_asked_for_one() {
    const DMA_BUF_SUPPORTED: c_int = 124;
    let cuda = played();
    let answers = |supported: c_int| {
        driver(|driver| driver.attributes.insert(DMA_BUF_SUPPORTED, supported));
        driver(|driver| driver.range = None);
        (cuda.dma_buf(GPU, 4096), driver(|driver| driver.range.is_some()))
    };
    let (refused, asked) = answers(0);
    let refused = refused.unwrap_err().to_string();
    assert!(!asked && refused.contains("CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED"), "{refused}");
    assert!(answers(1).0.is_ok());
}

#[test]
fn gpus_before_hopper_and_unknown_ones_are_flushed() {
    const COMPUTE_CAPABILITY_MAJOR: c_int = 75;
    let cuda = played();
    assert_eq!(cuda.gpu_count(), Ok(2), "initialised");
    assert!(cuda.writes_need_flush(GPU), "the driver does not say");
    for (major, flush) in [(8, true), (9, false), (10, false)] {
        driver(|driver| driver.attributes.insert(COMPUTE_CAPABILITY_MAJOR, major));
        assert_eq!(cuda.writes_need_flush(GPU), flush, "compute capability {major}.0");
    }
}

#[test]
fn a_process_with_a_gpu_before_hopper_says_so_and_initialises_nothing() {
    const COMPUTE_CAPABILITY_MAJOR: c_int = 75;
    let cuda = played();
    driver(|driver| driver.attributes.insert(COMPUTE_CAPABILITY_MAJOR, 9));
    assert!(cuda.some_gpu_needs_flush(), "a driver that is not initialised does not tell");
    assert!(!driver(|driver| driver.initialised));
    assert_eq!(cuda.gpu_count(), Ok(2), "initialised");
    assert!(!cuda.some_gpu_needs_flush());
    driver(|driver| driver.attributes.insert(COMPUTE_CAPABILITY_MAJOR, 8));
    assert!(cuda.some_gpu_needs_flush());
    driver(|driver| driver.attributes.clear());
    assert!(cuda.some_gpu_needs_flush(), "the driver does not say");
}

#[test]
fn copies_are_made_synchronous_by_the_documented_attribute() {
    let cuda = played();
    cuda.synchronise_copies(GPU + 64).unwrap();
    assert_eq!(driver(|driver| driver.set.clone()), [(6, 1, GPU + 64)]);
}

#[test]
fn an_absent_driver_is_not_available() {
    let error = CudaRuntime::load("libcuda-that-is-not-there.so").unwrap_err();
    assert!(matches!(error, GpuError::NotAvailable(_)), "{error}");
    // Some other library: there, but without the functions.
    let error = CudaRuntime::load("libc.so.6").unwrap_err();
    assert!(matches!(&error, GpuError::NotAvailable(text) if text.contains("cuInit")), "{error}");
}

#[test]
fn a_real_driver_if_there_is_one() {
    let cuda = match CudaRuntime::load("libcuda.so.1") {
        Ok(cuda) => cuda,
        Err(error) => return println!("not run, this machine has no GPU: {error}"),
    };
    let host = 0_u8;
    match cuda.gpu_count() {
        Ok(count) if count > 0 => {
            assert!(cuda.pci_bus_id(0).unwrap().contains(':'));
            assert_eq!(cuda.pointer_kind(&raw const host as u64), Ok(PointerKind::Host));
            let _current = CurrentGpu::enter(&cuda, 0).unwrap();
            assert_eq!(cuda.open_stream().unwrap().is_done(0), Ok(true));
        }
        other => println!("not run, the driver offers no GPU: {other:?}"),
    }
}

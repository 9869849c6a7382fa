//! Adaptors that lack something, and the driver below them.

use std::sync::atomic::{AtomicBool, Ordering};

use super::super::runtime::Look;
use super::*;

/// The driver below the table knows the second half of the GPU's memory, as that of GPU 1.
const KNOWN: u64 = GPU + 2048;
const MANAGED: u64 = GPU + 1024;
const RANGE: GpuError = GpuError::Range { address: KNOWN, length: 4096, problem: "played", at: 1 };

/// An adaptor of which the IPC part is not written, as those of HIP, MUSA, CANN and MLU.
unsafe extern "C" fn not_supported(_: *mut *mut c_void, _: *mut usize) -> c_int {
    9
}

fn without_ipc() -> GpuTable {
    GpuTable { ipc_mem_handle_create: Some(not_supported), ..full() }
}

fn over_driver(table: GpuTable) -> TableRuntime {
    // SAFETY: the callbacks conform.
    unsafe { TableRuntime::over_driver(move || table, |_| Some(Arc::new(Driver))) }
}

#[test]
fn an_adaptor_that_creates_no_handles_has_no_ipc_and_copies_all_the_same() {
    let runtime = over(without_ipc());
    assert_eq!(runtime.pointer_kind(GPU), Ok(PointerKind::Unknown));
    assert_eq!(played(|played| played.cleared), 1, "the failure's error is cleared");
    let error = runtime.ipc_export(GPU).unwrap_err();
    assert_eq!(error.to_string(), "the callback GPU runtime cannot export memory to other processes");
    let (mut stream, source) = (runtime.open_stream().unwrap(), [5_u8; 8]);
    copy(&mut *stream, GPU, source.as_ptr() as u64, 8, CopyDirection::HostToGpu).unwrap();
    assert_eq!(gpu(|gpu| gpu.memory[..8].to_vec()), source);
    drop(stream);
    assert_eq!(live_objects(), 0);
}

/// A handle says that memory can be shared, not what it is.
#[test]
fn the_tables_own_answer_comes_before_handles() {
    let table = GpuTable { get_pointer_type: Some(pointer_type), ..without_ipc() };
    let host = 0_u8;
    assert_eq!(over(table).pointer_kind(GPU), Ok(PointerKind::Gpu(None)));
    assert_eq!(over(table).pointer_kind(&raw const host as u64), Ok(PointerKind::Host));
    played(|played| played.pointer_type = 1);
    assert_eq!(
        over(GpuTable { get_pointer_type: Some(pointer_type), ..full() }).pointer_kind(GPU),
        Ok(PointerKind::Host)
    );
    // No answer, or none of the two: as if it were not asked.
    played(|played| played.pointer_type = 4);
    assert_eq!(over(table).pointer_kind(GPU), Ok(PointerKind::Unknown));
    gpu(|gpu| gpu.fails = "pointer_type");
    assert_eq!(
        over(GpuTable { get_pointer_type: Some(pointer_type), ..full() }).pointer_kind(GPU),
        Ok(PointerKind::Gpu(None))
    );
}

/// FlagCX's adaptor of CUDA says of managed memory that it is a GPU's.
#[test]
fn managed_memory_is_the_hosts_if_the_driver_says_so() {
    let runtime = over_driver(GpuTable { get_pointer_type: Some(pointer_type), ..full() });
    assert_eq!(runtime.pointer_kind(MANAGED), Ok(PointerKind::Host));
    assert_eq!(runtime.pointer_kind(GPU), Ok(PointerKind::Gpu(None)), "memory that the driver does not know");
}

/// As memory of `cuMemMap` and of pools: GPU memory without a handle.
#[test]
fn memory_without_a_handle_is_the_gpus_if_the_driver_says_so() {
    gpu(|gpu| gpu.fails = "handle_get");
    let runtime = over_driver(full());
    assert_eq!(runtime.pointer_kind(KNOWN), Ok(PointerKind::Gpu(Some(1))));
    assert_eq!(runtime.gpu_of(KNOWN), Some(1));
    assert_eq!(runtime.pointer_kind(GPU), Ok(PointerKind::Host));
    let error = runtime.ipc_export(KNOWN).unwrap_err();
    assert!(matches!(error, GpuError::NoMemory { address: KNOWN, .. }), "{error}");
    assert_eq!(runtime.check_range(KNOWN, 4096), Err(RANGE));
}

/// Opened, a handle gives the start of the allocation: the peer adds the offset of the range in it.
#[test]
fn a_handle_names_the_allocation_and_the_driver_says_where_it_begins() {
    let runtime: Arc<dyn GpuRuntime> = Arc::new(over_driver(full()));
    let share = Share::new(&runtime, KNOWN + 64, 8).unwrap();
    assert_eq!((share.base, runtime.ipc_open(&share.handle)), (KNOWN, Ok(KNOWN)));
}

#[test]
fn a_dma_buf_is_the_tables_with_the_gpu_of_the_memory_current() {
    let page = rustix::param::page_size() as u64;
    let (runtime, start) = (over_driver(full()), KNOWN - KNOWN % page);
    assert_eq!(runtime.dma_buf(KNOWN, 100).unwrap().offset, KNOWN % page);
    assert_eq!(played(|played| played.dma_range.take()), Some((1, start, page as usize)));
    assert_eq!(gpu(|gpu| gpu.current), 0, "restored");
    // Of memory that the driver does not know: with the GPU that the caller has chosen.
    let export = runtime.dma_buf(GPU, 100).unwrap();
    assert_eq!(rustix::io::fcntl_getfd(&export.fd), Ok(FdFlags::CLOEXEC));
    assert_eq!(played(|played| played.dma_range), Some((0, GPU, page as usize)));
}

#[test]
fn where_the_table_makes_no_dma_buf_the_driver_is_asked() {
    let without = [
        |table: &mut GpuTable| table.dma_support = None,
        |table: &mut GpuTable| table.get_handle_for_address_range = None,
        |_: &mut GpuTable| played(|played| played.dma = false),
        |_: &mut GpuTable| gpu(|gpu| gpu.fails = "dma_support"),
        |_: &mut GpuTable| {
            played(|played| played.dma = true);
            gpu(|gpu| gpu.fails = "handle_for_range");
        },
    ];
    for take in without {
        let mut table = full();
        take(&mut table);
        assert!(over(table).dma_buf(KNOWN, 100).is_err(), "no driver");
        assert_eq!(over_driver(table).dma_buf(KNOWN, 100).unwrap().offset, 77, "the driver's");
        assert!(over_driver(table).dma_buf(GPU, 100).is_err(), "memory that the driver does not know");
    }
}

/// As `aclrtGetDevice`: an error on a thread that has not chosen a device, on which nothing else works either.
#[test]
fn a_thread_that_has_no_device_yet_is_given_one() {
    static CHOSEN: AtomicBool = AtomicBool::new(false);
    unsafe extern "C" fn get(device: *mut c_int) -> c_int {
        if CHOSEN.load(Ordering::Relaxed) { out(device, gpu(|gpu| gpu.current) as c_int) } else { FAILED }
    }
    unsafe extern "C" fn set(device: c_int) -> c_int {
        CHOSEN.store(true, Ordering::Relaxed);
        gpu(|gpu| gpu.current = device as u64);
        0
    }
    let runtime = over(GpuTable { get_device: Some(get), set_device: Some(set), ..full() });
    let entered = CurrentGpu::ensure(&runtime, 1).unwrap();
    assert!(entered.is_some());
    let mut stream = runtime.open_stream().unwrap();
    drop(entered);
    // Another thread, as far as the adaptor is concerned.
    CHOSEN.store(false, Ordering::Relaxed);
    gpu(|gpu| (gpu.current, gpu.wanted) = (99, Some(1)));
    let buffer = [0_u8; 4];
    copy(&mut *stream, GPU, buffer.as_ptr() as u64, 4, CopyDirection::HostToGpu).unwrap();
    CHOSEN.store(false, Ordering::Relaxed);
    stream.mark(0).unwrap();
    assert_eq!(stream.is_done(0), Ok(true));
}

/// A table that cannot choose has one GPU, whatever its number.
#[test]
fn a_table_that_cannot_choose_a_gpu_is_taken_as_it_is() {
    let runtime = over(GpuTable { set_device: None, ..full() });
    assert!(runtime.is_current(1) && CurrentGpu::ensure(&runtime, 1).unwrap().is_none());
}

#[test]
fn a_range_that_leaves_gpu_memory_is_refused() {
    let (runtime, bytes) = (over(full()), GPU_BYTES as u64);
    assert_eq!(runtime.check_range(GPU, bytes), Ok(()));
    let error = runtime.check_range(GPU, bytes + 1).unwrap_err();
    assert!(matches!(error, GpuError::Range { at, .. } if at == GPU + bytes), "{error}");
    assert_eq!(runtime.check_range(0x1234, bytes), Ok(()), "nothing that the table knows");
    assert_eq!(over(without_ipc()).check_range(GPU, 2 * bytes), Ok(()), "a table that cannot tell");
    assert_eq!(live_objects(), 0);
}

/// What the CUDA driver does below an adaptor.
#[derive(Debug)]
struct Driver;

fn none<T>() -> Result<T, GpuError> {
    Err(GpuError::Unsupported { runtime: "driver", operation: "do this" })
}

impl GpuRuntime for Driver {
    fn name(&self) -> &'static str {
        "driver"
    }
    fn pointer_kind(&self, address: u64) -> Result<PointerKind, GpuError> {
        Ok(if address >= KNOWN { PointerKind::Gpu(self.gpu_of(address)) } else { PointerKind::Host })
    }
    fn is_managed(&self, address: u64) -> bool {
        address == MANAGED
    }
    fn gpu_count(&self) -> Result<u32, GpuError> {
        none()
    }
    fn current_gpu(&self) -> Result<i32, GpuError> {
        none()
    }
    fn gpu_of(&self, address: u64) -> Option<i32> {
        (address >= KNOWN).then_some(1)
    }
    fn check_range(&self, _: u64, _: u64) -> Result<(), GpuError> {
        Err(RANGE)
    }
    fn pci_bus_id(&self, _: i32) -> Result<String, GpuError> {
        none()
    }
    fn enter(&self, _: i32) -> Result<SavedGpu, GpuError> {
        none()
    }
    fn restore(&self, _: SavedGpu) -> Result<(), GpuError> {
        none()
    }
    fn open_stream(&self) -> Result<Box<dyn CopyStream>, GpuError> {
        none()
    }
    fn ipc_export(&self, _: u64) -> Result<IpcExport, GpuError> {
        none()
    }
    fn ipc_open(&self, _: &[u8; IPC_HANDLE_BYTES]) -> Result<u64, GpuError> {
        none()
    }
    fn ipc_close(&self, _: u64) -> Result<(), GpuError> {
        none()
    }
    fn allocation(&self, address: u64) -> Result<(u64, u64), GpuError> {
        if address >= KNOWN { Ok((KNOWN, ALLOCATION)) } else { none() }
    }
    fn dma_buf(&self, _: u64, _: u64) -> Result<DmaBufExport, GpuError> {
        let fd = std::fs::File::open("/dev/null").unwrap().into();
        Ok(DmaBufExport { fd, offset: 77 })
    }
}

/// Whether the driver is looked for, and how, is the process's matter: here only that a look is told apart.
#[test]
fn a_transfer_looks_for_no_driver_that_was_not_found_before() {
    // SAFETY: the callbacks conform.
    let runtime = unsafe {
        TableRuntime::over_driver(full, |look| {
            assert_eq!(look, Look::Found);
            None
        })
    };
    assert_eq!(runtime.gpu_of(GPU), None);
}

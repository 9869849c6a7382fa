//! The table's layout.

use std::ffi::{c_char, c_int, c_ulonglong, c_void};

/// The callbacks. Any may be NULL: what needs it is then not offered.
///
/// Same names, order, types and meaning as in FlagCX's device adaptor, of which this is the part in use. Results are
/// `flagcxResult_t`: 0 is success, 7 "still running" (from `event_query` only), everything else a failure. Streams,
/// events and IPC handles are opaque pointers. Callbacks may be called from any thread.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct GpuTable {
    /// `deviceMemcpy(dst, src, size, type, stream, args)`: type 0 host to device, 1 device to host, 2 device to
    /// device; `args` is NULL.
    pub device_memcpy: Option<MemcpyFn>,
    /// `setDevice(dev)`.
    pub set_device: Option<unsafe extern "C" fn(c_int) -> c_int>,
    /// `getDevice(&dev)`.
    pub get_device: Option<unsafe extern "C" fn(*mut c_int) -> c_int>,
    /// `getDeviceCount(&count)`.
    pub get_device_count: Option<unsafe extern "C" fn(*mut c_int) -> c_int>,
    /// `gdrPtrMmap(&cpuPtr, devPtr, size)`.
    pub gdr_ptr_mmap: Option<unsafe extern "C" fn(*mut *mut c_void, *mut c_void, usize) -> c_int>,
    /// `gdrPtrMunmap(cpuPtr, size)`.
    pub gdr_ptr_munmap: Option<unsafe extern "C" fn(*mut c_void, usize) -> c_int>,
    /// `streamCreate(&stream)`.
    pub stream_create: Option<unsafe extern "C" fn(*mut *mut c_void) -> c_int>,
    /// `streamDestroy(stream)`.
    pub stream_destroy: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
    /// `eventCreate(&event, type)`: type 1 is "without timing".
    pub event_create: Option<unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int>,
    /// `eventDestroy(event)`.
    pub event_destroy: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
    /// `eventRecord(event, stream)`.
    pub event_record: Option<unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int>,
    /// `eventQuery(event)`: success when done, 7 while running.
    pub event_query: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
    /// `ipcMemHandleCreate(&handle, &size)`: an empty handle object, of at most 64 bytes.
    pub ipc_mem_handle_create: Option<unsafe extern "C" fn(*mut *mut c_void, *mut usize) -> c_int>,
    /// `ipcMemHandleGet(handle, devPtr)`: fills the object; success means that `devPtr` is GPU memory.
    pub ipc_mem_handle_get: Option<unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int>,
    /// `ipcMemHandleOpen(handle, &devPtr)`.
    pub ipc_mem_handle_open: Option<unsafe extern "C" fn(*mut c_void, *mut *mut c_void) -> c_int>,
    /// `ipcMemHandleClose(devPtr)`.
    pub ipc_mem_handle_close: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
    /// `ipcMemHandleFree(handle)`.
    pub ipc_mem_handle_free: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
    /// `getDevicePciBusId(text, length, dev)`.
    pub get_device_pci_bus_id: Option<unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int>,
    /// `getDeviceByPciBusId(&dev, text)`. Not asked by the engine itself; part of the table for its owner.
    pub get_device_by_pci_bus_id: Option<unsafe extern "C" fn(*mut c_int, *const c_char) -> c_int>,
    /// `getLastError()`: clears the error that a failed probe left behind.
    pub get_last_error: Option<unsafe extern "C" fn() -> c_int>,
    /// `launchHostFunc(stream, fn, args)`: has `fn(args)` called once everything on the stream before is done. It must not
    /// call the runtime, and does not.
    pub launch_host_func: Option<LaunchHostFn>,
    /// `dmaSupport(&supported)`: whether the current GPU exports dma-bufs. The answer is a C `bool`.
    pub dma_support: Option<unsafe extern "C" fn(*mut u8) -> c_int>,
    /// `getHandleForAddressRange(&fd, buffer, size, flags)`: a dma-buf of whole pages of the host, as an `int`; `flags` is 0.
    pub get_handle_for_address_range: Option<HandleForRangeFn>,
    /// `getPointerType(ptr, &type)`: 1 host memory, 2 GPU memory, whether or not it can be opened by other processes.
    pub get_pointer_type: Option<unsafe extern "C" fn(*const c_void, *mut c_int) -> c_int>,
}

/// Type of [`GpuTable::get_handle_for_address_range`].
pub(super) type HandleForRangeFn =
    unsafe extern "C" fn(*mut c_void, *mut c_void, usize, c_ulonglong) -> c_int;

/// Type of [`GpuTable::launch_host_func`].
pub(super) type LaunchHostFn =
    unsafe extern "C" fn(*mut c_void, unsafe extern "C" fn(*mut c_void), *mut c_void) -> c_int;

/// Type of [`GpuTable::device_memcpy`].
pub(super) type MemcpyFn =
    unsafe extern "C" fn(*mut c_void, *mut c_void, usize, c_int, *mut c_void, *mut c_void) -> c_int;

const _: () = {
    assert!(size_of::<GpuTable>() == 24 * size_of::<usize>());
    assert!(core::mem::offset_of!(GpuTable, stream_create) == 6 * size_of::<usize>());
    assert!(core::mem::offset_of!(GpuTable, ipc_mem_handle_create) == 12 * size_of::<usize>());
    assert!(core::mem::offset_of!(GpuTable, get_last_error) == 19 * size_of::<usize>());
    assert!(core::mem::offset_of!(GpuTable, get_pointer_type) == 23 * size_of::<usize>());
};

//! The driver's functions that the engine uses, by the names that its library exports.
#![allow(unsafe_code, reason = "takes function pointers out of a shared library")]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::super::GpuError;
use super::super::host_call::HostFn;
use super::file_symbols::{MappingSymbols, PoolSymbols};
use crate::fork::{load_apart_from_forks, loader_error};

/// File name of the driver's library.
const LIBRARY: &str = "libcuda.so.1";
/// `dlopen` flag: succeed only if the process has the library already.
const RTLD_NOLOAD: c_int = libc::RTLD_NOLOAD;

/// `CUipcMemHandle`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct IpcMemHandle(pub(super) [u8; 64]);

macro_rules! symbols {
    ($($(#[$doc:meta])* $field:ident: $name:literal = fn($($argument:ty),*);)*) => {
        /// The functions. All answer a `CUresult`, 0 for success.
        #[derive(Debug)]
        pub(super) struct Symbols {
            $($(#[$doc])* pub(super) $field: unsafe extern "C" fn($($argument),*) -> c_int,)*
            /// `cuMemGetHandleForAddressRange`; drivers before 11.7 lack it.
            pub(super) handle_for_range: Option<HandleForRangeFn>,
            /// `cuLaunchHostFunc`; drivers before 10.0 lack it.
            pub(super) launch_host: Option<LaunchHostFn>,
            /// Allocations and their mappings.
            pub(super) mappings: Option<MappingSymbols>,
            /// Pools.
            pub(super) pools: Option<PoolSymbols>,
            /// Keeps the functions there; `None` for functions of the program itself.
            pub(super) _library: Option<Library>,
        }

        impl Symbols {
            fn from_library(library: Library) -> Result<Self, GpuError> {
                Ok(Self {
                    $(
                        // SAFETY: the type is that of the driver's documentation for this name.
                        $field: *unsafe { library.get(concat!($name, "\0").as_bytes()) }
                            .map_err(|error| missing(&error))?,
                    )*
                    // SAFETY: as above.
                    handle_for_range: unsafe { library.get(b"cuMemGetHandleForAddressRange\0") }.ok().map(|found| *found),
                    // SAFETY: as above.
                    launch_host: unsafe { library.get(b"cuLaunchHostFunc\0") }.ok().map(|found| *found),
                    mappings: MappingSymbols::of(&library),
                    pools: PoolSymbols::of(&library),
                    _library: Some(library),
                })
            }
        }
    };
}

type LaunchHostFn = unsafe extern "C" fn(*mut c_void, HostFn, *mut c_void) -> c_int;
type HandleForRangeFn = unsafe extern "C" fn(*mut c_void, u64, usize, c_int, u64) -> c_int;

symbols! {
    init: "cuInit" = fn(c_uint);
    error_string: "cuGetErrorString" = fn(c_int, *mut *const c_char);
    device_count: "cuDeviceGetCount" = fn(*mut c_int);
    device_get: "cuDeviceGet" = fn(*mut c_int, c_int);
    device_attribute: "cuDeviceGetAttribute" = fn(*mut c_int, c_int, c_int);
    pci_bus_id: "cuDeviceGetPCIBusId" = fn(*mut c_char, c_int, c_int);
    primary_context: "cuDevicePrimaryCtxRetain" = fn(*mut *mut c_void, c_int);
    get_context: "cuCtxGetCurrent" = fn(*mut *mut c_void);
    context_device: "cuCtxGetDevice" = fn(*mut c_int);
    set_context: "cuCtxSetCurrent" = fn(*mut c_void);
    pointer_attribute: "cuPointerGetAttribute" = fn(*mut c_void, c_int, u64);
    set_pointer_attribute: "cuPointerSetAttribute" = fn(*const c_void, c_int, u64);
    address_range: "cuMemGetAddressRange_v2" = fn(*mut u64, *mut usize, u64);
    memcpy_async: "cuMemcpyAsync" = fn(u64, u64, usize, *mut c_void);
    stream_create: "cuStreamCreate" = fn(*mut *mut c_void, c_uint);
    stream_destroy: "cuStreamDestroy_v2" = fn(*mut c_void);
    event_create: "cuEventCreate" = fn(*mut *mut c_void, c_uint);
    event_destroy: "cuEventDestroy_v2" = fn(*mut c_void);
    event_record: "cuEventRecord" = fn(*mut c_void, *mut c_void);
    event_query: "cuEventQuery" = fn(*mut c_void);
    ipc_get: "cuIpcGetMemHandle" = fn(*mut IpcMemHandle, u64);
    ipc_open: "cuIpcOpenMemHandle_v2" = fn(*mut u64, IpcMemHandle, c_uint);
    ipc_close: "cuIpcCloseMemHandle" = fn(u64);
}

impl Symbols {
    /// Of the driver that this process has loaded already.
    pub(super) fn of_process() -> Result<Self, GpuError> {
        Self::open(LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD)
    }

    /// Of a driver, loaded now if it was not.
    pub(super) fn load(library: &str) -> Result<Self, GpuError> {
        Self::open(library, RTLD_NOW | RTLD_LOCAL)
    }

    fn open(library: &str, flags: c_int) -> Result<Self, GpuError> {
        // SAFETY: the driver's library may be loaded at any time, from any thread.
        Self::from_library(
            load_apart_from_forks(|| unsafe { Library::open(Some(library), flags) })
                .map_err(|error| missing(&error))?,
        )
    }

    /// A result in words, empty or starting with `, `.
    pub(super) fn text(&self, code: c_int) -> String {
        let mut text = std::ptr::null();
        // SAFETY: the out parameter is valid.
        let known = unsafe { (self.error_string)(code, &raw mut text) } == 0 && !text.is_null();
        if !known {
            return String::new();
        }
        // SAFETY: the driver answers a constant string.
        format!(", {}", unsafe { CStr::from_ptr(text) }.to_string_lossy())
    }

    /// An error unless `code` is success.
    pub(super) fn check(&self, operation: &'static str, code: c_int) -> Result<(), GpuError> {
        match code {
            0 => Ok(()),
            _ => {
                Err(GpuError::Call { runtime: super::runtime::NAME, operation, code, text: self.text(code) })
            }
        }
    }
}

fn missing(error: &libloading::Error) -> GpuError {
    GpuError::NotAvailable(loader_error(error))
}

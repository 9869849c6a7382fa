//! The driver's functions for memory that is shared by files, which older drivers lack.
#![allow(unsafe_code, reason = "takes function pointers out of a shared library")]

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};

use libloading::os::unix::Library;

use super::super::POOL_POINTER_BYTES;

macro_rules! functions {
    ($(#[$doc:meta])* $set:ident { $($field:ident: $name:literal = fn($($argument:ty),*);)* }) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $set {
            $(pub(super) $field: unsafe extern "C" fn($($argument),*) -> c_int,)*
        }

        impl $set {
            /// All of them; `None` if the driver lacks one.
            pub(super) fn of(library: &Library) -> Option<Self> {
                Some(Self {
                    $(
                        // SAFETY: the type is that of the driver's documentation for this name.
                        $field: *unsafe { library.get(concat!($name, "\0").as_bytes()) }.ok()?,
                    )*
                })
            }
        }
    };
}

functions! {
    /// Allocations and the addresses that they are mapped at: since CUDA 11.0.
    MappingSymbols {
        retain: "cuMemRetainAllocationHandle" = fn(*mut c_ulonglong, *mut c_void);
        release: "cuMemRelease" = fn(c_ulonglong);
        properties: "cuMemGetAllocationPropertiesFromHandle" = fn(*mut AllocationProperties, c_ulonglong);
        export: "cuMemExportToShareableHandle" = fn(*mut c_void, c_ulonglong, c_int, c_ulonglong);
        import: "cuMemImportFromShareableHandle" = fn(*mut c_ulonglong, *mut c_void, c_int);
        reserve: "cuMemAddressReserve" = fn(*mut u64, usize, usize, u64, c_ulonglong);
        free: "cuMemAddressFree" = fn(u64, usize);
        map: "cuMemMap" = fn(u64, usize, usize, c_ulonglong, c_ulonglong);
        unmap: "cuMemUnmap" = fn(u64, usize);
        set_access: "cuMemSetAccess" = fn(u64, usize, *const AccessDescription, usize);
    }
}

functions! {
    /// Pools, of `cudaMallocAsync`: since CUDA 11.3.
    PoolSymbols {
        export: "cuMemPoolExportToShareableHandle" = fn(*mut c_void, *mut c_void, c_int, c_ulonglong);
        export_pointer: "cuMemPoolExportPointer" = fn(*mut PoolPointer, u64);
        import: "cuMemPoolImportFromShareableHandle" = fn(*mut *mut c_void, *mut c_void, c_int, c_ulonglong);
        import_pointer: "cuMemPoolImportPointer" = fn(*mut u64, *mut c_void, *mut PoolPointer);
        set_access: "cuMemPoolSetAccess" = fn(*mut c_void, *const AccessDescription, usize);
        destroy: "cuMemPoolDestroy" = fn(*mut c_void);
        free: "cuMemFree_v2" = fn(u64);
    }
}

/// `CUmemLocation`: a device, by its number.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Location {
    pub(super) kind: c_int,
    pub(super) device: c_int,
}

/// `CU_MEM_LOCATION_TYPE_DEVICE`.
pub(super) const ON_DEVICE: c_int = 1;

/// `CUmemAllocationProp`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct AllocationProperties {
    pub(super) kind: c_int,
    /// Bits of `CUmemAllocationHandleType`.
    pub(super) handle_types: c_uint,
    pub(super) location: Location,
    windows: usize,
    flags: [u8; 8],
}

/// `CUmemAccessDesc`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct AccessDescription {
    pub(super) location: Location,
    pub(super) rights: c_int,
}

/// `CUmemPoolPtrExportData`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct PoolPointer(pub(super) [u8; POOL_POINTER_BYTES]);

const _: () = {
    assert!(size_of::<AllocationProperties>() == 32);
    assert!(size_of::<AccessDescription>() == 12);
};

//! libibverbs as this crate sees it: types and constants of `rdma-sys`, functions looked up at run time.
//!
//! This is the only file that names `rdma_sys`. Only its types and constants are used: one reference to a function
//! of it would make libibverbs a load-time dependency, and the program would not start on a machine without it.
//!
//! Macros and inline functions of the C header are written out here: [`Library::query_port`] for `ibv_query_port`,
//! the function pointers in `ibv_context::ops` for posting, polling and arming.
#![allow(unsafe_code, reason = "loads a C library and describes its functions")]

use std::collections::HashMap;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::mem::{offset_of, size_of};
use std::sync::{Mutex, PoisonError};

pub(super) use rdma_sys::{
    ibv_access_flags, ibv_ah, ibv_ah_attr, ibv_async_event, ibv_atomic_cap, ibv_comp_channel, ibv_context,
    ibv_cq, ibv_device, ibv_device_attr, ibv_event_type, ibv_gid, ibv_global_route, ibv_mr, ibv_pd,
    ibv_port_attr, ibv_port_state, ibv_qp, ibv_qp_attr, ibv_qp_attr_mask, ibv_qp_cap, ibv_qp_init_attr,
    ibv_qp_state, ibv_qp_type, ibv_send_flags, ibv_send_wr, ibv_sge, ibv_wc, ibv_wc_status, ibv_wr_opcode,
    rdma_t, verbs_context,
};

use crate::fabric::{FabricError, Sge};
use crate::fork::{PerProcess, load_apart_from_forks, loader_error};

/// Library that is loaded when nothing else is asked for.
const DEFAULT_LIBRARY: &str = "libibverbs.so.1";

/// `__VERBS_ABI_IS_EXTENDED`: marks a context that is the tail of a `verbs_context`.
const EXTENDED_ABI: usize = usize::MAX;

/// Two of `enum ibv_fork_status`.
const FORK_ENABLED: c_uint = 1;
const FORK_UNNEEDED: c_uint = 2;

pub(super) type PostSend =
    unsafe extern "C" fn(*mut ibv_qp, *mut ibv_send_wr, *mut *mut ibv_send_wr) -> c_int;
pub(super) type PollCq = unsafe extern "C" fn(*mut ibv_cq, c_int, *mut ibv_wc) -> c_int;
type QueryPort = unsafe extern "C" fn(*mut ibv_context, u8, *mut ibv_port_attr, usize) -> c_int;
pub(super) type ReqNotifyCq = unsafe extern "C" fn(*mut ibv_cq, c_int) -> c_int;

// The posted lists point straight into the caller's entries, so the two layouts must be one.
const _: () = assert!(size_of::<Sge>() == size_of::<ibv_sge>() && align_of::<Sge>() == align_of::<ibv_sge>());
const _: () = assert!(offset_of!(Sge, address) == offset_of!(ibv_sge, addr));
const _: () = assert!(offset_of!(Sge, length) == offset_of!(ibv_sge, length));
const _: () = assert!(offset_of!(Sge, lkey) == offset_of!(ibv_sge, lkey));
// `rdma-sys` writes these out by hand because of their unions: hold them to the C header's sizes.
const _: () = assert!(size_of::<ibv_send_wr>() == 128 && offset_of!(ibv_send_wr, wr) == 40);
const _: () = assert!(size_of::<ibv_wc>() == 48 && offset_of!(ibv_wc, qp_num) == 28);
const _: () = assert!(size_of::<ibv_ah_attr>() == 32 && offset_of!(ibv_ah_attr, dlid) == 24);

/// `struct ibv_gid_entry`, written out so that headers without it will do.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GidTableEntry {
    /// Network order.
    pub(super) gid: [u8; 16],
    pub(super) gid_index: u32,
    pub(super) port_num: u32,
    /// `enum ibv_gid_type`: 0 InfiniBand, 1 RoCE v1, 2 RoCE v2.
    pub(super) gid_type: u32,
    /// Network interface; 0 if there is none.
    pub(super) ndev_ifindex: u32,
}
const _: () = assert!(size_of::<GidTableEntry>() == 32 && offset_of!(GidTableEntry, ndev_ifindex) == 28);

/// Declares [`Library`] and its loader from one list, so that a field and its symbol cannot drift apart.
macro_rules! library {
    (
        required { $($name:ident: fn($($arg:ty),*) $(-> $ret:ty)?;)* }
        optional { $($opt:ident: fn($($opt_arg:ty),*) $(-> $opt_ret:ty)?;)* }
    ) => {
        /// The functions of one loaded libibverbs. Never unloaded: objects made by it may outlive any owner.
        pub(super) struct Library {
            $(pub(super) $name: unsafe extern "C" fn($($arg),*) $(-> $ret)?,)*
            $(pub(super) $opt: Option<unsafe extern "C" fn($($opt_arg),*) $(-> $opt_ret)?>,)*
            /// File it came from, as given to the loader.
            pub(super) file: String,
        }

        impl Library {
            fn from_handle(handle: libloading::Library, file: &str) -> Result<Self, FabricError> {
                // SAFETY: every name is looked up with the C prototype that <infiniband/verbs.h> gives it, and the
                // handle is leaked below, so the pointers stay good for the life of the process.
                let library = unsafe {
                    Self {
                        $($name: required(&handle, file, stringify!($name))?,)*
                        $($opt: optional(&handle, stringify!($opt)),)*
                        file: file.to_owned(),
                    }
                };
                std::mem::forget(handle);
                Ok(library)
            }
        }
    };
}

library! {
    required {
        ibv_get_device_list: fn(*mut c_int) -> *mut *mut ibv_device;
        ibv_free_device_list: fn(*mut *mut ibv_device);
        ibv_get_device_name: fn(*mut ibv_device) -> *const c_char;
        ibv_open_device: fn(*mut ibv_device) -> *mut ibv_context;
        ibv_close_device: fn(*mut ibv_context) -> c_int;
        ibv_query_device: fn(*mut ibv_context, *mut ibv_device_attr) -> c_int;
        ibv_query_port: fn(*mut ibv_context, u8, *mut ibv_port_attr) -> c_int;
        ibv_query_gid: fn(*mut ibv_context, u8, c_int, *mut ibv_gid) -> c_int;
        ibv_get_async_event: fn(*mut ibv_context, *mut ibv_async_event) -> c_int;
        ibv_ack_async_event: fn(*mut ibv_async_event);
        ibv_alloc_pd: fn(*mut ibv_context) -> *mut ibv_pd;
        ibv_dealloc_pd: fn(*mut ibv_pd) -> c_int;
        ibv_reg_mr: fn(*mut ibv_pd, *mut c_void, usize, c_int) -> *mut ibv_mr;
        ibv_dereg_mr: fn(*mut ibv_mr) -> c_int;
        ibv_create_comp_channel: fn(*mut ibv_context) -> *mut ibv_comp_channel;
        ibv_destroy_comp_channel: fn(*mut ibv_comp_channel) -> c_int;
        ibv_create_cq: fn(*mut ibv_context, c_int, *mut c_void, *mut ibv_comp_channel, c_int) -> *mut ibv_cq;
        ibv_destroy_cq: fn(*mut ibv_cq) -> c_int;
        ibv_get_cq_event: fn(*mut ibv_comp_channel, *mut *mut ibv_cq, *mut *mut c_void) -> c_int;
        ibv_ack_cq_events: fn(*mut ibv_cq, c_uint);
        ibv_create_qp: fn(*mut ibv_pd, *mut ibv_qp_init_attr) -> *mut ibv_qp;
        ibv_query_qp: fn(*mut ibv_qp, *mut ibv_qp_attr, c_int, *mut ibv_qp_init_attr) -> c_int;
        ibv_modify_qp: fn(*mut ibv_qp, *mut ibv_qp_attr, c_int) -> c_int;
        ibv_destroy_qp: fn(*mut ibv_qp) -> c_int;
    }
    optional {
        // IBVERBS_1.8: supports the optional access flags (relaxed ordering) and drops those that the kernel does not
        // support.
        ibv_reg_mr_iova2: fn(*mut ibv_pd, *mut c_void, usize, u64, c_uint) -> *mut ibv_mr;
        // IBVERBS_1.1, where it is; its answer is an `enum ibv_fork_status`, IBVERBS_1.13.
        ibv_fork_init: fn() -> c_int;
        ibv_is_fork_initialized: fn() -> c_uint;
        // IBVERBS_1.1: drivers may refuse.
        ibv_create_ah: fn(*mut ibv_pd, *mut ibv_ah_attr) -> *mut ibv_ah;
        ibv_destroy_ah: fn(*mut ibv_ah) -> c_int;
        // IBVERBS_1.11; the C header's inline functions without the underscore add the size of an entry.
        _ibv_query_gid_ex: fn(*mut ibv_context, u32, u32, *mut GidTableEntry, u32, usize) -> c_int;
        _ibv_query_gid_table: fn(*mut ibv_context, *mut GidTableEntry, usize, u32, usize) -> isize;
        // IBVERBS_1.12.
        ibv_reg_dmabuf_mr: fn(*mut ibv_pd, u64, usize, u64, c_int, c_int) -> *mut ibv_mr;
    }
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Library {
    /// Loads `file`, or the system's libibverbs, once per process and name.
    pub(super) fn load(file: Option<&str>) -> Result<&'static Self, FabricError> {
        static LOADED: PerProcess<Mutex<HashMap<String, &'static Library>>> = PerProcess::new(Mutex::default);

        let file = file.unwrap_or(DEFAULT_LIBRARY);
        let mut loaded = LOADED.get().lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = loaded.get(file) {
            return Ok(library);
        }
        // SAFETY: the initialisers of libibverbs (and of a stand-in chosen by the operator) are sound to run.
        let handle =
            load_apart_from_forks(|| unsafe { libloading::Library::new(file) }).map_err(|error| {
                FabricError::Library {
                    library: file.to_owned(),
                    reason: format!(
                        "{}; install libibverbs1 and ibverbs-providers for RDMA devices",
                        loader_error(&error)
                    ),
                }
            })?;
        let library: &'static Self = Box::leak(Box::new(Self::from_handle(handle, file)?));
        library.allow_forks();
        loaded.insert(file.to_owned(), library);
        Ok(library)
    }

    /// On kernels before 5.12 a fork can detach pages from the NIC's mapping; there the library has to mark them,
    /// starting before the first device is opened.
    fn allow_forks(&self) {
        // SAFETY: neither takes an argument.
        let status = self.ibv_is_fork_initialized.map(|ask| unsafe { ask() });
        if matches!(status, Some(FORK_ENABLED | FORK_UNNEEDED)) {
            return;
        }
        // SAFETY: as above.
        let refused = self.ibv_fork_init.map_or(libc::ENOSYS, |init| errno_of(unsafe { init() }));
        if refused != 0 {
            let error = std::io::Error::from_raw_os_error(refused);
            tracing::warn!(
                "ibv_fork_init of {}: {error}; memory that is registered may go wrong in this process when it forks: start \
                 other programs by posix_spawn, or use Linux 5.12 or later",
                self.file
            );
        }
    }

    /// `ibv_query_port` as the C macro does it: through the context's own entry where there is one, which alone
    /// fills every field, else through the plain symbol on zeroed attributes.
    ///
    /// # Safety
    /// `context` is an open context of this library.
    pub(super) unsafe fn query_port(
        &self,
        context: *mut ibv_context,
        port: u8,
    ) -> Result<ibv_port_attr, i32> {
        // SAFETY: plain integers, for which zero is a value.
        let mut attributes: ibv_port_attr = unsafe { std::mem::zeroed() };
        // SAFETY: `context` is open; the library fills attributes of the size passed, or of the older, smaller
        // structure of the plain symbol.
        let code = unsafe {
            match Self::query_port_entry(context) {
                Some(query_port) => {
                    query_port(context, port, &raw mut attributes, size_of::<ibv_port_attr>())
                }
                None => (self.ibv_query_port)(context, port, &raw mut attributes),
            }
        };
        if code == 0 { Ok(attributes) } else { Err(errno_of(code)) }
    }

    /// The `query_port` of an extended context, if `context` is one and has it.
    ///
    /// # Safety
    /// `context` is an open context of this library.
    unsafe fn query_port_entry(context: *mut ibv_context) -> Option<QueryPort> {
        // SAFETY: open, so readable.
        if unsafe { (*context).abi_compat } as usize != EXTENDED_ABI {
            return None;
        }
        let outer = context.wrapping_byte_sub(offset_of!(verbs_context, context)).cast::<verbs_context>();
        let needed = size_of::<verbs_context>() - offset_of!(verbs_context, query_port);
        // SAFETY: the mark says that the context lies at the end of a `verbs_context`; its `sz` always exists and
        // gives the size of the fields before it.
        unsafe { if (*outer).sz >= needed { (*outer).query_port } else { None } }
    }
}

/// The errno behind a call's non-zero return: libraries return it, negate it, or return -1 and set `errno`.
pub(super) fn errno_of(code: c_int) -> i32 {
    match code {
        -1 => last_errno(),
        code => code.checked_abs().unwrap_or(libc::EIO),
    }
}

/// `errno` as the last call left it, `EIO` if it left none.
pub(super) fn last_errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().filter(|&errno| errno != 0).unwrap_or(libc::EIO)
}

/// # Safety
/// `T` is the function pointer type of the symbol `name`.
unsafe fn required<T: Copy>(library: &libloading::Library, file: &str, name: &str) -> Result<T, FabricError> {
    // SAFETY: passed on to the caller.
    unsafe { optional(library, name) }.ok_or_else(|| FabricError::Library {
        library: file.to_owned(),
        reason: format!("it has no symbol {name}: it is not libibverbs, or older than version 1.1"),
    })
}

/// # Safety
/// As [`required`].
unsafe fn optional<T: Copy>(library: &libloading::Library, name: &str) -> Option<T> {
    // SAFETY: passed on to the caller.
    unsafe { library.get::<T>(name.as_bytes()) }.ok().map(|symbol| *symbol)
}

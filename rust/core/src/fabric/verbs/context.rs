//! An opened device: its context, its protection domain, and its queries.
#![allow(unsafe_code, reason = "calls libibverbs")]

use std::collections::HashMap;
use std::ffi::CStr;
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::events::{self, AsyncEvent};
use super::port::LocalPort;
use super::sys::{
    Library, errno_of, ibv_async_event, ibv_context, ibv_device, ibv_device_attr, ibv_gid, ibv_pd,
    ibv_port_attr, last_errno,
};
use crate::fabric::FabricError;
use crate::fork::load_apart_from_forks;

/// libibverbs' list of the machine's devices.
pub(super) struct VerbsDeviceList {
    library: &'static Library,
    list: NonNull<*mut ibv_device>,
    count: usize,
}

impl VerbsDeviceList {
    /// Reads the list from the library. An error has its errno.
    pub(super) fn read(library: &'static Library) -> Result<Self, FabricError> {
        let mut count = 0;
        // The library loads the devices' own libraries here, under a lock of its own.
        // SAFETY: the library fills the count; the list is freed in `drop`.
        let list = load_apart_from_forks(|| unsafe { (library.ibv_get_device_list)(&raw mut count) });
        let list = NonNull::new(list).ok_or_else(|| match last_errno() {
            libc::ENOSYS => FabricError::Unsupported(
                "no RDMA device: the kernel offers no verbs; load the NIC's driver and ib_uverbs, and pass \
                 /dev/infiniband into a container"
                    .to_owned(),
            ),
            errno => FabricError::call("ibv_get_device_list", &library.file, errno),
        })?;
        Ok(Self { library, list, count: usize::try_from(count).unwrap_or(0) })
    }

    /// Kernel names (`mlx5_0`), in the library's order.
    pub(super) fn names(&self) -> Vec<String> {
        self.devices().map(|device| self.name(device)).collect()
    }

    /// Opens the device called `name`; `None` if there is none.
    pub(super) fn open(&self, name: &str) -> Option<Result<Arc<VerbsContext>, FabricError>> {
        let device = self.devices().find(|&device| self.name(device) == name)?;
        Some(VerbsContext::open(self.library, device, name))
    }

    fn devices(&self) -> impl Iterator<Item = *mut ibv_device> {
        // SAFETY: the list holds `count` pointers and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.list.as_ptr(), self.count) }.iter().copied()
    }

    fn name(&self, device: *mut ibv_device) -> String {
        // SAFETY: `device` is of this list; its name is a C string inside of it.
        let name = unsafe { CStr::from_ptr((self.library.ibv_get_device_name)(device)) };
        name.to_string_lossy().into_owned()
    }
}

impl Drop for VerbsDeviceList {
    fn drop(&mut self) {
        // SAFETY: made by `ibv_get_device_list`, freed once. Opened devices stay valid.
        unsafe { (self.library.ibv_free_device_list)(self.list.as_ptr()) }
    }
}

/// An open device with one protection domain. Everything made from it holds it by [`Arc`].
pub(super) struct VerbsContext {
    pub(super) library: &'static Library,
    pub(super) raw: NonNull<ibv_context>,
    pub(super) domain: NonNull<ibv_pd>,
    /// Kernel name of the device.
    pub(super) name: String,
    /// Every live queue pair, by number. Locked when one is created, destroyed or fails: never on the path of a
    /// request that succeeds.
    queue_pairs: Mutex<HashMap<u32, QueuePairEntry>>,
}

/// What is known of a queue pair that does not work. Written by the threads that find that (a poll, an event, `set_error`), read by its
/// owner. Relaxed: no other memory is published with it.
#[derive(Debug, Default)]
pub(super) struct QueuePairMarks {
    /// In ERROR, or without its address.
    pub(super) broken: AtomicBool,
    /// In ERROR because it has refused a request of the peer. Set before `broken`.
    pub(super) refused: AtomicBool,
}

/// The context's entry for a queue pair made from it.
struct QueuePairEntry {
    /// Shared with the queue pair; see there.
    marks: Arc<QueuePairMarks>,
    /// The port and index of its GID.
    port: u8,
    gid_index: u8,
    gid: [u8; 16],
}

// SAFETY: verbs calls are thread-safe on one context and one protection domain; the rest is Send and Sync by itself.
unsafe impl Send for VerbsContext {}
// SAFETY: as above.
unsafe impl Sync for VerbsContext {}

impl VerbsContext {
    fn open(
        library: &'static Library,
        device: *mut ibv_device,
        name: &str,
    ) -> Result<Arc<Self>, FabricError> {
        // SAFETY: `device` comes from a list that is still alive.
        let raw = NonNull::new(unsafe { (library.ibv_open_device)(device) }).ok_or_else(|| {
            FabricError::call("ibv_open_device", name, last_errno())
                .with_hint("check the rights on /dev/infiniband/uverbs*")
        })?;
        // SAFETY: `raw` is open.
        let Some(domain) = NonNull::new(unsafe { (library.ibv_alloc_pd)(raw.as_ptr()) }) else {
            let error = FabricError::call("ibv_alloc_pd", name, last_errno());
            // SAFETY: `raw` is open and nothing was made from it.
            unsafe { (library.ibv_close_device)(raw.as_ptr()) };
            return Err(error);
        };
        let context = Self { library, raw, domain, name: name.to_owned(), queue_pairs: Mutex::default() };
        set_nonblocking(context.async_fd())
            .map_err(|errno| FabricError::call("fcntl on the async fd", name, errno))?;
        Ok(Arc::new(context))
    }

    /// How many completion vectors the device has, at least 1.
    pub(super) fn completion_vectors(&self) -> u32 {
        // SAFETY: the context is open.
        u32::try_from(unsafe { (*self.raw.as_ptr()).num_comp_vectors }).unwrap_or(1).max(1)
    }

    /// Limits and identity of the device.
    pub(super) fn query_device(&self) -> Result<ibv_device_attr, FabricError> {
        let mut attributes = MaybeUninit::<ibv_device_attr>::zeroed();
        // SAFETY: the context is open; the library fills the attributes, for which zero is a value too.
        let code = unsafe { (self.library.ibv_query_device)(self.raw.as_ptr(), attributes.as_mut_ptr()) };
        self.check("ibv_query_device", code)?;
        // SAFETY: zeroed at first, then filled: initialised.
        Ok(unsafe { attributes.assume_init() })
    }

    /// State of port `port` now.
    pub(super) fn query_port(&self, port: u8) -> Result<ibv_port_attr, FabricError> {
        // SAFETY: the context is open and of this library.
        unsafe { self.library.query_port(self.raw.as_ptr(), port) }
            .map_err(|errno| FabricError::call("ibv_query_port", &self.name, errno))
    }

    /// Entry `index` of a port's GID table; `None` where the library refuses.
    pub(super) fn query_gid(&self, port: u8, index: u32) -> Option<[u8; 16]> {
        let index = i32::try_from(index).ok()?;
        let mut gid = ibv_gid { raw: [0; 16] };
        // SAFETY: the context is open; the library fills the GID.
        let code = unsafe { (self.library.ibv_query_gid)(self.raw.as_ptr(), port, index, &raw mut gid) };
        // SAFETY: both readings of the union are plain bytes.
        (code == 0).then_some(unsafe { gid.raw })
    }

    /// Readable when [`VerbsContext::next_event`] has an event.
    pub(super) fn async_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the fd belongs to the context, which lives as long as the borrow of `self`.
        unsafe { BorrowedFd::borrow_raw((*self.raw.as_ptr()).async_fd) }
    }

    /// The next asynchronous event, acknowledged; `None` when there is none now.
    pub(super) fn next_event(&self) -> Option<AsyncEvent> {
        let mut event = MaybeUninit::<ibv_async_event>::zeroed();
        // SAFETY: the context is open and its fd non-blocking; the library fills the event.
        if unsafe { (self.library.ibv_get_async_event)(self.raw.as_ptr(), event.as_mut_ptr()) } != 0 {
            return None;
        }
        // The type is read as a number: a newer library may send one that the Rust enum does not have.
        // SAFETY: the event is filled. Until it is acknowledged its element is alive: the library does not
        // destroy a queue pair with an event outstanding.
        let event = unsafe {
            let event = event.as_mut_ptr();
            let kind = event.byte_add(offset_of!(ibv_async_event, event_type)).cast::<u32>().read();
            let decoded = match events::subject(kind) {
                events::Subject::QueuePair => AsyncEvent::of_queue_pair(kind, (*(*event).element.qp).qp_num),
                events::Subject::Port => AsyncEvent::of_port(kind, (*event).element.port_num),
                events::Subject::Other => AsyncEvent::other(kind),
            };
            (self.library.ibv_ack_async_event)(event);
            decoded
        };
        Some(event)
    }

    /// Adds a new queue pair; the marks are set once it is known to be in ERROR.
    pub(super) fn add_queue_pair(&self, number: u32, port: &LocalPort) -> Arc<QueuePairMarks> {
        let marks = Arc::<QueuePairMarks>::default();
        let note = QueuePairEntry {
            marks: Arc::clone(&marks),
            port: port.number,
            gid_index: port.gid.index,
            gid: port.gid.gid,
        };
        self.queue_pairs().insert(number, note);
        marks
    }

    /// Removes a queue pair that is about to be destroyed.
    pub(super) fn remove_queue_pair(&self, number: u32) {
        self.queue_pairs().remove(&number);
    }

    /// Marks queue pair `number` as in ERROR.
    #[cold]
    pub(super) fn mark_broken(&self, number: u32) {
        if let Some(note) = self.queue_pairs().get(&number) {
            // Relaxed: the flag stands alone, nothing is published with it.
            note.marks.broken.store(true, Ordering::Relaxed);
        }
    }

    /// Marks queue pair `number` as in ERROR because of a request of the peer.
    pub(super) fn mark_refused(&self, number: u32) {
        if let Some(note) = self.queue_pairs().get(&number) {
            // Relaxed: as in `mark_broken`. Owners look at both after the event, which orders them.
            note.marks.refused.store(true, Ordering::Relaxed);
            note.marks.broken.store(true, Ordering::Relaxed);
        }
    }

    /// Marks queue pairs as broken if their GID is no longer at its index: packets sent to it do not arrive.
    pub(super) fn mark_stale_addresses(&self) {
        for note in self.queue_pairs().values() {
            if self.query_gid(note.port, u32::from(note.gid_index)) != Some(note.gid) {
                // Relaxed: as in `mark_broken`.
                note.marks.broken.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Turns a call's return code into a result.
    pub(super) fn check(&self, operation: &'static str, code: i32) -> Result<(), FabricError> {
        if code == 0 { Ok(()) } else { Err(FabricError::call(operation, &self.name, errno_of(code))) }
    }

    fn queue_pairs(&self) -> MutexGuard<'_, HashMap<u32, QueuePairEntry>> {
        self.queue_pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for VerbsContext {
    fn drop(&mut self) {
        // SAFETY: everything made from the domain and the context held an `Arc` to `self`, so it was dropped before.
        let codes = unsafe {
            let domain = (self.library.ibv_dealloc_pd)(self.domain.as_ptr());
            (domain, (self.library.ibv_close_device)(self.raw.as_ptr()))
        };
        if codes != (0, 0) {
            tracing::warn!(device = %self.name, ?codes, "cannot close the device: its context and protection domain leak");
        }
    }
}

impl std::fmt::Debug for VerbsContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerbsContext").field("name", &self.name).field("library", &self.library.file).finish()
    }
}

/// Makes reads of `fd` return at once.
pub(super) fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<(), i32> {
    let set = || fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK);
    set().map_err(rustix::io::Errno::raw_os_error)
}

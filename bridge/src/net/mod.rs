//! The adaptor table's half of the bridge: raw connections between two devices, without engines. Declarations only.
//!
//! ```text
//! listen ──▶ Listener ── accept ──▶ Comm            regMr ──▶ region of the device's context
//!                        connect ─▶ Comm ── start ──▶ request ── test, testBatch
//! ```
//! [`devices`] is the list that the table shows and one connection context per device; [`requests`] are the handles
//! that polling takes. All are of the process, as the table is.

mod answer;
mod comm;
mod devices;
mod listener;
mod memory;
mod requests;
mod test;
mod transfer;

pub(crate) use comm::Comm;
use comm::{close_comm, connect};
use devices::{device_count, device_named, device_properties, init};
pub(crate) use listener::Listener;
use listener::{abort_listener, accept, close_listener, listen};
use memory::{deregister_memory, keep_handle, register_memory, take_handle};
use test::{test, test_batch};
use transfer::{start, start_each};

#[cxx::bridge(namespace = "flagcx::p2p::net")]
#[allow(
    unsafe_code,
    unreachable_pub,
    unused_qualifications,
    reason = "what the macro makes of it, for the other side of the border"
)]
pub(crate) mod ffi {
    /// `flagcxResult_t`, as far as the table answers it.
    #[repr(i32)]
    #[derive(Debug)]
    enum Answer {
        Success = 0,
        SystemError = 2,
        InternalError = 3,
        InvalidArgument = 4,
        RemoteError = 6,
    }

    /// What a transfer does, seen from the caller.
    enum Direction {
        Put,
        Get,
    }

    /// `flagcxNetProperties_t`, as far as devices differ. Strings live as long as the process.
    struct Properties {
        name: *const c_char,
        pci_path: *const c_char,
        guid: u64,
        /// GPU memory can be registered without a dma-buf.
        peer_memory: bool,
        dma_buf: bool,
        speed: i32,
        port: i32,
        max_comms: i32,
    }

    /// What an mhandle points at: 32 bytes, the first 16 as the original engine lays them out.
    #[derive(Clone, Copy, Debug)]
    struct MemoryHandle {
        base: u64,
        lkey: u32,
        rkey: u32,
        /// The region's id in the slot of the original's `ibv_mr *`; 0 finds local memory by its address.
        region: u64,
        device: i32,
    }

    /// A range to register.
    struct Range {
        address: usize,
        size: usize,
        /// Declared to be host memory; else the GPU runtime is queried.
        host_memory: bool,
        relaxed_ordering: bool,
        /// -1 for none.
        dma_buf: i32,
        offset: u64,
    }

    /// The pieces of a transfer, one element of each slice per piece; a single handle stands for all pieces.
    struct Batch<'a> {
        local_handles: &'a [*const MemoryHandle],
        local_offsets: &'a [u64],
        remote_handles: &'a [*const MemoryHandle],
        remote_offsets: &'a [u64],
        sizes: &'a [usize],
    }

    // Devices.
    extern "Rust" {
        fn init() -> Answer;
        fn device_count() -> i32;
        fn device_properties(device: i32, out: &mut Properties) -> Answer;
        fn device_named(name: &[u8], device: &mut i32) -> Answer;
    }

    // Connections. Listeners and comms are closed once, by the functions that take them back.
    extern "Rust" {
        type Listener;
        type Comm;
        fn listen(device: i32, handle: &mut [u8], answer: &mut Answer) -> *mut Listener;
        fn connect(device: i32, handle: &[u8], answer: &mut Answer) -> *mut Comm;
        unsafe fn accept(listener: *mut Listener, answer: &mut Answer) -> *mut Comm;
        fn abort_listener(listener: &Listener);
        unsafe fn close_listener(listener: *mut Listener);
        unsafe fn close_comm(comm: *mut Comm);
    }

    // Memory.
    extern "Rust" {
        unsafe fn register_memory(device: i32, range: &Range, out: &mut MemoryHandle) -> Answer;
        fn deregister_memory(handle: &MemoryHandle) -> Answer;
        fn keep_handle(address: usize);
        fn take_handle(address: usize) -> bool;
    }

    // Transfers. A request is never 0.
    extern "Rust" {
        unsafe fn start(comm: &Comm, direction: Direction, batch: &Batch<'_>, request: &mut usize) -> Answer;
        unsafe fn start_each(
            comm: &Comm,
            batch: &Batch<'_>,
            requests: &mut [usize],
            posted: &mut usize,
        ) -> Answer;
        fn test(request: usize, done: &mut bool, bytes: &mut u64) -> Answer;
        fn test_batch(requests: &mut [usize], done: &mut [i32], count: &mut i32) -> Answer;
    }
}

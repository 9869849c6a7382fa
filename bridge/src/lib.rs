//! What the C++ facade calls: declarations only. Each body, in `calls`, is one conversion and one call of the engine.
//!
//! Nothing throws across this border: a refused call answers -1 or null, and `last_error` has the reason (`refusal`).
//! A panic that reaches it aborts the process; the engine's code is linted not to have any.
#![deny(unsafe_code)]

mod calls;
mod desc;
mod gpu;
mod handles;
mod logging;
mod net;
mod pieces;
mod refusal;

use calls::engine::*;
use calls::info::*;
use calls::memory::*;
use calls::notify::*;
use calls::transfer::*;
use gpu::install_gpu_table;
use handles::{Conn, Desc, Engine, NotifyMessage};
use logging::start_logging;
use refusal::{last_error, refuse_call};

#[cxx::bridge(namespace = "flagcx::p2p::ffi")]
#[allow(
    unsafe_code,
    unreachable_pub,
    unused_qualifications,
    reason = "what the macro makes of it, for the other side of the border"
)]
mod ffi {
    /// What a transfer does, seen from the caller.
    enum Operation {
        Read,
        Write,
    }

    /// The caller's vectors: piece i moves `sizes[i]` bytes between `local[i]` in `regions[i]` and `descs[i]`. Pointers and
    /// lengths as they are: to make cxx's slices of them took longer than to look through a short transfer.
    struct Pieces {
        regions: *const u64,
        local: *const *const u8,
        sizes: *const usize,
        descs: *const Desc,
        /// 128 bytes of IPC information each.
        ipc: *const *const u8,
        region_count: usize,
        local_count: usize,
        size_count: usize,
        desc_count: usize,
        /// 0 when the caller has none.
        ipc_count: usize,
    }

    /// `FlagcxP2pXferState`.
    #[repr(u32)]
    enum XferState {
        Pending,
        Done,
        Failed,
        TimedOut,
        Cancelled,
        Unknown,
    }

    /// How a transfer stands. All but the state is empty unless it failed.
    struct XferResult {
        state: XferState,
        iov: u64,
        status: u32,
        vendor_error: u32,
        peer: String,
        reason: String,
    }

    /// `FlagcxP2pPath`.
    #[repr(u32)]
    enum Path {
        None,
        Rdma,
        InProcess,
        CrossMemory,
        Tcp,
        Shared,
    }

    /// The state of a connection.
    struct ConnInfo {
        path: Path,
        read_path: Path,
        write_path: Path,
        lanes: u32,
        healthy_lanes: u32,
        gpu_index: i32,
        local: bool,
        ours: bool,
        peer: String,
    }

    /// `FlagcxP2pRailState`.
    #[repr(u32)]
    enum RailState {
        Up,
        Paused,
        Down,
    }

    /// `FlagcxP2pRailPause`.
    #[repr(u32)]
    enum RailPause {
        Never,
        Silent,
        Errors,
        PortDown,
        DeviceLost,
    }

    /// A rail of a connection.
    struct RailInfo {
        rail: u32,
        state: RailState,
        paused_ms: u32,
        lanes: u32,
        healthy_lanes: u32,
        last_pause: RailPause,
        last_pause_ms: u64,
        pauses: u64,
        written_bytes: u64,
        read_bytes: u64,
        in_flight_bytes: u64,
        bytes_per_second: u64,
        moved_parts: u64,
        latency_ns: u64,
        nic: String,
        peer_nic: String,
    }

    /// A transfer that has not ended.
    struct SlowTransfer {
        id: u64,
        is_read: bool,
        bytes: u64,
        age_ms: u64,
        pieces: u64,
        pieces_done: u64,
        /// Bit n is lane n.
        lanes: u64,
        path: String,
        peer: String,
    }

    /// Which fabric runs, and why.
    struct FabricInfo {
        devices: u32,
        provider: String,
        reason: String,
    }

    /// A notification of any size.
    struct AnyNotification {
        name: [u8; 256],
        content: Vec<u8>,
    }

    /// What `FlagcxP2pGlobalConfig` shows.
    struct GlobalConfig {
        qps_per_conn: i32,
        workers_per_pool: i32,
        shard_count: i32,
        shared_cq_depth: usize,
        max_wr_per_post: usize,
        max_requests: usize,
        batch_poll_size: usize,
        slice_size: usize,
        fragment_limit: usize,
        max_sge: usize,
        max_inline: usize,
        ib_port: u8,
        gid_index: i32,
        mtu_length: i32,
        ib_traffic_class: i32,
        retry_cnt: i32,
        notif_max_peers: i32,
        enable_dest_dev_affinity: bool,
    }

    #[namespace = ""]
    unsafe extern "C++" {
        include!("flagcx_p2p.h");
        #[cxx_name = "FlagcxP2pRdmaDesc"]
        type Desc = crate::Desc;
        #[cxx_name = "FlagcxP2pNotifyMsg"]
        type NotifyMessage = crate::NotifyMessage;
    }

    #[namespace = ""]
    extern "Rust" {
        #[cxx_name = "FlagcxP2pEngine"]
        type Engine;
        #[cxx_name = "FlagcxP2pConn"]
        type Conn;
    }

    // The process: logging, errors, settings, devices.
    extern "Rust" {
        unsafe fn start_logging(sink: usize);
        unsafe fn install_gpu_table(read: usize);
        fn refuse_call(call: &str, reason: &str);
        fn last_error() -> String;
        fn version() -> &'static str;
        fn global_config() -> GlobalConfig;
        fn dump_global_config();
        fn accl_wanted() -> bool;
        fn fabric_info(out: &mut FabricInfo) -> i32;
        fn metrics_text(out: &mut String) -> i32;
    }

    // Engines.
    extern "Rust" {
        fn engine_create() -> *mut Engine;
        unsafe fn engine_destroy(engine: *mut Engine);
        fn engine_stop_accept(engine: &Engine);
        fn engine_rpc_port(engine: &Engine) -> i32;
        fn engine_start_rpc_server(engine: &Engine) -> i32;
        fn engine_metadata(engine: &Engine, out: &mut String) -> i32;
        fn engine_slow_transfers(engine: &Engine, older_than_ms: u32) -> Vec<SlowTransfer>;
        fn engine_here(engine: &Engine, call: &str) -> i32;
    }

    // Connections.
    extern "Rust" {
        fn engine_connect(
            engine: &Engine,
            host: &[u8],
            remote_gpu: i32,
            port: i32,
            same_process: bool,
        ) -> *mut Conn;
        fn engine_accept(engine: &Engine, ip: &mut String, remote_gpu: &mut i32) -> *mut Conn;
        fn engine_session(engine: &Engine, session: &[u8]) -> *mut Conn;
        unsafe fn conn_destroy(conn: *mut Conn);
        fn conn_is_local(conn: &Conn) -> bool;
        fn conn_info(conn: &Conn) -> ConnInfo;
        fn conn_rails(conn: &Conn) -> Vec<RailInfo>;
        fn conn_is_here(conn: &Conn) -> bool;
        fn conn_here(conn: &Conn, call: &str) -> i32;
    }

    // Memory.
    extern "Rust" {
        unsafe fn engine_register(
            engine: &Engine,
            address: usize,
            size: usize,
            flags: u32,
            id: &mut u64,
        ) -> i32;
        unsafe fn engine_register_shared(
            engine: &Engine,
            address: usize,
            size: usize,
            fd: i32,
            offset: u64,
            flags: u32,
            id: &mut u64,
        ) -> i32;
        fn engine_deregister(engine: &Engine, id: u64);
        fn engine_allocate(
            engine: &Engine,
            size: usize,
            flags: u32,
            address: &mut usize,
            id: &mut u64,
        ) -> i32;
        fn engine_free(engine: &Engine, address: usize) -> i32;
        fn free_outlived(address: usize) -> i32;
        fn engine_describe(engine: &Engine, id: u64, address: usize, size: usize, out: &mut Desc) -> i32;
        fn ipc_info(address: usize, out: &mut [u8; 128], found: &mut bool) -> i32;
        fn conn_describe_remote(conn: &Conn, address: u64, size: u32, out: &mut Desc) -> i32;
    }

    // Transfers.
    extern "Rust" {
        fn conn_start_one(
            conn: &Conn,
            operation: Operation,
            address: usize,
            size: usize,
            desc: &Desc,
            id: &mut u64,
        ) -> i32;
        fn conn_start_one_in(
            conn: &Conn,
            operation: Operation,
            region: u64,
            address: usize,
            size: usize,
            desc: &Desc,
            id: &mut u64,
        ) -> i32;
        unsafe fn conn_start(
            conn: &Conn,
            operation: Operation,
            pieces: &Pieces,
            count: i32,
            id: &mut u64,
        ) -> i32;
        unsafe fn conn_try_start(conn: &Conn, operation: Operation, pieces: &Pieces, id: &mut u64) -> i32;
        unsafe fn conn_try_start_ranges(
            conn: &Conn,
            operation: Operation,
            pieces: &Pieces,
            remote: &[u64],
            id: &mut u64,
        ) -> i32;
        unsafe fn conn_write_sync(conn: &Conn, pieces: &Pieces) -> i32;
        fn conn_batch_write_sync(conn: &Conn, local: &[u64], remote: &[u64], sizes: &[u64]) -> i32;
        fn conn_has_ended(conn: &Conn, id: u64) -> bool;
        fn conn_result(conn: &Conn, id: u64) -> XferResult;
        fn conn_wait(conn: &Conn, id: u64, timeout_ms: i32) -> XferResult;
        fn conn_cancel(conn: &Conn, id: u64) -> i32;
        fn conn_test_batch(conn: &Conn, ids: &[u64], states: &mut [u32]) -> usize;
    }

    // Notifications.
    extern "Rust" {
        fn conn_notify(conn: &Conn, message: &NotifyMessage) -> i32;
        fn take_notifications() -> Vec<NotifyMessage>;
        fn append_notification(message: &NotifyMessage);
        fn conn_notify_bytes(conn: &Conn, name: &[u8], content: &[u8]) -> i32;
        fn engine_take_notifications(engine: &Engine) -> Vec<AnyNotification>;
    }

    impl Vec<NotifyMessage> {}
}

//! What a provider must supply, and nothing else: the engine above knows devices only through this contract.
//!
//! It has two halves. **Posting** is a [`WorkQueue`] and the [`CompletionQueue`] that it completes into: all that a worker
//! needs to move bytes. **Networking** is the rest: devices, memory, addresses, connecting. A provider that moves bytes within
//! this process alone has the first half only ([`gpu`]).
//!
//! # Required of a provider
//!
//! * **Devices**: list them, describe each ([`DeviceAttributes`]), query its port.
//! * **Memory**: register a range and answer with keys; every access, local and remote, is checked against key,
//!   bounds and rights by the provider. Deregistering returns only when nothing of the provider touches the range.
//! * **Completion queue**: bounded; an fd that becomes readable after [`CompletionQueue::arm`] when a completion
//!   arrives; polled by one thread at a time (`&mut self`).
//! * **Queue pair**: reliable connected. Created in INIT, moved to RTS by [`QueuePair::connect_with`].
//!   [`WorkQueue::post`] takes a [`Batch`], accepts a prefix of it and says how many; it never waits for completions.
//!   Requests of one queue pair take effect and complete in order. A successful signaled completion retires every
//!   request posted before it on that queue pair; unsignaled requests that succeed give no completion.
//!   The first failing request moves the queue pair to ERROR and completes with its reason; every later one,
//!   signaled or not, completes with [`CompletionStatus::Flushed`]. So at most one completion per posted request.
//! * **Retirement**: after [`WorkQueue::set_error`] each outstanding request is flushed through the completion
//!   queue. Once its completion has been polled, the provider touches that request's memory no more.
//! * **Wire**: [`QpAddress`] carries all that a peer needs; it is the 40-byte record of the control handshake.
//!
//! No type of a provider's own library leaves its folder. Objects keep what they were made from alive.

use std::fmt::Debug;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::auth::AuthKey;
use crate::events::{Waiter, run_blocking};

mod batch;
mod capabilities;
mod completion;
mod device_attributes;
mod device_event;
mod direct;
mod error;
pub mod gpu;
mod hca_filter;
mod memory_range;
mod page_of_file;
mod path;
mod progress;
mod queue_handle;
mod queue_pair_address;
mod registry;
pub mod software;
#[cfg(feature = "verbs")]
pub mod verbs;
mod whole_pages;
mod work_request;

pub use batch::{Batch, Posted};
pub use capabilities::Capabilities;
pub use completion::{Completion, CompletionStatus};
pub use device_attributes::{DeviceAttributes, GidEntry, PortAttributes, Provider};
pub use device_event::DeviceEvent;
pub use direct::{DirectCopy, DirectPiece, MOST_DIRECT_PIECES, NotDirect};
pub use error::FabricError;
pub use hca_filter::HcaFilter;
pub use memory_range::{Access, Backing, DmaBuf, MemoryRange, SharedFile};
pub(crate) use page_of_file::page_of_file;
pub use path::{PathKind, Paths};
pub use progress::Progress;
pub use queue_handle::QueueHandle;
pub use queue_pair_address::{
    LINK_ETHERNET, LINK_INFINIBAND, LINK_SOFTWARE, PathOptions, QpAddress, QueuePairCaps, link_name,
};
pub use registry::{DeviceList, Selection};
pub(crate) use whole_pages::whole_pages;
pub use work_request::{MAX_SGE, Opcode, Sge, WorkRequest};

/// One port of one device. It is opened by its first use. Shared by every engine and pool of the process.
pub trait Device: Send + Sync + Debug {
    /// What does not change while the device is open.
    fn attributes(&self) -> &DeviceAttributes;

    /// Opens the device if that was not done, and tries what the engine needs of it. Other calls that use the device begin with the
    /// same; its attributes, port and GIDs can be asked for without. An error says why it cannot be used; a later call
    /// tries again.
    fn check_use(&self) -> Result<(), FabricError> {
        Ok(())
    }

    /// Whether a refusal of [`Device::check_use`] is to be told as news: true once, of a device that every need tries again.
    fn is_first_refusal(&self) -> bool {
        true
    }

    /// The port's state now, or as it was listed while the device has not been used: link, MTU, message limit, the GID in use and why it was chosen.
    fn port(&self) -> Result<PortAttributes, FabricError>;

    /// The filled entries of the port's GID table now, for operators: a read of up to 256 places.
    fn gids(&self) -> Result<Vec<GidEntry>, FabricError>;

    /// Registers `range` for local and remote access.
    ///
    /// The range must be mapped in this process (or be described by a dma-buf) for as long as the result lives;
    /// a range that is not mapped is refused with `EFAULT`.
    fn register(&self, range: &MemoryRange) -> Result<Arc<dyn MemoryRegion>, FabricError>;

    /// Creates a completion queue for at least `depth` entries.
    fn create_completion_queue(self: Arc<Self>, depth: u32) -> Result<Box<dyn CompletionQueue>, FabricError>;

    /// Creates a reliable connected queue pair in state INIT, with all completions going to `queue`
    /// (one of this device's own). May block for a command of the device; the queue may be polled meanwhile.
    fn create_queue_pair(
        self: Arc<Self>,
        queue: &QueueHandle,
        caps: &QueuePairCaps,
    ) -> Result<Box<dyn QueuePair>, FabricError>;

    /// The next asynchronous event (port down, queue pair fatal, ...), or `None` when there is none now. Waits for none, but
    /// may ask the device for its port and its addresses. [`Device::event_fd`] becomes readable when there is one.
    fn poll_event(&self) -> Option<DeviceEvent>;

    /// The fd to wait on for [`Device::poll_event`]; `None` for a device that has no events.
    fn event_fd(&self) -> Option<BorrowedFd<'_>>;
}

/// A registered range. Dropping the last reference deregisters; [`MemoryRegion::revoke`] does so with a bound.
pub trait MemoryRegion: Send + Sync + Debug {
    /// Key for use as a local buffer, on the device that it was registered on.
    fn lkey(&self) -> u32;
    /// Key that a peer presents.
    fn rkey(&self) -> u32;
    /// Lets no access begin any more, where that takes no time. Those under way go on until [`MemoryRegion::revoke`] says
    /// that they have ended. A caller that ends many ranges calls this for all of them before it waits for one. Idempotent.
    fn close(&self) {}
    /// Ends access and waits until none is under way, at the latest until `deadline`. A process that has not released it in a
    /// second once is waited for much shorter from then on: it must not cost its patience for each range.
    ///
    /// [`FabricError::StillInUse`] says what holds the range (a stopped peer in the middle of a copy); the range must then stay
    /// mapped. Idempotent.
    fn revoke(&self, deadline: Instant) -> Result<(), FabricError>;
}

/// A completion queue. Owned by one worker, which is the only one to poll it.
pub trait CompletionQueue: Send + Debug {
    /// Moves up to `out.len()` completions into `out` and says how many. Zero means none now.
    ///
    /// A device that moves bytes by the CPU does so in here, up to about 1 MiB in a call, unless that was
    /// [detached](CompletionQueue::detach_progress).
    fn poll(&mut self, out: &mut [Completion]) -> Result<usize, FabricError>;

    /// Takes the moving of bytes out of [`CompletionQueue::poll`]: from then on it is made by the answer, on any thread and
    /// without the lock under which the queue is polled. `None`: the device works by itself.
    fn detach_progress(&mut self) -> Option<Arc<dyn Progress>> {
        None
    }

    /// Asks that [`CompletionQueue::fd`] become readable with the next completion.
    ///
    /// `Ok(false)`: there is something to poll already (or work that only polling advances); do not sleep.
    fn arm(&mut self) -> Result<bool, FabricError>;

    /// Consumes the readiness of [`CompletionQueue::fd`] after a wake-up. Harmless when there is none.
    fn acknowledge(&mut self) -> Result<(), FabricError>;

    /// Readable after [`CompletionQueue::arm`] once there is something to poll.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Entries it was created with (what the provider granted, at least what was asked).
    fn depth(&self) -> u32;

    /// What [`Device::create_queue_pair`] takes, wherever the queue itself is.
    fn handle(&self) -> QueueHandle;
}

/// A connect that has not ended.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = Result<(), FabricError>> + 'a>>;

/// A reliable connected queue pair: a [`WorkQueue`] that leads to a peer.
pub trait QueuePair: WorkQueue {
    /// What the peer needs to connect to this queue pair.
    fn address(&self) -> QpAddress;

    /// Moves the queue pair from INIT to RTS towards `peer`, at most until `path.deadline`. Waits for the peer by `waiter`.
    fn connect_with<'a>(
        &'a mut self,
        peer: &'a QpAddress,
        path: &'a PathOptions,
        waiter: &'a Waiter,
    ) -> Connecting<'a>;

    /// Whether [`QueuePair::connect_with`] waits for nothing and blocks instead, for commands of the device.
    fn connects_by_commands(&self) -> bool {
        true
    }

    /// [`QueuePair::connect_with`], which blocks.
    fn connect(&mut self, peer: &QpAddress, path: &PathOptions) -> Result<(), FabricError> {
        run_blocking(self.connect_with(peer, path, &Waiter::blocking(None)))
    }
}

/// What work requests are posted to; the posting half of a queue pair.
pub trait WorkQueue: Send + Debug {
    /// What was granted: send depth, scatter/gather entries, inline bytes. Each may be less than was asked.
    fn caps(&self) -> QueuePairCaps;

    /// Posts the requests of `batch` in order. Never blocks, and moves no bytes itself.
    ///
    /// Accepts a prefix. A queue pair in ERROR accepts everything and flushes it.
    fn post(&mut self, batch: &Batch<'_>) -> Posted;

    /// Posts one RDMA WRITE of no bytes, signaled, which completes under `id`; `remote` are an address and a key of the peer's, which need not
    /// be checked. [`libc::EOPNOTSUPP`] from a queue without a peer.
    fn post_empty(&mut self, id: u64, remote: (u64, u32)) -> Posted {
        let _ = (id, remote);
        Posted::cut(0, libc::EOPNOTSUPP)
    }

    /// Moves the queue pair to ERROR: what is outstanding completes as [`CompletionStatus::Flushed`]. Idempotent.
    fn set_error(&mut self) -> Result<(), FabricError>;

    /// True once the queue pair is in ERROR, by itself or by [`WorkQueue::set_error`], or one of its ends is gone: the
    /// peer, or the address that it was made with.
    fn is_broken(&self) -> bool;

    /// True once the queue pair is in ERROR because it has refused a request of the peer. Known late, or never, where only an event of the
    /// device says so.
    fn has_refused(&self) -> bool {
        false
    }

    /// How bytes travel now, once connected: for logs, metrics and tools. A path that fails may be left for another one.
    fn paths(&self) -> Paths;

    /// The slower of [`WorkQueue::paths`].
    fn path(&self) -> PathKind {
        self.paths().slower()
    }

    /// Whether [`WorkQueue::set_error`], or dropping the queue, makes an end of requests that are under way. Where it does
    /// not, these complete when they are done, however long that takes, and their memory must stay until then.
    fn can_stop(&self) -> bool {
        true
    }

    /// Destroys the queue pair, and says if that did not succeed: then its device may still be at work on it. Blocks for commands of the device.
    fn destroy(self: Box<Self>) -> Result<(), FabricError> {
        Ok(())
    }

    /// Copies by the thread that starts a transfer, once connected; `None` where a device moves the bytes. Dropping the queue
    /// waits for those under way, and allows no others.
    fn direct(&self) -> Option<Arc<dyn DirectCopy>> {
        None
    }

    /// Whether the completion of a failure names the request that failed. Some devices name the oldest that is outstanding, which
    /// need not be the one.
    fn names_failed_request(&self) -> bool {
        true
    }

    /// Whether a request that finds no way to the peer may end as a local queue pair operation error, which then says nothing of the
    /// request.
    fn path_fails_as_local(&self) -> bool {
        false
    }

    /// Makes a drained queue in ERROR usable again. Only for a queue without a peer: a queue pair needs its peer's agreement.
    fn renew(&mut self) -> Result<(), FabricError> {
        Err(FabricError::Unsupported("a queue pair is rebuilt with its peer".to_owned()))
    }

    /// Why it is in ERROR, as far as the provider can say more than its completions do; empty if it cannot.
    fn error_text(&self) -> String {
        String::new()
    }
}

/// Which provider family to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FabricChoice {
    /// Verbs when an active RDMA port exists, else software.
    #[default]
    Auto,
    /// Verbs only.
    Verbs,
    /// Software only.
    Software,
}

/// What `devices()` needs to know of the configuration. Plain data, so the fabric does not depend on `config`.
#[derive(Clone, Debug, Default)]
pub struct FabricOptions {
    /// Provider family.
    pub choice: FabricChoice,
    /// `FLAGCX_IB_DISABLE`: no verbs, whatever else is asked.
    pub verbs_disabled: bool,
    /// Options of the verbs provider.
    pub verbs: VerbsOptions,
    /// Options of the software provider.
    pub software: SoftwareOptions,
}

/// Options of the verbs provider (contract 4.3).
#[derive(Clone, Debug)]
pub struct VerbsOptions {
    /// `FLAGCX_IB_HCA`: list of devices, empty for all.
    pub hca: String,
    /// GID index to use as it is; `None` chooses.
    pub gid_index: Option<u8>,
    /// Wanted RoCE version when the GID is chosen.
    pub roce_version: u8,
    /// Wanted address family when the GID is chosen: false IPv4, true IPv6.
    pub prefer_ipv6: bool,
    /// `address/prefix` that a chosen GID must lie in; empty for any.
    pub address_range: String,
    /// Local ACK timeout exponent (4.096 us * 2^n), 0..=31.
    pub timeout: u8,
    /// Transport retries, 0..=7.
    pub retry_count: u8,
    /// Index into the port's P_Key table.
    pub pkey_index: u16,
    /// Service level, 0..=15.
    pub service_level: u8,
    /// Traffic class of packets with a global route header; `None` for the device's default, and 0 where it has none.
    pub traffic_class: Option<u8>,
    /// Largest path MTU in bytes.
    pub max_mtu: u32,
    /// Port to use; `None` takes every active port.
    pub port: Option<u8>,
    /// Register with relaxed ordering where the library can.
    pub relaxed_ordering: bool,
    /// libibverbs to load instead of `libibverbs.so.1`.
    pub library: Option<String>,
    /// The kernel's files: `/sys`, or a copy of a machine's.
    pub sysfs: PathBuf,
}

impl Default for VerbsOptions {
    fn default() -> Self {
        Self {
            hca: String::new(),
            gid_index: None,
            roce_version: 2,
            prefer_ipv6: false,
            address_range: String::new(),
            timeout: 18,
            retry_count: 7,
            pkey_index: 0,
            service_level: 0,
            traffic_class: None,
            max_mtu: 4096,
            port: None,
            relaxed_ordering: true,
            library: None,
            sysfs: PathBuf::from("/sys"),
        }
    }
}

/// Options of the software provider.
#[derive(Clone, Debug, Default)]
pub struct SoftwareOptions {
    /// Address of the data listener; `None` chooses as the control plane does (the interface of contract 4.3).
    pub bind: Option<IpAddr>,
    /// The address of the data listener that peers are told; `None` for the one that it is bound to.
    pub advertise: Option<IpAddr>,
    /// Ports of the data listener, inclusive; `None` lets the kernel choose.
    pub ports: Option<(u16, u16)>,
    /// Path to force; `None` takes the best that works. A forced path that does not work fails to connect.
    pub force: Option<PathKind>,
    /// Pre-shared key for the data sockets' hello; `None` for no authentication.
    pub auth_key: Option<AuthKey>,
    /// Networks that may connect to the data listener; empty for everyone.
    pub allow: Vec<IpNet>,
    /// Faults to inject, in the text form of [`software::FaultPlan`]; empty for none. For tests.
    pub faults: String,
    /// The devices have [`software::FaultSwitches`], and no direct copies. For tests.
    pub switches: bool,
    /// Number of software devices to list, at least 1.
    pub device_count: u32,
    /// The data thread does not poll before it sleeps: `FLAGCX_P2P_SPIN_US` is 0.
    pub sleeps_at_once: bool,
    /// How long a client of the data listener may take to say what it wants, where there is no key: 5 s if this is less.
    pub handshake_timeout: Duration,
}

//! The plain data that crosses the provider contract.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::RawFd;
use std::time::Instant;

use super::Capabilities;

/// Largest scatter/gather list that a work request may carry.
pub const MAX_SGE: usize = 32;

/// Provider families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Provider {
    /// libibverbs.
    Verbs,
    /// The software fabric of this crate.
    Software,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Verbs => "verbs",
            Self::Software => "software",
        })
    }
}

/// What does not change while a device is open.
#[derive(Clone, Debug)]
pub struct DeviceAttributes {
    /// Provider family.
    pub provider: Provider,
    /// Kernel name (`mlx5_0`, `sw0`).
    pub name: String,
    /// Port number in use, from 1.
    pub port: u8,
    /// Node GUID, host order, never zero.
    pub guid: u64,
    /// Resolved sysfs path of the device, always an existing path for the software device.
    pub pci_path: Option<String>,
    /// Work requests a queue pair may hold.
    pub max_queue_depth: u32,
    /// Entries a completion queue may hold.
    pub max_cq_depth: u32,
    /// Queue pairs the device can hold.
    pub max_queue_pairs: u32,
    /// Scatter/gather entries per request.
    pub max_sge: u32,
    /// Largest region in bytes.
    pub max_region: u64,
    /// READs and atomics that a queue pair may have outstanding as initiator.
    pub max_rd_atomic_initiator: u8,
    /// READs and atomics that a queue pair accepts as responder.
    pub max_rd_atomic_responder: u8,
    /// Whether dma-buf registration is offered.
    pub dma_buf: bool,
    /// What it can do otherwise, and what it needs.
    pub capabilities: Capabilities,
}

/// The state of a port.
#[derive(Clone, Debug)]
pub struct PortAttributes {
    /// Whether traffic can flow.
    pub active: bool,
    /// Link layer byte of the wire: 1 InfiniBand, 2 Ethernet, 0x53 software.
    pub link_layer: u8,
    /// Active path MTU in bytes.
    pub mtu: u32,
    /// Largest message of one work request, in bytes.
    pub max_message: u32,
    /// Speed in Mbit/s.
    pub speed_mbps: u32,
    /// Local identifier (InfiniBand), 0 otherwise.
    pub lid: u32,
    /// GID in use.
    pub gid: [u8; 16],
    /// Its index in the port's table.
    pub gid_index: u8,
    /// Why this GID, in words for an operator.
    pub gid_reason: String,
}

/// One filled entry of a port's GID table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GidEntry {
    /// Place in the table.
    pub index: u8,
    /// The GID, network order.
    pub gid: [u8; 16],
    /// RoCE version, 1 or 2; `None` where there is none or the kernel does not say.
    pub roce_version: Option<u8>,
    /// Network interface that it belongs to, where the kernel says.
    pub netdev: Option<String>,
}

/// A range to register.
#[derive(Clone, Copy, Debug)]
pub struct MemoryRange {
    /// Start, as the engine's callers name it.
    pub address: u64,
    /// Length in bytes, more than zero.
    pub length: u64,
    /// Rights.
    pub access: Access,
    /// Where the bytes are, if not simply at `address`.
    pub dma_buf: Option<DmaBuf>,
    /// The file that is mapped at `address`, if other processes of this host may map it too.
    pub file: Option<SharedFile>,
    /// Where the CPU sees the bytes, if not at `address`: GPU memory that was mapped to be registered. The mapping
    /// is needed during the call only, and the keys count from `address` all the same.
    pub cpu_address: Option<u64>,
    /// What is behind it, as far as the caller has looked.
    pub backing: Backing,
    /// Whether peers are told of it. The software fabric shows a range that is not announced to no process that has not
    /// named its key; a NIC makes no difference.
    pub announced: bool,
}

/// The file that the pages of a range belong to, for the software fabric: a peer of the same user maps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedFile {
    /// Its file descriptor; borrowed for the call.
    pub fd: RawFd,
    /// Where the range begins in it, in bytes: a multiple of its page size if the range begins on a page.
    pub offset: u64,
    /// This process made it, sealed it against shrinking, reserved its pages and punches no holes: an access never faults.
    /// Another one's pages are copied by the kernel, which answers an error where an instruction would be a signal.
    pub is_own: bool,
}

/// What is behind a range of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backing {
    /// Not looked at: the provider finds out whether the range is mapped.
    #[default]
    Unknown,
    /// Private anonymous memory, or a file of this process ([`SharedFile::is_own`]), mapped from end to end: accessible
    /// until this process unmaps or protects it.
    Anonymous,
    /// Mapped from end to end, and not all of it anonymous: a file, shared memory, huge pages, a device. Bytes that are
    /// accessible now may not be later, as when another process truncates the file.
    Mapped,
}

/// A dma-buf that backs a range.
#[derive(Clone, Copy, Debug)]
pub struct DmaBuf {
    /// File descriptor of the dma-buf; borrowed for the call.
    pub fd: RawFd,
    /// Offset of the range in it.
    pub offset: u64,
}

/// Rights of a region. Local reading is always allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The owner may have data written into it.
    pub local_write: bool,
    /// Peers may write.
    pub remote_write: bool,
    /// Peers may read.
    pub remote_read: bool,
    /// Peers may do atomics.
    pub remote_atomic: bool,
    /// Writes may arrive out of order within a message (PCIe relaxed ordering), if the provider can.
    pub relaxed_ordering: bool,
}

impl Access {
    /// All rights, relaxed ordering allowed: what the engine registers with.
    pub const FULL: Self = Self {
        local_write: true,
        remote_write: true,
        remote_read: true,
        remote_atomic: true,
        relaxed_ordering: true,
    };

    /// Peers may read it, and nothing may change it.
    pub const READ_ONLY: Self = Self::FULL.for_reading();

    /// Without those rights by which the memory would be changed.
    #[must_use]
    pub const fn for_reading(self) -> Self {
        Self { local_write: false, remote_write: false, remote_atomic: false, ..self }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("local read")?;
        [
            (self.local_write, ", local write"),
            (self.remote_read, ", remote read"),
            (self.remote_write, ", remote write"),
            (self.remote_atomic, ", remote atomic"),
        ]
        .iter()
        .filter(|(given, _)| *given)
        .try_for_each(|(_, right)| f.write_str(right))
    }
}

/// Sizes of a queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePairCaps {
    /// Work requests that may be outstanding.
    pub send_depth: u32,
    /// Scatter/gather entries per request.
    pub max_sge: u32,
    /// Bytes that may be sent inline.
    pub max_inline: u32,
}

/// All that a peer needs to reach a queue pair: the 40-byte record of the control handshake.
///
/// The software fabric uses link layer 0x53: `gid` is the data listener's IP (v4-mapped or v6), `lid` its TCP port,
/// `qpn` a number unique in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QpAddress {
    /// Queue pair number.
    pub qpn: u32,
    /// GID, network order.
    pub gid: [u8; 16],
    /// Port number.
    pub port: u8,
    /// Link layer: 1 InfiniBand, 2 Ethernet, 0x53 software.
    pub link_layer: u8,
    /// Local identifier, or TCP port.
    pub lid: u32,
    /// Path MTU as the verbs enumeration: 1 = 256 ... 5 = 4096.
    pub mtu: u8,
}

/// Link layer byte: InfiniBand.
pub const LINK_INFINIBAND: u8 = 1;
/// Link layer byte: Ethernet (RoCE).
pub const LINK_ETHERNET: u8 = 2;
/// Link layer byte: the software fabric.
pub const LINK_SOFTWARE: u8 = 0x53;

impl QpAddress {
    /// The GID read as an IP address (v4-mapped becomes v4).
    pub fn ip(&self) -> IpAddr {
        Ipv6Addr::from(self.gid).to_canonical()
    }
}

/// How to connect a queue pair.
#[derive(Clone, Copy, Debug)]
pub struct PathOptions {
    /// READs and atomics that this side may have outstanding. 1 towards a peer that does not say more.
    pub rd_atomic_initiator: u8,
    /// READs and atomics that this side accepts from the peer.
    pub rd_atomic_responder: u8,
    /// When to give up.
    pub deadline: Instant,
}

/// What a work request does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// RDMA WRITE: local to remote.
    #[default]
    Write = 0,
    /// RDMA READ: remote to local.
    Read = 1,
}

/// One scatter/gather entry. Same layout as `struct ibv_sge`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Sge {
    /// Local address.
    pub address: u64,
    /// Bytes.
    pub length: u32,
    /// Local key.
    pub lkey: u32,
}

/// One request as posted. Its local buffer is `entries[first_sge..first_sge + sge_count]` of its [`super::Batch`], which
/// also says what it does and what its completion is called.
#[derive(Clone, Copy, Debug)]
pub struct WorkRequest {
    /// Remote address.
    pub remote_address: u64,
    /// Remote key.
    pub rkey: u32,
    /// Index of its first entry in the batch's entries.
    pub first_sge: u32,
    /// The poster's own note; providers do not look at it.
    pub origin: u32,
    /// Number of entries, 1..=[`MAX_SGE`].
    pub sge_count: u8,
    /// The payload may be copied at post time, which spares a NIC a look at memory; WRITE only, at most the queue pair's
    /// `max_inline` bytes, of host memory that the CPU can read. Its entries have keys and stay as they are until the
    /// request completes, as those of any other: not every provider copies.
    pub inline: bool,
}

/// One completion as polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The request's id: [`super::Batch::id`].
    pub id: u64,
    /// How it ended.
    pub status: CompletionStatus,
    /// The vendor's own code, 0 if none.
    pub vendor_error: u32,
}

impl Default for Completion {
    fn default() -> Self {
        Self { id: 0, status: CompletionStatus::Success, vendor_error: 0 }
    }
}

/// Completion statuses, numbered as `enum ibv_wc_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CompletionStatus {
    /// Done.
    Success = 0,
    /// The local buffers' length is wrong for the request.
    LocalLength = 1,
    /// The queue pair cannot do this.
    LocalQpOperation = 2,
    /// A local key, bound or right does not fit.
    LocalProtection = 4,
    /// Not done: the queue pair was in ERROR.
    Flushed = 5,
    /// The peer's answer is malformed.
    BadResponse = 7,
    /// The peer cannot take such a request.
    RemoteInvalidRequest = 9,
    /// A remote key, bound or right does not fit.
    RemoteAccess = 10,
    /// The peer failed while doing it.
    RemoteOperation = 11,
    /// No answer within timeout and retries: peer dead or path broken.
    RetryExceeded = 12,
    /// The peer was never ready to receive.
    RnrRetryExceeded = 13,
    /// The device itself failed.
    Fatal = 19,
    /// Anything else.
    General = 21,
}

impl CompletionStatus {
    /// From the number of `enum ibv_wc_status`; unknown ones become [`CompletionStatus::General`].
    #[doc(hidden)]
    pub fn from_code(code: u32) -> Self {
        match code {
            0 => Self::Success,
            1 => Self::LocalLength,
            2 => Self::LocalQpOperation,
            4 | 8 => Self::LocalProtection,
            5 => Self::Flushed,
            7 => Self::BadResponse,
            9 => Self::RemoteInvalidRequest,
            10 => Self::RemoteAccess,
            11 => Self::RemoteOperation,
            12 => Self::RetryExceeded,
            13 => Self::RnrRetryExceeded,
            19 => Self::Fatal,
            _ => Self::General,
        }
    }
}

impl fmt::Display for CompletionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Success => "success",
            Self::LocalLength => "local length error",
            Self::LocalQpOperation => "local queue pair operation error",
            Self::LocalProtection => "local protection error",
            Self::Flushed => "flushed: the queue pair was in ERROR",
            Self::BadResponse => "bad response from the peer",
            Self::RemoteInvalidRequest => "remote invalid request",
            Self::RemoteAccess => "remote access error: key, bounds or rights",
            Self::RemoteOperation => "remote operation error",
            Self::RetryExceeded => "transport retries exceeded: peer dead or path broken",
            Self::RnrRetryExceeded => "receiver-not-ready retries exceeded",
            Self::Fatal => "device fatal error",
            Self::General => "general error",
        })
    }
}

/// What a device says on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceEvent {
    /// The port went down.
    PortDown,
    /// The port came (back) up.
    PortUp,
    /// The queue pair with this number is in ERROR.
    QueuePairFatal(u32),
    /// A completion queue was overrun or lost.
    CompletionQueueFatal,
    /// The device is gone or must be reset.
    DeviceFatal,
    /// The GID, LID or P_Key table changed.
    AddressChange,
    /// Something else, by its number.
    Other(u32),
}

impl DeviceEvent {
    /// Its kind in one word: a metric's label.
    pub fn kind(self) -> &'static str {
        match self {
            Self::PortDown => "port-down",
            Self::PortUp => "port-up",
            Self::QueuePairFatal(_) => "queue-pair-fatal",
            Self::CompletionQueueFatal => "completion-queue-fatal",
            Self::DeviceFatal => "device-fatal",
            Self::AddressChange => "address-change",
            Self::Other(_) => "other",
        }
    }
}

impl fmt::Display for DeviceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortDown => f.write_str("the port went down"),
            Self::PortUp => f.write_str("the port is up"),
            Self::QueuePairFatal(number) => write!(f, "queue pair {number} has failed"),
            Self::CompletionQueueFatal => f.write_str("a completion queue was overrun or lost"),
            Self::DeviceFatal => f.write_str("the device has failed or was removed"),
            Self::AddressChange => f.write_str("the port's GID, LID or P_Key table has changed"),
            Self::Other(number) => write!(f, "asynchronous event {number}"),
        }
    }
}

//! Memory to register, and the rights to it.

use std::fmt;
use std::os::fd::RawFd;

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

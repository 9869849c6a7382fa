//! What is posted on a work queue.

/// Largest scatter/gather list that a work request may carry.
pub const MAX_SGE: usize = 32;

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

//! Copies by the thread that starts a transfer, where the CPU moves the bytes anyway.

use std::fmt::Debug;

use super::Opcode;

/// Copies between a queue pair's two ends by the calling thread: for transfers so small that queueing them costs more than the
/// copy. Any thread may call it, beside others and beside the requests of the queue pair, with which it has no order.
pub trait DirectCopy: Send + Sync + Debug {
    /// Copies all pieces, at most [`MOST_DIRECT_PIECES`]. Every access is checked as that of a request: key, bounds and rights.
    ///
    /// [`NotDirect`] says nothing of the reason, and reports nothing to the peer: the same transfer is to be posted as requests,
    /// which end as they do. Some bytes may have been copied then, and are copied again.
    fn copy(&self, opcode: Opcode, pieces: &[DirectPiece]) -> Result<(), NotDirect>;
}

/// A piece of a transfer: a range on either side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectPiece {
    /// Local address.
    pub local: u64,
    /// Remote address.
    pub remote: u64,
    /// Bytes.
    pub length: u64,
    /// Local key.
    pub lkey: u32,
    /// Remote key.
    pub rkey: u32,
}

/// The transfer is not plainly possible by a direct copy now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotDirect;

/// Pieces that one direct copy takes.
pub const MOST_DIRECT_PIECES: usize = 16;

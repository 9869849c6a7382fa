//! What a worker is given to move: validated pieces, and what must stay alive until they have moved.

use crate::fabric::Opcode;
use crate::memory::Hold;

/// One contiguous range on both sides, validated, at most [`Piece::MAX_LENGTH`] long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Local address.
    pub local: u64,
    /// Remote address.
    pub remote: u64,
    /// Bytes.
    pub length: u32,
    /// Local key.
    pub lkey: u32,
    /// Remote key.
    pub rkey: u32,
    /// Index of the (first) iov of the caller that it came from.
    pub iov: u32,
}

impl Piece {
    /// Longest piece; longer iovs become several.
    pub const MAX_LENGTH: u32 = 1 << 31;
}

/// The pieces of one part of a transfer, in posting order.
#[derive(Debug)]
pub struct PieceList {
    /// The pieces.
    pub pieces: Vec<Piece>,
    /// Keeps the local regions registered until the part has ended.
    pub holds: Vec<Hold>,
    /// What to do with them.
    pub opcode: Opcode,
    /// All local memory is host memory, so small WRITEs may go inline.
    pub inline: bool,
    /// This is the first part of its transfer: where the transfer is counted.
    pub first: bool,
}

impl Default for PieceList {
    fn default() -> Self {
        Self { pieces: Vec::new(), holds: Vec::new(), opcode: Opcode::Write, inline: false, first: false }
    }
}

impl PieceList {
    /// Largest capacity that is kept for reuse: 1 MiB of pieces.
    const KEEP: usize = 1 << 15;

    /// Empties the list for reuse, giving back the memory of an unusually long one.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.holds.clear();
        if self.pieces.capacity() > Self::KEEP {
            self.pieces.shrink_to(Self::KEEP);
        }
    }
}

//! From the caller's iovs to the pieces of a direct copy.

use super::{Iov, IovSource};
use crate::fabric::{DirectPiece, MOST_DIRECT_PIECES, Opcode};
use crate::memory::Registry;

/// Bytes of a transfer that its caller copies at most: 64 KiB take 7 us, so that a call which starts a transfer still ends soon.
/// Between two processes of a host the median of a WRITE fell from 2.95 to 1.90 us for 4 KiB, from 10.6 to 9.4 us for 16 x
/// 4 KiB, and from 7.8 to 6.8 us for 64 KiB; of 256 KiB the queue costs a fiftieth.
pub const LONGEST_DIRECT: u64 = 64 << 10;

/// The pieces of a small transfer, at most `N`: one, or [`MOST_DIRECT_PIECES`]. For a single one the larger array took a tenth of
/// the time of the whole call.
#[derive(Debug)]
pub struct DirectPieces<const N: usize> {
    pieces: [DirectPiece; N],
    count: usize,
    /// Of all pieces.
    pub bytes: u64,
}

impl<const N: usize> DirectPieces<N> {
    /// The pieces of a transfer that is small enough, as far as this side can say; `None` leaves the transfer, and the reason, to
    /// [`super::build()`]. What the peer's regions hold and allow is not looked up here: the direct copy asks the peer's own table,
    /// and where that refuses the transfer is built as any other.
    #[inline]
    pub fn of<S: IovSource + ?Sized>(source: &S, local: &Registry, opcode: Opcode) -> Option<Self> {
        let count = source.len();
        if count > N.min(MOST_DIRECT_PIECES) {
            return None;
        }
        let bytes = source.lengths().fold(0_u64, u64::saturating_add);
        if bytes == 0 || bytes > LONGEST_DIRECT {
            return None;
        }
        let mut all = Self { pieces: [DirectPiece::default(); N], count: 0, bytes };
        for iov in source.iovs(0..count) {
            let lkey = local.host_key(iov.region, iov.local, iov.length, opcode == Opcode::Read)?;
            if iov.length > u64::from(iov.remote.size) {
                return None;
            }
            if iov.length > 0 {
                *all.pieces.get_mut(all.count)? = piece(&iov, lkey);
                all.count += 1;
            }
        }
        Some(all)
    }

    /// The pieces, none of them empty.
    pub fn pieces(&self) -> &[DirectPiece] {
        self.pieces.get(..self.count).unwrap_or_default()
    }
}

fn piece(iov: &Iov, lkey: u32) -> DirectPiece {
    let Iov { local, length, remote, .. } = *iov;
    DirectPiece { local, remote: remote.address, length, lkey, rkey: remote.rkey }
}

//! From the caller's iovs to the pieces of a direct copy.

use super::{Iov, IovSource};
use crate::fabric::{DirectPiece, MOST_DIRECT_PIECES, Opcode};
use crate::memory::{MemoryKind, Region, Registry, RemoteCheck, RemoteRegions, RemoteTable, Snapshot, holds};

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
    /// The pieces of a transfer that is small enough, if each of them is plainly valid; `None` leaves the transfer, and the
    /// reason, to [`super::build()`].
    #[inline]
    pub fn of<S: IovSource + ?Sized>(
        source: &S,
        local: &Registry,
        remote: &RemoteRegions,
        opcode: Opcode,
    ) -> Option<Self> {
        let count = source.len();
        if count > N.min(MOST_DIRECT_PIECES) {
            return None;
        }
        let bytes = source.lengths().fold(0_u64, u64::saturating_add);
        if bytes == 0 || bytes > LONGEST_DIRECT {
            return None;
        }
        let (regions, table) = (local.snapshot(), remote.table());
        let mut all = Self { pieces: [DirectPiece::default(); N], count: 0, bytes };
        for iov in source.iovs(0..count) {
            let region = local_region(&iov, &regions, opcode)?;
            if !may_reach(&iov, &table, opcode) {
                return None;
            }
            if iov.length > 0 {
                *all.pieces.get_mut(all.count)? = piece(&iov, region);
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

fn local_region<'a>(iov: &Iov, regions: &'a Snapshot, opcode: Opcode) -> Option<&'a Region> {
    let region = match iov.region {
        Some(id) => regions.by_id(id)?,
        None => regions.by_address(iov.local, iov.length)?,
    };
    let may = region.kind == MemoryKind::Host && (opcode == Opcode::Write || region.access.local_write);
    (may && holds(region.address, region.length, iov.local, iov.length)).then_some(region)
}

/// Whether nothing that is known here of the peer's regions forbids it. The fabric knows the others.
fn may_reach(iov: &Iov, table: &RemoteTable, opcode: Opcode) -> bool {
    iov.length <= u64::from(iov.remote.size)
        && match table.check(iov.remote.rkey, iov.remote.address, iov.length) {
            RemoteCheck::Inside(region) => !(region.read_only && opcode == Opcode::Write),
            RemoteCheck::UnknownKey => true,
            RemoteCheck::Outside | RemoteCheck::Removed => false,
        }
}

fn piece(iov: &Iov, region: &Region) -> DirectPiece {
    let Iov { local, length, remote, .. } = *iov;
    DirectPiece { local, remote: remote.address, length, lkey: region.lkey, rkey: remote.rkey }
}

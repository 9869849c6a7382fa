//! Small transfers that the calling thread copies by itself: no change of thread, no lock of a worker, no id.

use std::time::Instant;

use super::Connection;
use super::lane_choice::thread_hint;
use crate::fabric::{MOST_DIRECT_PIECES, Opcode};
use crate::pool::{DirectLane, LaneHealth};
use crate::transfer::{DirectPieces, IovSource};

impl Connection {
    /// Copies a transfer that is small and plainly valid. False, and it is to be started as any other, which reports what was
    /// in the way: a direct copy reports nothing.
    #[cold]
    #[inline(never)]
    pub(super) fn copy_directly<S: IovSource + ?Sized>(&self, opcode: Opcode, iovs: &S) -> bool {
        if self.is_open() || self.is_open_with_rails() {
            self.copy_now(opcode, iovs)
        } else {
            self.copy_in_span(opcode, iovs)
        }
    }

    /// [`Connection::copy_directly`] of a connection that takes no transfers, or has a span for each. The span of a copy that
    /// is refused is that of the transfer which then takes the other way.
    #[cold]
    #[inline(never)]
    fn copy_in_span<S: IovSource + ?Sized>(&self, opcode: Opcode, iovs: &S) -> bool {
        if self.require_open().is_err() {
            return false;
        }
        self.be_seen();
        let begun = Instant::now();
        let is_copied = self.copy_now(opcode, iovs);
        if is_copied {
            self.span_of_copy(opcode, iovs, begun);
        }
        is_copied
    }

    #[inline(always)]
    fn copy_now<S: IovSource + ?Sized>(&self, opcode: Opcode, iovs: &S) -> bool {
        let Some(lane) = self.lane_of(thread_hint()) else { return false };
        if lane.status.health() != LaneHealth::Healthy {
            return false;
        }
        match iovs.len() {
            1 => self.copy_pieces::<1, S>(&lane.status.direct, opcode, iovs),
            _ => self.copy_pieces::<MOST_DIRECT_PIECES, S>(&lane.status.direct, opcode, iovs),
        }
    }

    #[inline(always)]
    fn copy_pieces<const N: usize, S: IovSource + ?Sized>(
        &self,
        direct: &DirectLane,
        opcode: Opcode,
        iovs: &S,
    ) -> bool {
        let all = DirectPieces::<N>::of(iovs, &self.context.registry, opcode);
        let Some(all) = all else { return false };
        direct.copy(opcode, all.pieces(), all.bytes, &self.context.pool).is_ok()
    }
}

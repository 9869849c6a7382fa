//! Small transfers that the calling thread copies by itself: no change of thread, no lock of a worker, no id.

use super::Connection;
use super::submit::thread_hint;
use crate::fabric::{MOST_DIRECT_PIECES, NotDirect, Opcode};
use crate::pool::{DirectLane, LaneHealth};
use crate::transfer::{DirectPieces, IovSource};

impl Connection {
    /// Copies a transfer that is small and plainly valid. False, and it is to be started as any other, which reports what was
    /// in the way: a direct copy reports nothing.
    #[cold]
    #[inline(never)]
    pub(super) fn copy_directly<S: IovSource + ?Sized>(&self, opcode: Opcode, iovs: &S) -> bool {
        if !self.is_open() {
            return false;
        }
        let Some(lane) = self.lanes.get(self.own_lane(thread_hint())) else { return false };
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
        let all = DirectPieces::<N>::of(iovs, &self.context.registry, &self.remote, opcode);
        let Some(all) = all else { return false };
        // Threads of one lane differ by this number, and so mostly count apart.
        let thread = thread_hint() / self.lanes.len().max(1);
        match direct.copy(opcode, all.pieces(), all.bytes, thread) {
            Ok(latency) => {
                if let Some(latency) = latency {
                    self.context.pool.note_direct(latency);
                }
                true
            }
            Err(NotDirect) => false,
        }
    }
}

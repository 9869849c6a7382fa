//! Small transfers that the calling thread copies by itself: no change of thread, no lock of a worker, no id.

use std::time::Instant;

use super::Connection;
use super::route::Remote;
use super::submit::thread_hint;
use crate::fabric::Opcode;
use crate::pool::LaneHealth;
use crate::transfer::{DirectPieces, IovSource};

impl Connection {
    /// Copies a transfer that is small and plainly valid. False, and it is to be started as any other, which reports what was
    /// in the way: a direct copy reports nothing.
    #[inline(never)]
    pub(super) fn copy_directly<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
        remote: Remote<'_>,
    ) -> bool {
        if !self.is_open() || !matches!(remote, Remote::Described) {
            return false;
        }
        let Some(lane) = self.lanes.get(self.own_lane(thread_hint())) else { return false };
        if lane.status.health() != LaneHealth::Healthy {
            return false;
        }
        let Some(all) = DirectPieces::of(iovs, &self.context.registry, &self.remote, opcode) else {
            return false;
        };
        let direct = &lane.status.direct;
        let since = direct.is_sampled().then(Instant::now);
        if direct.copy(opcode, all.pieces(), all.bytes).is_err() {
            return false;
        }
        if let Some(since) = since {
            self.context.pool.note_direct(since.elapsed());
        }
        true
    }
}

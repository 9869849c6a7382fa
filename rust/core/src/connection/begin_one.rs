//! The one fast path: a transfer of a single iov that is like the last one of its lane.

use super::Connection;
use super::lane_choice::thread_hint;
use crate::fabric::Opcode;
use crate::transfer::{Iov, TransferId, build_one};

impl Connection {
    /// Starts a transfer of one iov that is like the last one of the lane which the thread prefers. `None`, and
    /// nothing is done, if it is not so, the lane's worker is busy, or anything is out of the ordinary.
    ///
    /// All under the lock of the lane's worker, so that the transfer may have one of its slots.
    #[inline(always)]
    pub(super) fn begin_one(&self, opcode: Opcode, iov: &Iov) -> Option<TransferId> {
        if !self.is_open() {
            return self.begin_one_on_rails(opcode, *iov);
        }
        if !self.spread.keeps_whole(iov.length) {
            return None;
        }
        let lane = self.lane_of(thread_hint())?;
        let mut part = lane.worker.try_begin(lane.key)?;
        let (list, recent) = part.acquire()?;
        if !build_one(iov, &self.policy(), opcode, list, recent) {
            return None;
        }
        let transfer = self.context.transfers.acquire_at(lane.worker_index)?;
        let record = transfer.record();
        record.start(1, self.context.time_limit);
        let id = self.context.transfers.publish(transfer, 1 << lane.worker_index);
        part.start(record, true);
        Some(id)
    }
}

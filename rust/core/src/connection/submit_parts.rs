//! Starting a transfer over several lanes.

use std::time::{Duration, Instant};

use super::Connection;
use super::lane_choice::thread_hint;
use super::submit::WhenFull;
use super::wakes::Wakes;
use crate::fabric::{CompletionStatus, Opcode};
use crate::pool::{
    EndState, LaneHealth, PartOwner, RequestFailure, RequestList, Submission, transfer_begins,
};
use crate::transfer::{IovSource, Plan, SubmitError, TransferRecord};

/// A part that is built, and where it goes.
#[derive(Debug)]
pub(super) struct PartOnRail {
    pub(super) rail: usize,
    /// Which lane of the rail it prefers, counted from the thread's own.
    pub(super) lane: usize,
    pub(super) list: RequestList,
}

impl Connection {
    /// A transfer over several lanes: built whole first, because a bad iov must keep all of it from being posted. Never
    /// inlined: its lists would make the stack frame of a small transfer 3 KiB large.
    #[inline(never)]
    pub(super) fn start_parts<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
        record: &'static TransferRecord,
        plan: &Plan,
        when_full: WhenFull,
        since: Option<Instant>,
    ) -> Result<u64, SubmitError> {
        self.consider_rails(|| iovs.iov(0), || iovs.lengths().fold(0, u64::saturating_add));
        let begun = transfer_begins();
        let mut lists: [Option<PartOnRail>; MAX_PARTS] = Default::default();
        for (lane, slot) in lists.iter_mut().enumerate().take(plan.parts()) {
            let mut list = self.context.pool.spare_lists().acquire();
            let built = self.build(iovs, plan.share(lane), opcode, &mut list, None);
            *slot = Some(PartOnRail { rail: 0, lane, list });
            if let Err(error) = built {
                let lists = lists.into_iter().flatten();
                lists.for_each(|part| self.context.pool.spare_lists().release(part.list));
                return Err(error);
            }
        }
        let started = since.unwrap_or_else(Instant::now);
        // If it is not to wait there was room; others must have taken it since.
        let limit = if when_full == WhenFull::Refuse { ROOM_TAKEN_LIMIT } else { self.room_limit() };
        let lists = lists.into_iter().flatten();
        Ok(self.hand_out(record, opcode, (plan.parts(), lists), begun, started, limit))
    }

    /// Gives `parts`, which are so many, to workers. Some may be under way when another one finds no place: that one ends as failed with
    /// the others. Answers the set of the workers.
    pub(super) fn hand_out(
        &self,
        record: &'static TransferRecord,
        opcode: Opcode,
        (count, parts): (usize, impl Iterator<Item = PartOnRail>),
        begun: u64,
        started: Instant,
        limit: Duration,
    ) -> u64 {
        let hint = thread_hint();
        record.start(count as u32, self.context.time_limit);
        let (mut workers, mut wakes, mut is_stranded) = (0, Wakes::default(), false);
        for (number, mut part) in parts.enumerate() {
            let (first, bytes, hint) = (number == 0, part.list.bytes, hint.wrapping_add(part.lane));
            if record.end_state() != EndState::Done {
                self.spare_lists_of(part.rail).release(part.list);
                self.end_unplaced(record, opcode, first, bytes, begun);
                continue;
            }
            // A rail may have lost its last lane since the plan.
            let picked = self.pick_lane_of(part.rail, hint);
            let picked = picked.or_else(|error| self.rebuild_elsewhere(&mut part, hint).ok_or(error));
            let handed = picked.and_then(|lane| {
                let part = Submission { lane: lane.key, owner: record, list: part.list, first, begun };
                self.hand_over(lane, part, started, limit, &mut wakes)?;
                is_stranded |= lane.status.health() != LaneHealth::Healthy;
                Ok(lane.worker_index)
            });
            match handed {
                Ok(worker) => workers |= 1 << worker,
                Err(error) => {
                    tracing::warn!("part {number} of a transfer was not posted: {error}");
                    self.fail_unplaced(record, &error, opcode, first, bytes, begun);
                }
            }
        }
        wakes.share();
        if is_stranded && self.has_rails() {
            // Another rail may carry what came behind the failure of a lane.
            self.wakeup.wake();
        }
        workers
    }

    /// Whether every worker would take so many parts from this thread, even if its queue is not emptied.
    pub(super) fn has_room(&self, parts: usize) -> bool {
        self.lanes.iter().all(|lane| lane.worker.room(thread_hint()) >= parts)
    }

    /// Ends a part that no lane takes, and counts it. `begun` is when its transfer began.
    #[cold]
    pub(super) fn end_unplaced(
        &self,
        record: &'static TransferRecord,
        opcode: Opcode,
        first: bool,
        bytes: u64,
        begun: u64,
    ) {
        let end = record.end_part();
        if end.is_last() {
            self.context.pool.note_unplaced(begun);
        }
        self.unplaced.start(opcode.into(), u64::from(first), bytes);
        self.unplaced.end(opcode.into(), end.state(), u64::from(end.is_last()), bytes);
    }

    /// Fails the transfer with `error`, by which a lane has refused this part, and ends the part as [`Self::end_unplaced`] does.
    #[cold]
    pub(super) fn fail_unplaced(
        &self,
        record: &'static TransferRecord,
        error: &SubmitError,
        opcode: Opcode,
        first: bool,
        bytes: u64,
        begun: u64,
    ) {
        record.fail(RequestFailure {
            iov: 0,
            last_iov: 0,
            status: CompletionStatus::Flushed,
            vendor_error: 0,
            reason: error.to_string(),
        });
        self.context.pool.early_ends().note();
        self.end_unplaced(record, opcode, first, bytes, begun);
    }
}

/// How long a part of a transfer that does not wait for room may wait, which others have taken behind its back.
pub(super) const ROOM_TAKEN_LIMIT: Duration = Duration::from_millis(20);

/// Lanes per connection are at most 8 (contract of the handshake), so parts are too.
pub(super) const MAX_PARTS: usize = 8;

//! Starting a transfer over several lanes.

use std::time::{Duration, Instant};

use super::Connection;
use super::lane_choice::thread_hint;
use super::submit::WhenFull;
use super::wakes::Wakes;
use crate::fabric::{CompletionStatus, Opcode};
use crate::pool::{EndState, PartOwner, RequestFailure, RequestList, Submission, transfer_begins};
use crate::transfer::{IovSource, Plan, SubmitError, TransferRecord};

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
        let (hint, begun) = (thread_hint(), transfer_begins());
        let mut lists: [Option<RequestList>; MAX_PARTS] = Default::default();
        for (part, slot) in lists.iter_mut().enumerate().take(plan.parts()) {
            let mut list = self.context.pool.spare_lists().acquire();
            let built = self.build(iovs, plan.share(part), opcode, &mut list, None);
            *slot = Some(list);
            if let Err(error) = built {
                lists.into_iter().flatten().for_each(|list| self.context.pool.spare_lists().release(list));
                return Err(error);
            }
        }
        let started = since.unwrap_or_else(Instant::now);
        // If it is not to wait there was room; others must have taken it since.
        let limit = if when_full == WhenFull::Refuse { ROOM_TAKEN_LIMIT } else { self.room_limit() };
        record.start(plan.parts() as u32, self.context.time_limit);
        let (mut workers, mut wakes) = (0, Wakes::default());
        for (number, list) in lists.into_iter().flatten().enumerate() {
            let (first, bytes) = (number == 0, list.bytes);
            // From here on some parts may be under way: a part that finds no place ends as failed with the others.
            if record.end_state() != EndState::Done {
                self.context.pool.spare_lists().release(list);
                self.end_unplaced(record, opcode, first, bytes, begun);
                continue;
            }
            let handed = self.pick_lane(hint.wrapping_add(number)).and_then(|lane| {
                let part = Submission { lane: lane.key, owner: record, list, first, begun };
                self.hand_over(lane, part, started, limit, &mut wakes)?;
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
        Ok(workers)
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

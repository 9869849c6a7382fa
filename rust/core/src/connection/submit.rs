//! Starting transfers.

use std::time::{Duration, Instant};

use super::lane_choice::thread_hint;
use super::lanes::LaneHandle;
use super::wakes::Wakes;
use super::{Connection, RAILS};
use crate::fabric::Opcode;
use crate::memory::Recent;
use crate::pool::{RequestList, Submission, transfer_begins};
use crate::sync::Ordering;
use crate::transfer::{
    IovSource, MOST_TRANSFERS, NewTransfer, Plan, Scope, Share, SlicePolicy, SubmitError, TransferId,
    TransferRecord, build,
};

/// Whether a full queue, or that no id is free, is an answer or a reason to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Sleeps until there is room, at most for the transfer time-out.
    #[default]
    Wait,
    /// Answers [`SubmitError::WouldBlock`].
    Refuse,
}

impl Connection {
    /// Starts a transfer that the lanes carry, or refuses it.
    #[inline(always)]
    pub(super) fn start_on_lanes<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
        when_full: WhenFull,
    ) -> Result<TransferId, SubmitError> {
        if iovs.is_empty() {
            return Err(SubmitError::Empty);
        }
        if !self.is_open() {
            return self.start_if_open(opcode, iovs, when_full);
        }
        self.start_now(opcode, iovs, when_full)
    }

    /// [`Connection::start_on_lanes`] of a connection that takes no transfers, has several rails, or a span for each transfer.
    #[cold]
    #[inline(never)]
    fn start_if_open<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
        when_full: WhenFull,
    ) -> Result<TransferId, SubmitError> {
        if self.gate.load(Ordering::Relaxed) != RAILS || !self.is_here() {
            self.require_open()?;
        }
        let span = self.transfer_span(opcode, iovs, || Plan::new(iovs, &self.spread).parts());
        let started = if self.has_rails() {
            self.start_on_rails(opcode, iovs, when_full)
        } else {
            self.start_now(opcode, iovs, when_full)
        };
        self.be_seen();
        self.end_span_with(span, &started);
        started
    }

    #[inline(always)]
    pub(super) fn start_now<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
        when_full: WhenFull,
    ) -> Result<TransferId, SubmitError> {
        match self.context.transfers.acquire() {
            Some(transfer) => self.start_new(opcode, iovs, transfer, when_full, None),
            None if when_full == WhenFull::Refuse => Err(SubmitError::WouldBlock),
            None => self.start_when_free(opcode, iovs),
        }
    }

    /// `since` is when the call began to wait for room, if it has waited for an id.
    #[inline(always)]
    fn start_new<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
        transfer: NewTransfer,
        when_full: WhenFull,
        since: Option<Instant>,
    ) -> Result<TransferId, SubmitError> {
        let plan = Plan::new(iovs, &self.spread);
        // Of several parts the first may find room and the next may not, and there is no way back then.
        let whole = plan.parts() == 1 || when_full == WhenFull::Refuse && !self.has_room(plan.parts());
        let started = if whole {
            self.start_whole(opcode, iovs, transfer.record(), when_full, since)
        } else {
            self.start_parts(opcode, iovs, transfer.record(), &plan, when_full, since)
        };
        match started {
            Ok(workers) => Ok(self.context.transfers.publish(transfer, workers)),
            Err(error) => {
                self.context.transfers.release_new(transfer);
                Err(error)
            }
        }
    }

    /// Waits for an id: sleeps, for longer each time, as what frees one is that some thread asks about a transfer that has
    /// ended.
    #[cold]
    #[inline(never)]
    fn start_when_free<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
    ) -> Result<TransferId, SubmitError> {
        let since = Instant::now();
        let transfer = self.wait_for_id(since)?;
        self.start_new(opcode, iovs, transfer, WhenFull::Wait, Some(since))
    }

    /// An id for a transfer that is built already.
    pub(super) fn acquire_transfer(
        &self,
        when_full: WhenFull,
        since: Instant,
    ) -> Result<NewTransfer, SubmitError> {
        match self.context.transfers.acquire() {
            Some(transfer) => Ok(transfer),
            None if when_full == WhenFull::Refuse => Err(SubmitError::WouldBlock),
            None => self.wait_for_id(since),
        }
    }

    #[cold]
    fn wait_for_id(&self, since: Instant) -> Result<NewTransfer, SubmitError> {
        let limit = self.room_limit();
        let mut pause = Duration::from_micros(20);
        loop {
            if self.is_closed() {
                return Err(self.down("it is closed"));
            }
            if let Some(transfer) = self.context.transfers.acquire() {
                return Ok(transfer);
            }
            if since.elapsed() >= limit {
                return Err(SubmitError::NoId { most: MOST_TRANSFERS, waited: limit });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(1));
        }
    }

    /// A transfer for one lane: built in the part that the worker keeps, if the worker is free.
    #[inline(always)]
    fn start_whole<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
        record: &'static TransferRecord,
        when_full: WhenFull,
        since: Option<Instant>,
    ) -> Result<u64, SubmitError> {
        let hint = thread_hint();
        record.start(1, self.context.time_limit);
        if let Some(lane) = self.lane_of(hint)
            && self.begin_on(lane, opcode, iovs, record)?
        {
            return Ok(1 << lane.worker_index);
        }
        self.start_elsewhere(opcode, iovs, record, when_full, since)
    }

    /// As [`Connection::start_whole`], when the worker of the thread's own lane is busy: on another lane, or through a
    /// queue if all workers are.
    #[cold]
    #[inline(never)]
    fn start_elsewhere<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
        record: &'static TransferRecord,
        when_full: WhenFull,
        since: Option<Instant>,
    ) -> Result<u64, SubmitError> {
        let hint = thread_hint();
        for lane in self.lanes_from(hint).skip(1) {
            if self.begin_on(lane, opcode, iovs, record)? {
                return Ok(1 << lane.worker_index);
            }
        }
        let begun = transfer_begins();
        let lane = self.pick_lane(hint)?;
        let mut list = self.context.pool.spare_lists().acquire();
        if let Err(error) = self.build(iovs, Share::all(iovs), opcode, &mut list, None) {
            self.context.pool.spare_lists().release(list);
            return Err(error);
        }
        let limit = if when_full == WhenFull::Refuse { Duration::ZERO } else { self.room_limit() };
        let part = Submission { lane: lane.key, owner: record, list, first: true, begun };
        self.hand_over(lane, part, since.unwrap_or_else(Instant::now), limit, &mut Wakes::default())?;
        Ok(1 << lane.worker_index)
    }

    /// Builds and posts it on a lane; false, and nothing is done, if the lane is not healthy, or its worker is busy.
    #[inline(always)]
    fn begin_on<S: IovSource + ?Sized>(
        &self,
        lane: &LaneHandle,
        opcode: Opcode,
        iovs: &S,
        record: &'static TransferRecord,
    ) -> Result<bool, SubmitError> {
        let Some(mut part) = lane.worker.try_begin(lane.key) else { return Ok(false) };
        let Some((list, recent)) = part.acquire() else { return Ok(false) };
        self.build(iovs, Share::all(iovs), opcode, list, Some(recent))?;
        part.start(record, true);
        Ok(true)
    }

    /// How long a call may wait for room.
    pub(super) fn room_limit(&self) -> Duration {
        self.context.settings.timeout.unwrap_or(Duration::MAX)
    }

    /// Gives a part to its lane's worker, waiting for room in its queue until `limit` after `started`. The worker's thread is
    /// woken with `wakes`, which are made before the wait.
    pub(super) fn hand_over<'a>(
        &self,
        lane: &'a LaneHandle,
        mut submission: Submission,
        started: Instant,
        limit: Duration,
        wakes: &mut Wakes<'a>,
    ) -> Result<(), SubmitError> {
        let hint = thread_hint();
        let mut pause = Duration::from_micros(20);
        loop {
            submission = match lane.worker.submit(submission, hint) {
                Ok(backlog) => {
                    wakes.add(&lane.worker, backlog);
                    return Ok(());
                }
                Err(refused) => refused,
            };
            if started.elapsed() >= limit {
                lane.worker.spare_lists().release(submission.list);
                return Err(if limit.is_zero() {
                    SubmitError::WouldBlock
                } else {
                    SubmitError::QueueFull(limit)
                });
            }
            wakes.wake();
            lane.worker.kick();
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(1));
        }
    }

    /// How transfers that start now are cut.
    #[inline(always)]
    pub(super) fn policy(&self) -> SlicePolicy {
        self.context.slice_sizes.apply(&self.policy)
    }

    /// Makes the work requests of a share of the iovs. Never inlined: what it needs on the stack, `build_one` does not.
    #[inline(never)]
    pub(super) fn build<S: IovSource + ?Sized>(
        &self,
        iovs: &S,
        share: Share,
        opcode: Opcode,
        list: &mut RequestList,
        recent: Option<&mut Recent>,
    ) -> Result<(), SubmitError> {
        let scope = Scope {
            local: &self.context.registry,
            remote: &self.remote,
            policy: &self.policy(),
            carries_gpu: self.reach.lanes_carry_gpu,
        };
        build(iovs, share, scope, opcode, list, recent)
    }

    #[cold]
    pub(super) fn down(&self, reason: &str) -> SubmitError {
        SubmitError::Down { peer: self.peer.control.to_string(), reason: reason.to_owned() }
    }
}

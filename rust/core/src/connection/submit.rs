//! Starting transfers.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::Connection;
use super::lanes::LaneHandle;
use super::wakes::Wakes;
use crate::fabric::{CompletionStatus, Opcode};
use crate::memory::Recent;
use crate::pool::{
    EndState, LaneHealth, PartOwner, RequestFailure, RequestList, Submission, transfer_begins,
};
use crate::transfer::{
    IovSource, MOST_TRANSFERS, NewTransfer, Plan, Scope, Share, SlicePolicy, SubmitError, TransferId,
    TransferRecord, build, build_one,
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

    /// [`Connection::start_on_lanes`] of a connection that takes no transfers, or has a span for each.
    #[cold]
    #[inline(never)]
    fn start_if_open<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
        when_full: WhenFull,
    ) -> Result<TransferId, SubmitError> {
        self.require_open()?;
        let span = self.transfer_span(opcode, iovs, Plan::new(iovs, &self.spread).parts());
        let started = self.start_now(opcode, iovs, when_full);
        self.end_span_with(span, &started);
        started
    }

    #[inline(always)]
    fn start_now<S: IovSource + ?Sized>(
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
        let (since, limit) = (Instant::now(), self.room_limit());
        let mut pause = Duration::from_micros(20);
        loop {
            if self.is_closed() {
                return Err(self.down("it is closed"));
            }
            if let Some(transfer) = self.context.transfers.acquire() {
                return self.start_new(opcode, iovs, transfer, WhenFull::Wait, Some(since));
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
    ) -> Result<u32, SubmitError> {
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
    ) -> Result<u32, SubmitError> {
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
        // Not a closure: the iov would be copied for a call.
        let is_built = if iovs.len() == 1
            && let Some(iov) = iovs.iov(0)
        {
            build_one(&iov, &self.policy(), opcode, list, recent)
        } else {
            false
        };
        if !is_built {
            self.build(iovs, Share::all(iovs), opcode, list, Some(recent))?;
        }
        part.start(record, true);
        Ok(true)
    }

    /// A transfer over several lanes: built whole first, because a bad iov must keep all of it from being posted. Never
    /// inlined: its lists would make the stack frame of a small transfer 3 KiB large.
    #[inline(never)]
    fn start_parts<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
        record: &'static TransferRecord,
        plan: &Plan,
        when_full: WhenFull,
        since: Option<Instant>,
    ) -> Result<u32, SubmitError> {
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
        }
        wakes.share();
        Ok(workers)
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
                self.context.pool.spare_lists().release(submission.list);
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

    /// Makes the work requests of a share of the iovs. Never inlined: what it needs on the stack, [`build_one`] does not.
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

    /// Whether every worker would take so many parts from this thread, even if its queue is not emptied.
    fn has_room(&self, parts: usize) -> bool {
        self.lanes.iter().all(|lane| lane.worker.room(thread_hint()) >= parts)
    }

    /// A lane in working order, or one that is being rebuilt; from `hint` on.
    pub(super) fn pick_lane(&self, hint: usize) -> Result<&LaneHandle, SubmitError> {
        let mut healing = None;
        for lane in self.lanes_from(hint) {
            match lane.status.health() {
                LaneHealth::Healthy => return Ok(lane),
                LaneHealth::Broken | LaneHealth::Drained if self.heals => healing = healing.or(Some(lane)),
                _ => {}
            }
        }
        healing.ok_or_else(|| {
            let reason = self.lanes.first().map_or_else(String::new, |lane| lane.status.reason());
            self.down(&format!("no lane is in working order: {reason}"))
        })
    }

    /// All lanes, beginning with the one that `hint` points at.
    #[inline]
    fn lanes_from(&self, hint: usize) -> impl Iterator<Item = &LaneHandle> {
        let (before, from) = self.lanes.split_at(self.own_lane(hint));
        from.iter().chain(before)
    }

    /// The lane that `hint` points at.
    #[inline(always)]
    pub(super) fn lane_of(&self, hint: usize) -> Option<&LaneHandle> {
        // Its index is compared with their number once, if they are as many as threads.
        self.lanes.get(hint).or_else(|| self.lanes.get(self.own_lane(hint)))
    }

    /// The index of the lane that `hint` points at.
    #[inline]
    fn own_lane(&self, hint: usize) -> usize {
        let count = self.lanes.len();
        // A division takes longer than all the rest of it, and most often there are 1, 2, 4 or 8.
        if hint < count {
            hint
        } else if count.is_power_of_two() {
            hint & (count - 1)
        } else {
            hint.checked_rem(count).unwrap_or(0)
        }
    }

    #[cold]
    pub(super) fn down(&self, reason: &str) -> SubmitError {
        SubmitError::Down { peer: self.peer.control.to_string(), reason: reason.to_owned() }
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
}

/// How long a part of a transfer that does not wait for room may wait, which others have taken behind its back.
pub(super) const ROOM_TAKEN_LIMIT: Duration = Duration::from_millis(20);

/// Lanes per connection are at most 8 (contract of the handshake), so parts are too.
pub(super) const MAX_PARTS: usize = 8;

/// A small number that differs between threads: threads so prefer different lanes and workers.
#[inline]
pub(super) fn thread_hint() -> usize {
    /// Incremented once by each thread: only a spread, Relaxed.
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static HINT: Cell<usize> = const { Cell::new(usize::MAX) });
    HINT.with(|hint| {
        if hint.get() == usize::MAX {
            hint.set(THREADS.fetch_add(1, Ordering::Relaxed));
        }
        hint.get()
    })
}

//! Starting transfers.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::Connection;
use super::lanes::LaneHandle;
use crate::fabric::{CompletionStatus, Opcode};
use crate::memory::Recent;
use crate::pool::{
    Begun, Chunk, EndState, LaneHealth, OneRequest, RequestFailure, RequestList, SlicePolicy, Submission,
    Task,
};
use crate::transfer::{
    Claim, Iov, IovSource, MOST_TRANSFERS, Plan, Scope, Share, SubmitError, TransferId, build, chunk_of_one,
};

/// Whether a full queue, or that no id is free, is an answer or a reason to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Sleeps until there is room, at most for the transfer time-out.
    #[default]
    Wait,
    /// [`WhenFull::Wait`] of a call that has waited since then.
    WaitSince(Instant),
    /// Answers [`SubmitError::WouldBlock`].
    Refuse,
}

impl WhenFull {
    /// When the call began to wait.
    pub(super) fn since(self) -> Instant {
        if let Self::WaitSince(since) = self { since } else { Instant::now() }
    }
}

impl Connection {
    // Apart, because `submit_one` is inlined wherever it is called.
    #[inline(never)]
    pub(super) fn try_one(&self, opcode: Opcode, piece: &Iov) -> Option<TransferId> {
        if self.is_open() { self.submit_open(opcode, piece) } else { None }
    }

    /// Starts a transfer of one piece if all about it is as it mostly is: like the one before it on the thread's own lane,
    /// whose worker is free, and not to be cut. `None`, and nothing is done, if anything is not: [`Connection::start`],
    /// which tries this first, then says what, or takes a longer way. Inlined by force: a caller that is about speed
    /// should do little else, and go on with [`Connection::route`]. `None` also for a transfer that a [`Request`](super::Request)
    /// could want to end [at once](super::Request::at_once).
    #[inline(always)]
    pub fn submit_one(&self, opcode: Opcode, piece: &Iov) -> Option<TransferId> {
        if self.takes_short_way() { self.submit_open(opcode, piece) } else { None }
    }

    #[inline(always)]
    fn submit_open(&self, opcode: Opcode, piece: &Iov) -> Option<TransferId> {
        if piece.length >= Plan::SPREAD_FROM {
            return None;
        }
        let lane = self.lanes.get(self.own_lane(thread_hint()))?;
        lane.worker.try_begin_one(
            lane.key,
            &OnePiece { connection: self, policy: self.policy(), opcode, piece, worker: lane.worker_index },
        )
    }

    /// Starts a transfer that the lanes carry, or refuses it.
    #[inline]
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
            self.require_open()?;
        }
        match self.context.transfers.claim() {
            Some(claim) => self.start_claimed(opcode, iovs, claim, when_full),
            None if when_full == WhenFull::Refuse => Err(SubmitError::WouldBlock),
            None => self.start_when_free(opcode, iovs),
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
            // A worker's own places are only found so.
            if iovs.len() == 1
                && let Some(piece) = iovs.piece(0)
                && let Some(id) = self.try_one(opcode, &piece)
            {
                return Ok(id);
            }
            if let Some(claim) = self.context.transfers.claim() {
                return self.start_claimed(opcode, iovs, claim, WhenFull::WaitSince(since));
            }
            if since.elapsed() >= limit {
                return Err(SubmitError::NoId { most: MOST_TRANSFERS, waited: limit });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(1));
        }
    }

    #[inline(always)]
    fn start_claimed<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
        claim: Claim,
        when_full: WhenFull,
    ) -> Result<TransferId, SubmitError> {
        let plan = Plan::new(iovs, self.lanes.len());
        // Of several parts the first may find room and the next may not, and there is no way back then.
        let whole = plan.parts() == 1 || when_full == WhenFull::Refuse && !self.has_room(plan.parts());
        let started = if whole {
            self.start_whole(opcode, iovs, &claim, when_full)
        } else {
            self.start_parts(opcode, iovs, &claim, &plan, when_full)
        };
        match started {
            Ok(workers) => Ok(self.context.transfers.publish(claim, workers)),
            Err(error) => {
                self.context.transfers.abandon(claim);
                Err(error)
            }
        }
    }

    /// A transfer for one lane: built in the place where the worker keeps it, if a worker is free.
    #[inline]
    fn start_whole<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
        claim: &Claim,
        when_full: WhenFull,
    ) -> Result<u32, SubmitError> {
        let hint = thread_hint();
        let task = claim.task();
        task.start(1, self.context.time_limit);
        for lane in self.lanes_from(hint) {
            match self.begin_on(lane, opcode, iovs, task) {
                Begun::Yes => return Ok(1 << lane.worker_index),
                Begun::Refused(error) => return Err(error),
                Begun::Busy => {}
            }
        }
        self.start_queued(opcode, iovs, task, when_full)
    }

    /// The same when the workers of all lanes that work are busy.
    #[cold]
    fn start_queued<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
        task: &'static Task,
        when_full: WhenFull,
    ) -> Result<u32, SubmitError> {
        let hint = thread_hint();
        let lane = self.pick_lane(hint)?;
        let mut list = self.context.pool.spare_lists().take();
        list.first = true;
        let policy = self.policy();
        if let Err(error) = build(iovs, Share::all(iovs), self.scope(&policy), opcode, &mut list, None) {
            self.context.pool.spare_lists().keep(list);
            return Err(error);
        }
        let limit = if when_full == WhenFull::Refuse { Duration::ZERO } else { self.room_limit() };
        self.hand_over(lane, task, list, when_full.since(), limit)?;
        Ok(1 << lane.worker_index)
    }

    /// Inlined by force where it matters: a call takes the answer through memory.
    #[inline(always)]
    fn begin_on<S: IovSource + ?Sized>(
        &self,
        lane: &LaneHandle,
        opcode: Opcode,
        iovs: &S,
        task: &'static Task,
    ) -> Begun<SubmitError> {
        if lane.status.health() != LaneHealth::Healthy {
            return Begun::Busy;
        }
        lane.worker.try_begin(lane.key, task, |list, recent| {
            list.first = true;
            let policy = self.policy();
            build(iovs, Share::all(iovs), self.scope(&policy), opcode, list, recent)
        })
    }

    /// A transfer over several lanes: built whole first, because a bad iov must keep all of it from being posted. Never
    /// inlined: its lists would make the stack frame of a small transfer 3 KiB large.
    #[inline(never)]
    fn start_parts<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
        claim: &Claim,
        plan: &Plan,
        when_full: WhenFull,
    ) -> Result<u32, SubmitError> {
        let policy = self.policy();
        let scope = self.scope(&policy);
        let hint = thread_hint();
        let mut lists: [Option<RequestList>; MAX_PARTS] = Default::default();
        for (part, slot) in lists.iter_mut().enumerate().take(plan.parts()) {
            let mut list = self.context.pool.spare_lists().take();
            list.first = part == 0;
            let built = build(iovs, plan.share(part), scope, opcode, &mut list, None);
            *slot = Some(list);
            if let Err(error) = built {
                lists.into_iter().flatten().for_each(|list| self.context.pool.spare_lists().keep(list));
                return Err(error);
            }
        }
        let started = when_full.since();
        // If it is not to wait there was room; others must have taken it since.
        let limit = if when_full == WhenFull::Refuse { ROOM_TAKEN_LIMIT } else { self.room_limit() };
        let task = claim.task();
        task.start(plan.parts() as u32, self.context.time_limit);
        let mut workers = 0;
        for (part, list) in lists.into_iter().flatten().enumerate() {
            // From here on some parts may be under way: a part that finds no place ends as failed with the others.
            if task.verdict() != EndState::Done {
                self.context.pool.spare_lists().keep(list);
                task.end_part();
                continue;
            }
            let handed = self.pick_lane(hint.wrapping_add(part)).and_then(|lane| {
                self.hand_over(lane, task, list, started, limit).map(|()| lane.worker_index)
            });
            match handed {
                Ok(worker) => workers |= 1 << worker,
                Err(error) => {
                    tracing::warn!("part {part} of a transfer was not posted: {error}");
                    task.fail(RequestFailure {
                        iov: 0,
                        status: CompletionStatus::Flushed,
                        vendor_error: 0,
                        reason: error.to_string(),
                    });
                    self.context.pool.early_ends().note();
                    task.end_part();
                }
            }
        }
        Ok(workers)
    }

    /// How long a call may wait for room.
    pub(super) fn room_limit(&self) -> Duration {
        self.context.settings.timeout.unwrap_or(Duration::MAX)
    }

    /// Gives a built list to a lane's worker, waiting for room in its queue until `limit` after `started`.
    pub(super) fn hand_over(
        &self,
        lane: &LaneHandle,
        task: &'static Task,
        list: RequestList,
        started: Instant,
        limit: Duration,
    ) -> Result<(), SubmitError> {
        let hint = thread_hint();
        let mut submission = Submission { lane: lane.key, task, list };
        let mut pause = Duration::from_micros(20);
        loop {
            submission = match lane.worker.submit(submission, hint) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            if started.elapsed() >= limit {
                self.context.pool.spare_lists().keep(submission.list);
                return Err(if limit.is_zero() {
                    SubmitError::WouldBlock
                } else {
                    SubmitError::QueueFull(limit)
                });
            }
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

    #[inline]
    pub(super) fn scope<'a>(&'a self, policy: &'a SlicePolicy) -> Scope<'a> {
        let (local, remote) = (&self.context.registry, &*self.remote);
        Scope { local, remote, policy, carries_gpu: self.reach.lanes_carry_gpu }
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

    /// The index of the lane that `hint` points at.
    #[inline]
    fn own_lane(&self, hint: usize) -> usize {
        let count = self.lanes.len();
        // A division takes longer than all the rest of it, and most often there are 1, 2, 4 or 8.
        if count.is_power_of_two() { hint & (count - 1) } else { hint.checked_rem(count).unwrap_or(0) }
    }

    #[cold]
    pub(super) fn down(&self, reason: &str) -> SubmitError {
        SubmitError::Down { peer: self.peer.control.to_string(), reason: reason.to_owned() }
    }
}

/// A piece on its short way; see [`Connection::submit_one`].
struct OnePiece<'a> {
    connection: &'a Connection,
    policy: SlicePolicy,
    opcode: Opcode,
    piece: &'a Iov,
    /// Index of the worker.
    worker: usize,
}

impl OneRequest for OnePiece<'_> {
    type Name = TransferId;

    #[inline(always)]
    fn opcode(&self) -> Opcode {
        self.opcode
    }

    #[inline(always)]
    fn policy(&self) -> &SlicePolicy {
        &self.policy
    }

    #[inline(always)]
    fn chunk(&self, recent: &mut Recent) -> Option<Chunk> {
        chunk_of_one(self.piece, self.policy(), recent)
    }

    #[inline(always)]
    fn claim(&self) -> Option<(TransferId, &'static Task)> {
        let context = &self.connection.context;
        context.transfers.begin_one(self.worker, context.time_limit)
    }
}

/// How long a part of a transfer that does not wait for room may wait, which others have taken behind its back.
const ROOM_TAKEN_LIMIT: Duration = Duration::from_millis(20);

/// Lanes per connection are at most 8 (contract of the handshake), so parts are too.
const MAX_PARTS: usize = 8;

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

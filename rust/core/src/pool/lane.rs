//! A lane: one queue pair and the order of what is posted on it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::groups::Groups;
use super::lane_counts::path_names;
use super::lane_key::LaneKey;
use super::lane_status::{BreakCause, LaneHealth, LaneStatus};
use super::part_list::{AGE, PartList, TURN};
use super::part_owner::EndState;
use crate::fabric::{FabricError, WorkQueue};
use crate::memory::Recent;
use crate::observe::TransferCounts;
use crate::sync::Ordering;

/// One queue pair, its ring of posted groups and the parts that wait to post on it. Owned by a worker.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) key: LaneKey,
    pub(super) queue_pair: Box<dyn WorkQueue>,
    /// What its connection reads of it.
    pub(super) status: Arc<LaneStatus>,
    /// Where its parts are counted, by the paths that it has now.
    pub(super) counts: Arc<TransferCounts>,
    /// As in `status`, for the worker itself.
    health: LaneHealth,
    /// Groups in posting order; retired from the front.
    pub(super) groups: Groups,
    /// All parts that were begun on it and have not ended. All have the same time limit, that of their connection's engine,
    /// so the first of them is the first to be late.
    pub(super) parts: PartList<AGE>,
    /// Those with something to post, served in turn.
    pub(super) turns: PartList<TURN>,
    /// The regions that its last transfer used.
    pub(super) recent: Recent,
    /// Whether the lane stands in the worker's ready queue.
    pub(super) ready: bool,
    /// The number of the probe that is outstanding, or of the last one.
    pub(super) probe: u32,
    /// Requests posted and not retired.
    pub(super) outstanding: u32,
    /// Most that may be outstanding.
    pub(super) depth: u32,
    /// Every how many requests one is signaled, whatever the list's length.
    pub(super) signal_every: u32,
    /// What `next` was when the queue pair had last refused a list behind its first requests.
    pub(super) cut_short_at: Option<u32>,
    /// The same for every list that was cut short and of which something is outstanding.
    cuts: Vec<u32>,
    /// Interrupted parts may go on once the lane is rebuilt.
    pub(super) heals: bool,
    /// Moving it to ERROR, or destroying it, ends what is outstanding.
    pub(super) can_stop: bool,
    /// Its connection has given it up: how its parts end. It goes once it is drained, which only its device can say.
    pub(super) orphaned: Option<(EndState, String)>,
    /// When it was first seen in ERROR and not drained, in the pool's clock.
    pub(super) broken_since: Option<u64>,
    /// It is to be in ERROR, and its device has not done that: the peer's requests may still arrive, so it is not drained, whatever is
    /// outstanding.
    pub(super) resists: bool,
    /// Its queue pair does not drain, and is to be destroyed once its device has carried out other commands.
    pub(super) awaits_destroy: bool,
    /// Its queue pair was taken out because it does not drain, and is being destroyed.
    pub(super) is_destroying: bool,
    /// It is to be closed once that is done: how its parts end.
    pub(super) doomed: Option<(EndState, String)>,
}

impl Lane {
    pub(super) fn new(key: LaneKey, queue_pair: Box<dyn WorkQueue>, setup: LaneSetup) -> Self {
        let depth = queue_pair.caps().send_depth.max(1);
        let can_stop = queue_pair.can_stop();
        let counts = setup.status.counts.posted(path_names(queue_pair.paths(), can_stop));
        setup.status.set_direct(&*queue_pair);
        Self {
            counts,
            key,
            queue_pair,
            status: setup.status,
            health: LaneHealth::Healthy,
            groups: Groups::default(),
            parts: PartList::default(),
            turns: PartList::default(),
            recent: Recent::default(),
            ready: false,
            probe: 0,
            outstanding: 0,
            depth,
            // A quarter: completions come early enough to refill the queue before it runs dry.
            signal_every: (depth / 4).max(1),
            cut_short_at: None,
            cuts: Vec::new(),
            heals: setup.heals,
            can_stop,
            orphaned: None,
            broken_since: None,
            resists: false,
            awaits_destroy: false,
            is_destroying: false,
            doomed: None,
        }
    }

    /// It is drained and out of use for good. What comes to it waits as on any drained lane, to be taken off it.
    pub(super) fn give_up(&mut self, reason: &str) {
        self.health = LaneHealth::Drained;
        self.resists = false;
        self.status.end_requests();
        self.status.set(LaneHealth::Closed, reason);
    }

    /// Counts by the paths that the queue pair has now.
    #[cold]
    pub(super) fn note_paths(&mut self) {
        let paths = path_names(self.queue_pair.paths(), self.can_stop);
        if paths != self.counts.paths() {
            self.counts = self.status.counts.posted(paths);
        }
    }

    #[inline]
    pub(super) fn health(&self) -> LaneHealth {
        self.health
    }

    #[inline]
    pub(super) fn is_healthy(&self) -> bool {
        self.health == LaneHealth::Healthy
    }

    /// Changes its state, for its connection too.
    pub(super) fn set_health(&mut self, health: LaneHealth, reason: &str) {
        self.health = health;
        self.status.set(health, reason);
    }

    /// Requests posted so far.
    #[inline(always)]
    pub(super) fn posted(&self) -> u64 {
        self.status.posted.load(Ordering::Relaxed)
    }

    /// Sequence number of the next request.
    pub(super) fn next(&self) -> u32 {
        self.posted() as u32
    }

    /// So many requests more were posted than the number `before`.
    #[inline(always)]
    pub(super) fn note_posted(&mut self, before: u64, requests: u32) {
        self.status.posted.store(before + u64::from(requests), Ordering::Relaxed);
        self.outstanding += requests;
    }

    /// The probe that was outstanding is over, carried out or not.
    #[cold]
    pub(super) fn end_probe(&self, is_answered: bool) {
        self.status.end_probe(is_answered.then_some(self.probe));
    }

    /// How many requests it may post, of so many credits that its worker has left: as many at most as leave the worker a third of
    /// the credits that the lane then holds. So a lane alone gets three quarters of all, and of many each gets its part; what a
    /// silent peer holds is bounded before anyone else needs it, because what is posted cannot be taken back. One credit of
    /// those left is always for a lane that has nothing outstanding. With half instead, large batches took 5 % longer.
    #[inline(always)]
    pub(super) fn share(&self, left: u32) -> u32 {
        self.depth.saturating_sub(self.outstanding).min((3 * left + 1).saturating_sub(self.outstanding) / 4)
    }

    /// The same without regard to other lanes.
    pub(super) fn room(&self, left: u32) -> u32 {
        self.depth.saturating_sub(self.outstanding).min(left)
    }

    /// Whether it stands in line for credits: it has nothing outstanding the completion of which would make it ready, or its
    /// share allows more now.
    fn awaits_credits(&self, left: u32) -> bool {
        self.outstanding == 0 || self.is_cut_short() || self.share(left) > 0
    }

    /// Whether the last list was cut short: the last requests outstanding may be unsignaled, and then only the completion
    /// of something posted behind them shows that they are done.
    pub(super) fn is_cut_short(&self) -> bool {
        self.cut_short_at == Some(self.next())
    }

    /// The queue pair has just refused a list behind its first requests.
    #[cold]
    pub(super) fn note_cut(&mut self) {
        let (next, outstanding) = (self.next(), self.outstanding);
        self.cut_short_at = Some(next);
        self.cuts.retain(|cut| next.wrapping_sub(*cut) < outstanding);
        self.cuts.push(next);
    }

    /// How many requests a failure may be of that the device reports for the first one outstanding, when it does not name the
    /// one that failed: those up to the next signaled end of a list. The success of each such end before it came already.
    #[cold]
    pub(super) fn suspects(&self) -> u32 {
        let mut suspects = 0;
        for group in self.groups.iter() {
            suspects += group.count;
            if !self.cuts.contains(&group.first.wrapping_add(group.count)) {
                break;
            }
        }
        suspects
    }

    /// Whether the part that was cut short goes on before others do: what is behind it then fails as one of its own, where the device
    /// does not name the request that failed.
    #[inline]
    pub(super) fn keeps_turn(&self) -> bool {
        self.is_cut_short() && !self.queue_pair.names_failed_request()
    }

    /// Whether it takes parts: posts them, or lets them wait for its rebuild.
    #[inline]
    pub(super) fn takes_parts(&self) -> bool {
        self.is_healthy() || self.heals
    }

    /// Whether what comes now is posted now: nothing stands before it.
    #[inline]
    pub(super) fn posts_at_once(&self) -> bool {
        self.turns.is_empty() && self.is_healthy()
    }
}

/// What a worker needs to know of a new lane.
#[derive(Debug)]
pub struct LaneSetup {
    /// Where its connection reads its state.
    pub status: Arc<LaneStatus>,
    /// Interrupted parts wait for a rebuild instead of failing.
    pub heals: bool,
}

/// Queues a lane for posting if it has something to post and may. `left` are the credits that its worker has left. A lane that
/// has its share already becomes ready by its own next completion.
#[inline]
pub(super) fn make_ready(lane: &mut Lane, ready: &mut VecDeque<u16>, left: u32) {
    if !lane.turns.is_empty()
        && !lane.ready
        && lane.outstanding < lane.depth
        && lane.is_healthy()
        && lane.awaits_credits(left)
    {
        lane.ready = true;
        ready.push_back(lane.key.index());
    }
}

/// A healthy lane has failed, as a completion says: its queue pair is in ERROR already.
pub(super) fn fail_lane(lane: &mut Lane, reason: &str) {
    move_to_error(lane, reason, failure_of(lane), true);
}

/// Moves a healthy lane to ERROR because it has failed, which its device may not know.
pub(super) fn break_lane(lane: &mut Lane, reason: &str) {
    move_to_error(lane, reason, failure_of(lane), false);
}

fn failure_of(lane: &Lane) -> BreakCause {
    if lane.queue_pair.has_refused() { BreakCause::Refusal } else { BreakCause::Failure }
}

/// A completion of a healthy lane says that one of its requests was refused, by the peer or by a check of this end.
pub(super) fn refuse_lane(lane: &mut Lane, reason: &str) {
    move_to_error(lane, reason, BreakCause::Refusal, true);
}

/// Moves a healthy lane to ERROR because this end wants it: nothing of it has failed.
pub(super) fn stop_lane(lane: &mut Lane, reason: &str) {
    move_to_error(lane, reason, BreakCause::ThisEnd, false);
}

/// A lane is in ERROR because of a refusal. Flushes may have been seen before it, and taken for a failure.
pub(super) fn note_refusal(lane: &Lane) {
    if lane.status.break_cause() == BreakCause::Failure {
        lane.status.set_break_cause(BreakCause::Refusal);
    }
}

/// `in_error`: a completion has shown that the queue pair is in ERROR.
fn move_to_error(lane: &mut Lane, reason: &str, cause: BreakCause, in_error: bool) {
    if !lane.is_healthy() {
        return;
    }
    lane.status.set_break_cause(cause);
    // The time of an earlier break says nothing about this one.
    lane.broken_since = None;
    lane.set_health(LaneHealth::Broken, reason);
    lane.resists = false;
    if let Err(error) = lane.queue_pair.set_error() {
        tracing::warn!("a queue pair could not be moved to ERROR: {error}");
        // What the queue pair says of itself is no proof: it counts as broken once this was asked for, and where its address is stale.
        lane.resists = !in_error && !is_gone(&error);
    }
}

/// Whether a device that refuses a command with this error is gone: then nothing arrives over it. EIO may as well be a command that has failed on
/// a device which works: then the queue pair is asked again, and destroyed.
fn is_gone(error: &FabricError) -> bool {
    matches!(error, FabricError::Call { errno: libc::ENODEV | libc::ENXIO, .. })
}

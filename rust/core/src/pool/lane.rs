//! A lane: one queue pair and the order of what is posted on it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::PoolError;
use super::direct_lane::DirectLane;
use super::groups::Groups;
use super::lane_counts::{LaneCounts, path_names};
use super::part_list::{AGE, PartList, TURN};
use super::part_owner::EndState;
use crate::fabric::WorkQueue;
use crate::memory::Recent;
use crate::observe::TransferCounts;
use crate::sync::{AtomicU32, Ordering};

/// Names a lane of a worker. The generation keeps a late completion of a former lane from being taken for this one's. The
/// default names none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneKey(
    /// The lane's index, and its generation above that: one word, for it is compared with every completion.
    u32,
);

impl LaneKey {
    fn new(index: u16, generation: u16) -> Self {
        Self(u32::from(generation) << 16 | u32::from(index))
    }

    #[inline]
    pub(super) fn index(self) -> u16 {
        self.0 as u16
    }

    /// Another number than those of all other lanes of the worker.
    pub fn number(self) -> u32 {
        self.0
    }

    /// The upper half of the ids of its requests; the lower half is the sequence number.
    #[inline]
    pub(super) fn request_id(self, sequence: u32) -> u64 {
        u64::from(self.0) << 32 | u64::from(sequence)
    }

    #[inline]
    pub(super) fn of_request(id: u64) -> (Self, u32) {
        (Self((id >> 32) as u32), id as u32)
    }
}

/// State of a lane as its connection sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum LaneHealth {
    /// Takes transfers.
    Healthy = 0,
    /// In ERROR, not yet drained.
    Broken = 1,
    /// In ERROR, drained: the fabric touches nothing of it any more. May be rebuilt.
    Drained = 2,
    /// Closed for good.
    Closed = 3,
}

/// What a lane tells its connection.
#[derive(Debug)]
pub struct LaneStatus {
    /// A [`LaneHealth`]. Written by the worker under its lock (Release), read by submitters as a hint and by the
    /// connection's recovery (Acquire, so that `reason` is seen).
    health: AtomicU32,
    reason: Mutex<String>,
    /// When it left working order; `None` while it is healthy. Written with `reason`.
    broken_at: Mutex<Option<Instant>>,
    /// What is counted of it.
    pub counts: Arc<LaneCounts>,
    /// Copies by submitters, beside what the worker posts.
    pub direct: DirectLane,
    on_change: Option<Arc<dyn LaneWatcher>>,
}

/// Told when a lane leaves working order or is drained. Called under the worker's lock: must only pass it on.
pub trait LaneWatcher: Send + Sync + std::fmt::Debug {
    /// The lane's health changed.
    fn lane_changed(&self);
}

impl LaneStatus {
    /// A healthy lane's.
    pub fn new(on_change: Option<Arc<dyn LaneWatcher>>) -> Self {
        Self::counted(on_change, Arc::default())
    }

    /// A healthy lane's that is counted with others of the same worker.
    pub fn counted(on_change: Option<Arc<dyn LaneWatcher>>, counts: Arc<LaneCounts>) -> Self {
        Self {
            health: AtomicU32::new(LaneHealth::Healthy as u32),
            reason: Mutex::default(),
            broken_at: Mutex::default(),
            counts,
            direct: DirectLane::default(),
            on_change,
        }
    }

    /// The state now.
    #[inline]
    pub fn health(&self) -> LaneHealth {
        match self.health.load(Ordering::Acquire) {
            0 => LaneHealth::Healthy,
            1 => LaneHealth::Broken,
            2 => LaneHealth::Drained,
            _ => LaneHealth::Closed,
        }
    }

    /// Why it is not healthy; empty if it is.
    pub fn reason(&self) -> String {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For how long it has not been healthy; zero if it is.
    pub fn broken_for(&self) -> Duration {
        let broken_at = *self.broken_at.lock().unwrap_or_else(PoisonError::into_inner);
        broken_at.map_or(Duration::ZERO, |at| at.elapsed())
    }

    /// The lane has another queue pair.
    pub(super) fn set_direct(&self, queue: &dyn WorkQueue) {
        let direct = queue
            .direct()
            .map(|copy| (copy, self.counts.direct(path_names(queue.paths(), queue.can_stop()))));
        self.direct.set(direct);
    }

    pub(super) fn set(&self, health: LaneHealth, reason: &str) {
        {
            let mut broken_at = self.broken_at.lock().unwrap_or_else(PoisonError::into_inner);
            *broken_at =
                if health == LaneHealth::Healthy { None } else { broken_at.or_else(|| Some(Instant::now())) };
        }
        if !reason.is_empty() || health == LaneHealth::Healthy {
            reason.clone_into(&mut self.reason.lock().unwrap_or_else(PoisonError::into_inner));
        }
        if health != LaneHealth::Healthy {
            // What it holds of the peer is released with the queue pair.
            self.direct.set(None);
        }
        self.health.store(health as u32, Ordering::Release);
        if let Some(watcher) = &self.on_change {
            watcher.lane_changed();
        }
    }
}

/// One queue pair, its ring of posted groups and the parts that wait to post on it. Owned by a worker.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) key: LaneKey,
    pub(super) queue_pair: Box<dyn WorkQueue>,
    /// What it tells its connection.
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
    /// Sequence number of the next request.
    pub(super) next: u32,
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
            next: 0,
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
        }
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

    /// Changes its state, and tells its connection.
    pub(super) fn set_health(&mut self, health: LaneHealth, reason: &str) {
        self.health = health;
        self.status.set(health, reason);
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
    /// of something posted behind them tells that they are done.
    pub(super) fn is_cut_short(&self) -> bool {
        self.cut_short_at == Some(self.next)
    }

    /// The queue pair has just refused a list behind its first requests.
    #[cold]
    pub(super) fn note_cut(&mut self) {
        self.cut_short_at = Some(self.next);
        let (next, outstanding) = (self.next, self.outstanding);
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
    /// Where its state is told.
    pub status: Arc<LaneStatus>,
    /// Interrupted parts wait for a rebuild instead of failing.
    pub heals: bool,
}

/// All lanes of a worker.
#[derive(Debug, Default)]
pub(super) struct Lanes(Vec<LaneEntry>);

#[derive(Debug)]
struct LaneEntry {
    generation: u16,
    /// Its lane is being destroyed: it serves no other one before that is done.
    reserved: bool,
    /// Where the parts of the lane that it had last are counted.
    counts: Option<Arc<TransferCounts>>,
    // In a box: what moves when the table grows, or is looked through, is one word.
    lane: Option<Box<Lane>>,
}

impl Lanes {
    /// Takes a connected queue pair as a new lane.
    pub(super) fn insert(
        &mut self,
        queue_pair: Box<dyn WorkQueue>,
        setup: LaneSetup,
    ) -> Result<LaneKey, PoolError> {
        let index = match self.0.iter().position(|entry| entry.lane.is_none() && !entry.reserved) {
            Some(index) => index,
            None => {
                self.0.push(LaneEntry { generation: 0, reserved: false, counts: None, lane: None });
                self.0.len() - 1
            }
        };
        let (Ok(index), Some(entry)) = (u16::try_from(index), self.0.get_mut(index)) else {
            return Err(PoolError::TooManyLanes);
        };
        entry.generation = entry.generation.wrapping_add(1);
        let key = LaneKey::new(index, entry.generation);
        entry.lane = Some(Box::new(Lane::new(key, queue_pair, setup)));
        Ok(key)
    }

    /// The lane with an index, of whatever generation.
    #[inline]
    pub(super) fn at(&mut self, index: u16) -> Option<&mut Lane> {
        self.0.get_mut(usize::from(index))?.lane.as_deref_mut()
    }

    /// The lane of a key, unless it is gone.
    #[inline]
    pub(super) fn get(&mut self, key: LaneKey) -> Option<&mut Lane> {
        self.at(key.index()).filter(|lane| lane.key == key)
    }

    /// Takes the lane of a key out.
    pub(super) fn remove(&mut self, key: LaneKey) -> Option<Box<Lane>> {
        let entry = self.0.get_mut(usize::from(key.index()))?;
        let lane = entry.lane.take_if(|lane| lane.key == key)?;
        entry.counts = Some(Arc::clone(&lane.counts));
        Some(lane)
    }

    /// Where the parts of a lane are counted that is gone, unless another one has its place.
    pub(super) fn counts_of_gone(&self, key: LaneKey) -> Option<Arc<TransferCounts>> {
        let entry = self.0.get(usize::from(key.index()))?;
        entry.counts.clone().filter(|_| LaneKey::new(key.index(), entry.generation) == key)
    }

    /// Takes the lane of a name out, and reserves its place until [`Lanes::free`].
    pub(super) fn detach(&mut self, key: LaneKey) -> Option<Box<Lane>> {
        let lane = self.remove(key)?;
        self.reserve(key, true);
        Some(lane)
    }

    /// Whether the lane of a name was detached and its place is not free yet.
    pub(super) fn is_detached(&self, key: LaneKey) -> bool {
        let slot = self.0.get(usize::from(key.index()));
        slot.is_some_and(|slot| slot.reserved && LaneKey::new(key.index(), slot.generation) == key)
    }

    /// The place of a lane that was detached may serve another one.
    pub(super) fn free(&mut self, key: LaneKey) {
        self.reserve(key, false);
    }

    fn reserve(&mut self, key: LaneKey, reserved: bool) {
        if let Some(slot) = self.0.get_mut(usize::from(key.index())) {
            slot.reserved = reserved;
        }
    }

    /// Whether there is none, healthy or not.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|entry| entry.lane.is_none())
    }

    /// All indices, with a lane or without.
    pub(super) fn indices(&self) -> impl Iterator<Item = u16> + use<> {
        (0..=u16::MAX).take(self.0.len())
    }
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

/// Moves a healthy lane to ERROR.
pub(super) fn break_lane(lane: &mut Lane, reason: &str) {
    if !lane.is_healthy() {
        return;
    }
    // The time of an earlier break says nothing about this one.
    lane.broken_since = None;
    lane.set_health(LaneHealth::Broken, reason);
    if let Err(error) = lane.queue_pair.set_error() {
        tracing::warn!("a queue pair could not be moved to ERROR: {error}");
    }
}

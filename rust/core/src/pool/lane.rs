//! A lane: one queue pair and the order of what is posted on it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::slice::{Cursor, SlicePolicy};
use crate::fabric::QueuePair;
use crate::observe::Counter;
use crate::sync::{AtomicU32, Ordering};

/// Names a lane of a worker. The generation keeps a late completion of a former lane from being taken for this one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneKey {
    pub(super) index: u16,
    pub(super) generation: u16,
}

impl LaneKey {
    /// The upper half of the ids of its requests; the lower half is the sequence number.
    #[inline]
    pub(super) fn request_id(self, sequence: u32) -> u64 {
        u64::from(self.generation) << 48 | u64::from(self.index) << 32 | u64::from(sequence)
    }

    #[inline]
    pub(super) fn of_request(id: u64) -> (Self, u32) {
        (Self { index: (id >> 32) as u16, generation: (id >> 48) as u16 }, id as u32)
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
    /// connection's monitor (Acquire, so that `reason` is seen).
    health: AtomicU32,
    reason: Mutex<String>,
    /// Transfers begun on this lane, and bytes posted on it. Counted by the worker under its lock.
    pub(super) transfers: Counter,
    pub(super) bytes: Counter,
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
        Self {
            health: AtomicU32::new(LaneHealth::Healthy as u32),
            reason: Mutex::default(),
            transfers: Counter::default(),
            bytes: Counter::default(),
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

    /// Transfers that began on this lane, each counted on one of its lanes only.
    pub fn transfers(&self) -> u64 {
        self.transfers.get()
    }

    /// Bytes posted on this lane, repetitions included.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Why it is not healthy; empty if it is.
    pub fn reason(&self) -> String {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, health: LaneHealth, reason: &str) {
        if !reason.is_empty() || health == LaneHealth::Healthy {
            reason.clone_into(&mut self.reason.lock().unwrap_or_else(PoisonError::into_inner));
        }
        self.health.store(health as u32, Ordering::Release);
        if let Some(watcher) = &self.on_change {
            watcher.lane_changed();
        }
    }
}

/// One posted list: who it belongs to and where it began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    /// The part that it belongs to.
    pub(super) part: u32,
    /// Sequence number of its first request that is still outstanding.
    pub(super) first: u32,
    /// Requests of it that are still outstanding.
    pub(super) count: u32,
    /// Requests of it that are behind, counted from `start`.
    pub(super) behind: u32,
    /// The part's cursor at its first request.
    pub(super) start: Cursor,
}

/// One queue pair, its ring of posted groups and the parts that wait to post on it. Owned by a worker.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) key: LaneKey,
    pub(super) queue_pair: Box<dyn QueuePair>,
    pub(super) status: Arc<LaneStatus>,
    pub(super) policy: SlicePolicy,
    /// Groups in posting order; retired from the front.
    pub(super) groups: VecDeque<Group>,
    /// Parts with something to post, served in turn.
    pub(super) waiting: VecDeque<u32>,
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
    /// Interrupted parts may go on once the lane is rebuilt.
    pub(super) heals: bool,
    /// When it was first seen in ERROR and not drained, in the pool's clock.
    pub(super) broken_since: Option<u64>,
}

impl Lane {
    pub(super) fn new(key: LaneKey, queue_pair: Box<dyn QueuePair>, setup: LaneSetup) -> Self {
        let depth = queue_pair.caps().send_depth.max(1);
        Self {
            key,
            queue_pair,
            status: setup.status,
            policy: setup.policy,
            groups: VecDeque::with_capacity(8),
            waiting: VecDeque::with_capacity(8),
            ready: false,
            next: 0,
            outstanding: 0,
            depth,
            // A quarter: completions come early enough to refill the queue before it runs dry.
            signal_every: (depth / 4).max(1),
            heals: setup.heals,
            broken_since: None,
        }
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.status.health() == LaneHealth::Healthy
    }
}

/// What a worker needs to know of a new lane.
#[derive(Debug)]
pub struct LaneSetup {
    /// Where its state is told.
    pub status: Arc<LaneStatus>,
    /// How pieces are cut for its port.
    pub policy: SlicePolicy,
    /// Interrupted parts wait for a rebuild instead of failing.
    pub heals: bool,
}

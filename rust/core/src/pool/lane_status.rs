//! The state of a lane as its connection sees it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::direct_lane::DirectLane;
use super::lane_counts::{LaneCounts, path_names};
use crate::fabric::WorkQueue;
use crate::sync::{AtomicU32, Ordering};

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

/// The state of a lane as its connection reads it.
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

/// Called when a lane leaves working order or is drained, under the worker's lock: must only pass it on.
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

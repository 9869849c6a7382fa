//! The state of a lane as its connection sees it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::direct_lane::DirectLane;
use super::lane_counts::{LaneCounts, path_names};
use crate::fabric::WorkQueue;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};

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

/// Why a lane has left working order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum BreakCause {
    /// Its path or a device has failed, or nothing is known.
    Failure = 0,
    /// This end has moved it to ERROR, for whatever reason: a cancelled transfer, deregistered memory, its rail that is left.
    ThisEnd = 1,
    /// A request was wrong: the peer or a check of this end has refused it, or this end one of the peer's. Its path works.
    Refusal = 2,
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
    /// It has had a queue pair. Set by the worker under its lock (Relaxed) before `health` says that it is healthy.
    made: AtomicBool,
    /// Its queue pair could not be destroyed. Set by the worker before `health` says that it is closed (Relaxed, published by that).
    leaks: AtomicBool,
    /// A [`BreakCause`]. Stored by the worker under its lock before `health` says that it is broken (Relaxed, published by that), and good for
    /// as long as it is not healthy. A failure may turn out to be a refusal later.
    cause: AtomicU32,
    /// Requests posted so far, probes included. Here and not in the lane, so that a post writes it once: loaded and stored by the holder of
    /// the worker's lock. With `retired` it says what is under way, to anyone: Relaxed here and Release there.
    pub(super) posted: AtomicU64,
    /// The low half of what `posted` was before the oldest request that is outstanding. Stored by the holder of the worker's lock, after `posted`
    /// has grown for the request (Release); loaded before `posted` (Acquire), so that it is never more than that.
    pub(super) retired: AtomicU32,
    /// The last probe that was answered, and how many were. Stored by the holder of the worker's lock: Relaxed, for they guard nothing.
    probe: AtomicU32,
    probes: AtomicU32,
    /// What is counted of it.
    pub counts: Arc<LaneCounts>,
    /// Copies by submitters, beside what the worker posts.
    pub direct: DirectLane,
    on_change: Option<Arc<dyn LaneWatcher>>,
}

/// Called when a lane leaves working order, is drained, rebuilt or closed, or a probe is answered, under the worker's lock: must only pass it on.
pub trait LaneWatcher: Send + Sync + std::fmt::Debug {
    /// The lane's health changed, or the last probe that was answered.
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
            made: AtomicBool::new(true),
            leaks: AtomicBool::new(false),
            cause: AtomicU32::new(BreakCause::Failure as u32),
            posted: AtomicU64::new(0),
            retired: AtomicU32::new(0),
            probe: AtomicU32::new(0),
            probes: AtomicU32::new(0),
            reason: Mutex::default(),
            broken_at: Mutex::default(),
            counts,
            direct: DirectLane::default(),
            on_change,
        }
    }

    /// That of a lane which has no queue pair yet, for [`WorkerState::add_absent_lane`](super::WorkerState::add_absent_lane): drained.
    pub fn absent(on_change: Option<Arc<dyn LaneWatcher>>) -> Self {
        Self {
            health: AtomicU32::new(LaneHealth::Drained as u32),
            made: AtomicBool::new(false),
            cause: AtomicU32::new(BreakCause::ThisEnd as u32),
            ..Self::new(on_change)
        }
    }

    /// Whether it has had a queue pair. The first one is no rebuild.
    pub fn was_made(&self) -> bool {
        self.made.load(Ordering::Relaxed)
    }

    pub(super) fn set_made(&self, made: bool) {
        self.made.store(made, Ordering::Relaxed);
    }

    /// Whether its device could not destroy its queue pair, and so may be at work on it. Of a lane that is closed.
    pub fn leaks(&self) -> bool {
        self.leaks.load(Ordering::Relaxed)
    }

    pub(super) fn set_leaks(&self) {
        self.leaks.store(true, Ordering::Relaxed);
    }

    /// Why it has left working order, as far as is known. Of a lane that is not healthy.
    pub fn break_cause(&self) -> BreakCause {
        match self.cause.load(Ordering::Relaxed) {
            0 => BreakCause::Failure,
            1 => BreakCause::ThisEnd,
            _ => BreakCause::Refusal,
        }
    }

    pub(super) fn set_break_cause(&self, cause: BreakCause) {
        self.cause.store(cause as u32, Ordering::Relaxed);
    }

    /// Requests that are over, and requests posted that are not. Not of one moment if the worker is at it; what is over does not
    /// include probes, but for a moment.
    pub fn requests(&self) -> (u64, u32) {
        let (retired, probes) = (self.retired.load(Ordering::Acquire), self.probes.load(Ordering::Relaxed));
        let posted = self.posted.load(Ordering::Relaxed);
        let under_way = (posted as u32).wrapping_sub(retired);
        (posted.wrapping_sub(u64::from(under_way)).saturating_sub(u64::from(probes)), under_way)
    }

    /// Nothing is under way any more: the queue pair is destroyed.
    pub(super) fn end_requests(&self) {
        self.retired.store(self.posted.load(Ordering::Relaxed) as u32, Ordering::Release);
    }

    /// The number of the last [probe](super::WorkerState::post_probe) that was answered; 0 before the first.
    pub fn probe_answered(&self) -> u32 {
        self.probe.load(Ordering::Relaxed)
    }

    /// A probe was answered, or came to nothing, which has no number.
    pub(super) fn end_probe(&self, answered: Option<u32>) {
        self.probes.store(self.probes.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        let Some(number) = answered else { return };
        self.probe.store(number, Ordering::Relaxed);
        if let Some(watcher) = &self.on_change {
            watcher.lane_changed();
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

#[cfg(all(test, flagcx_p2p_loom))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod models {
    use super::*;

    /// A look at what is under way while a worker posts and retires: never more than was posted, nor less than nothing.
    #[test]
    fn a_look_finds_no_more_over_than_posted() {
        loom::model(|| {
            let status = loom::sync::Arc::new(LaneStatus::new(None));
            let worker = {
                let status = status.clone();
                loom::thread::spawn(move || {
                    for posted in 1..3 {
                        status.posted.store(posted, Ordering::Relaxed);
                        status.retired.store(posted as u32, Ordering::Release);
                    }
                })
            };
            let (over, under_way) = status.requests();
            assert!(over + u64::from(under_way) <= 2, "{over} {under_way}");
            worker.join().unwrap();
            assert_eq!(status.requests(), (2, 0));
        });
    }
}

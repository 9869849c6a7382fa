//! Which lane a transfer takes: each thread prefers one of its own.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Connection;
use super::lanes::LaneHandle;
use crate::pool::LaneHealth;
use crate::transfer::SubmitError;

impl Connection {
    /// A lane of a rail in working order. If there is none, one that is being rebuilt: what waits there is moved to another rail.
    pub(super) fn pick_lane_of(&self, rail: usize, hint: usize) -> Result<&LaneHandle, SubmitError> {
        match rail {
            0 if !self.has_rails() => self.pick_lane(hint),
            _ => self.pick_lane_on(rail, hint),
        }
    }

    fn pick_lane_on(&self, rail: usize, hint: usize) -> Result<&LaneHandle, SubmitError> {
        let healing = || self.lanes_of(rail).iter().find(|lane| lane.status.health() != LaneHealth::Closed);
        self.healthy_lane(rail, hint)
            .or_else(healing)
            .ok_or_else(|| self.down(&format!("no lane of rail {rail} is in working order")))
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
    pub(super) fn lanes_from(&self, hint: usize) -> impl Iterator<Item = &LaneHandle> {
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
}

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

//! What must not go on for ever: transfers past their deadline or aborted, lanes that do not drain.

use super::{Verdict, WorkerState};
use crate::pool::clock;
use crate::pool::lane::{LaneHealth, break_lane};

/// How often deadlines are looked at, in milliseconds.
const DEADLINE_CHECK_MS: u64 = 5;

/// How long a queue pair in ERROR may take to flush before it is destroyed, in milliseconds.
const DRAIN_LIMIT_MS: u64 = 2000;

impl WorkerState {
    /// One turn at a time of the caller's, in milliseconds of the pool's clock: for tests.
    #[cfg(all(test, not(flagcx_p2p_loom)))]
    pub(super) fn step_at(&mut self, now: u64) {
        self.turn();
        if now >= self.next_deadline_check {
            self.check_deadlines(now);
        }
    }

    /// Ends what is past its deadline.
    pub(in crate::pool) fn look_at_clock(&mut self) {
        let now = clock::now_ms();
        if now >= self.next_deadline_check {
            self.check_deadlines(now);
        }
    }

    #[cold]
    fn check_deadlines(&mut self, now: u64) {
        self.next_deadline_check = now + DEADLINE_CHECK_MS;
        if self.parts.len() == 0 {
            self.parts.trim();
            return;
        }
        self.check_drains(now);
        let mut waited = false;
        for part_index in 0..self.parts.slots() {
            let Some(part) = self.parts.get(part_index) else { continue };
            let Some(task) = part.task else { continue };
            let late = task.is_late(now);
            if late && task.condemn(Verdict::TimedOut) {
                self.counters.timed_out();
            }
            let forced = late || task.is_aborted();
            if !forced && task.verdict() == Verdict::Fine {
                continue;
            }
            let (lane_index, idle) = (part.lane, part.outstanding == 0);
            if idle {
                waited |= part.waiting;
                self.end_part(part_index);
            } else if forced
                && let Some(lane) = self.lanes.at(lane_index)
                && lane.is_healthy()
            {
                // The only way to make the device let go of memory before it is done with it.
                break_lane(
                    lane,
                    if late { "a transfer passed its deadline" } else { "a transfer was cancelled" },
                );
            }
        }
        if waited {
            self.strike_ended();
        }
    }

    /// Takes those that have ended out of every lane's `waiting`: once for all of them, for they may be a million.
    fn strike_ended(&mut self) {
        for index in self.lanes.places() {
            if let Some(lane) = self.lanes.at(index) {
                lane.waiting.retain(|&waiting| self.parts.get(waiting).is_some_and(|part| part.waiting));
            }
        }
    }

    /// A flush that does not come must not hold a transfer for ever.
    fn check_drains(&mut self, now: u64) {
        for index in self.lanes.places() {
            let Some(lane) = self.lanes.at(index) else { continue };
            if lane.health() != LaneHealth::Broken {
                lane.broken_since = None;
                continue;
            }
            if now - *lane.broken_since.get_or_insert(now) > DRAIN_LIMIT_MS {
                let key = lane.key;
                tracing::warn!("a queue pair was not drained within {DRAIN_LIMIT_MS} ms and is destroyed");
                self.destroy_lane(key, Verdict::Failed, "its queue pair was not drained in time");
            } else {
                self.flush_behind_cut(index);
            }
        }
    }
}

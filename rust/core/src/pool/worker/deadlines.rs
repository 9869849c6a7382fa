//! What must not go on for ever: transfers past their deadline or aborted, lanes that do not drain.

use super::{EndState, PartOwner, WorkerState};
use crate::observe::COUNTED;
use crate::pool::lane::stop_lane;
use crate::pool::lane_status::LaneHealth;
use crate::pool::{clock, quick_clock};

/// How often deadlines are looked at, in milliseconds.
const DEADLINE_CHECK_MS: u64 = 5;

/// Until the clock of deadlines is read again, in nanoseconds of the quick clock.
const QUICK_CHECK: u64 = 1_000_000;

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
        self.destroy_detached();
    }

    /// Ends what is past its deadline.
    pub(in crate::pool) fn look_at_clock(&mut self) {
        let now = quick_clock::now_ns();
        if COUNTED && let Some((count, most)) = self.slow_clock.look(now) {
            self.counters.slow_many(count, most);
        }
        if now >= self.next_clock {
            self.read_clock(now);
        }
    }

    /// Reads the clock of deadlines, which takes three times as long as the quick one.
    #[cold]
    fn read_clock(&mut self, quick: u64) {
        let now = clock::ms(clock::now_ns());
        if now >= self.next_deadline_check {
            self.check_deadlines(now);
        }
        self.next_clock = quick + QUICK_CHECK;
    }

    #[cold]
    fn check_deadlines(&mut self, now: u64) {
        self.next_deadline_check = now + DEADLINE_CHECK_MS;
        if self.parts.len() == 0 {
            self.parts.trim();
            // A probe may be outstanding.
            if self.posted == 0 && !self.is_resisted {
                return;
            }
        }
        self.check_drains(now);
        for index in self.lanes.indices() {
            if let Some(lane) = self.lanes.at(index) {
                lane.note_paths();
            }
            self.start_clocks(index, now);
            self.end_late(index, now);
        }
        self.end_condemned();
    }

    /// The time of parts that were begun since the last look counts from now on.
    pub(super) fn start_clocks(&mut self, index: u16, now: u64) {
        let Some(mut next) = self.lanes.at(index).map(|lane| lane.parts.last()) else { return };
        while let Some(part) = self.parts.get(next).filter(|part| part.since == 0) {
            part.since = now;
            if let Some(owner) = part.owner {
                owner.is_late(now);
            }
            next = part.before();
        }
    }

    /// Ends the parts of a lane that are late. They stand first, as all parts of a lane have the same time limit; looks at
    /// no more than these and the next one.
    fn end_late(&mut self, index: u16, now: u64) {
        let Some(mut next) = self.lanes.at(index).map(|lane| lane.parts.first()) else { return };
        while let Some(part) = self.parts.get(next) {
            let Some(owner) = part.owner.filter(|owner| owner.is_late(now)) else { return };
            let part_index = std::mem::replace(&mut next, part.behind());
            if owner.condemn(EndState::TimedOut) {
                self.early_ends.note_others(owner);
            }
            self.end_now(part_index, Some("a transfer passed its deadline"));
        }
    }

    /// Ends the parts of transfers that are to end early.
    fn end_condemned(&mut self) {
        let mut condemned = std::mem::take(&mut self.condemned);
        if self.early_ends.changed(&mut self.early_ends_seen) {
            condemned.clear();
            for index in self.lanes.indices() {
                let Some(mut next) = self.lanes.at(index).map(|lane| lane.parts.first()) else { continue };
                while let Some(part) = self.parts.get(next) {
                    let part_index = std::mem::replace(&mut next, part.behind());
                    if part.owner.is_some_and(PartOwner::ends_early) {
                        condemned.push(part_index);
                    }
                }
            }
        }
        condemned.retain(|&part_index| {
            let Some(part) = self.parts.get(part_index) else { return false };
            let Some(owner) = part.owner.filter(|owner| owner.ends_early()) else { return false };
            !self.end_now(part_index, owner.is_aborted().then_some("a transfer was cancelled"))
        });
        self.condemned = condemned;
    }

    /// Ends a part if the device has nothing of it. If it has and there is a reason to `force` it, the lane goes to ERROR:
    /// the only way to make the device release memory before it is done with it. On a lane that cannot be stopped the part ends
    /// when what is outstanding is done.
    fn end_now(&mut self, part_index: u32, force: Option<&str>) -> bool {
        let Some(part) = self.parts.get(part_index) else { return true };
        if self.lanes.at(part.lane).is_none() {
            // Its lane is being destroyed, which ends all of its parts.
            return false;
        }
        if part.outstanding == 0 {
            self.end_part(part_index);
            return true;
        }
        if let Some(reason) = force
            && let Some(lane) = self.lanes.at(part.lane)
            && lane.can_stop
        {
            stop_lane(lane, reason);
        }
        false
    }

    /// A flush that does not come must not hold a transfer for ever.
    fn check_drains(&mut self, now: u64) {
        self.is_resisted = false;
        for index in self.lanes.indices() {
            let Some(lane) = self.lanes.at(index) else { continue };
            if lane.health() != LaneHealth::Broken {
                lane.broken_since = None;
                continue;
            }
            if lane.is_destroying {
                continue;
            }
            if !lane.can_stop {
                self.settle_lane(index);
                continue;
            }
            if lane.resists {
                if lane.queue_pair.set_error().is_ok() {
                    lane.resists = false;
                    self.settle_lane(index);
                    continue;
                }
                self.is_resisted = true;
            }
            if lane.awaits_destroy {
                // Its time begins once that was tried.
                lane.broken_since = None;
                self.flush_behind_cut(index);
            } else if now - *lane.broken_since.get_or_insert(now) > DRAIN_LIMIT_MS {
                let key = lane.key;
                tracing::warn!("a queue pair was not drained within {DRAIN_LIMIT_MS} ms and is destroyed");
                self.detach_lane(key, EndState::Failed, "its queue pair was not drained in time");
            } else {
                self.flush_behind_cut(index);
            }
        }
    }
}

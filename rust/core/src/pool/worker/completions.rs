//! Completions: what they retire, what they fail, and what becomes of a lane in ERROR.

use super::{EndState, EndedPart, RequestFailure, WorkerState, condemn, fail, note_late};
use crate::fabric::{Completion, CompletionStatus, FabricError};
use crate::observe::{Direction, WorkerCounters};
use crate::pool::lane::{Lane, fail_lane, make_ready, note_refusal, refuse_lane};
use crate::pool::lane_key::LaneKey;
use crate::pool::lane_status::LaneHealth;
use crate::pool::part::Parts;
use crate::pool::slow_clock::SlowClock;
use crate::sync::Ordering;

/// How often a part may be interrupted by failing lanes before it fails.
pub(super) const MAX_INTERRUPTIONS: u8 = 3;
/// Where a failing path and a bad request have the same name, a part is tried once more on its rail, and once on another one: each failure
/// of a bad request interrupts all that is behind it.
const MOST_LOCAL_MOVES: u8 = 1;

impl WorkerState {
    #[inline]
    pub(super) fn poll(&mut self) -> usize {
        let count = match self.queue.poll(&mut self.completions) {
            Ok(count) => count,
            Err(error) => {
                self.queue_failed(&error);
                return 0;
            }
        };
        let completions = std::mem::take(&mut self.completions);
        let polled = completions.get(..count).unwrap_or_default();
        // One success after the other on the same lane: the last one says all of it.
        for last in polled.chunk_by(says_as_much).filter_map(<[Completion]>::last) {
            self.complete(last);
        }
        self.completions = completions;
        count
    }

    #[inline]
    fn complete(&mut self, completion: &Completion) {
        let (key, sequence) = LaneKey::of_request(completion.id);
        let done = completion.status == CompletionStatus::Success;
        let Some(lane) = self.lanes.get(key) else { return };
        let end = sequence.wrapping_add(u32::from(done));
        self.posted -= retire(lane, &mut self.parts, end, &self.counters, &mut self.slow_clock);
        if !done {
            self.fail_request(key.index(), sequence, completion);
        } else if lane.health() == LaneHealth::Broken {
            // What was outstanding when it was moved to ERROR had been carried out: no flush will say so.
            self.settle_lane(key.index());
        } else {
            make_ready(lane, &mut self.ready, self.limits.left(self.posted));
        }
    }

    /// A request failed, as `completion` says.
    #[cold]
    fn fail_request(&mut self, index: u16, sequence: u32, completion: &Completion) {
        let Some(lane) = self.lanes.at(index) else { return };
        let suspects = if lane.queue_pair.names_failed_request() { 1 } else { lane.suspects() as usize };
        let Some(group) = lane.groups.front_mut().filter(|group| group.first == sequence) else { return };
        lane.status.retired.store(sequence.wrapping_add(1), Ordering::Release);
        let part_index = group.part;
        let Some(part) = self.parts.get(part_index) else { return self.fail_probe(index, completion) };
        let at = group.start as usize;
        // All of one part: it goes on before others do after a list that was cut short.
        let last = (at + suspects).saturating_sub(1);
        group.retire(1);
        if group.count == 0 {
            lane.groups.pop_front();
        }
        lane.outstanding -= 1;
        self.posted -= 1;
        part.outstanding -= 1;
        let is_path = completion.status == CompletionStatus::LocalQpOperation
            && lane.queue_pair.path_fails_as_local()
            && part.local_failures < 1 + part.moves.min(MOST_LOCAL_MOVES);
        let is_tolerated = is_path || is_interruption(completion.status);
        if lane.heals && is_tolerated && part.interruptions < MAX_INTERRUPTIONS + part.moves {
            if part.rewind.is_none() {
                part.rewind = Some(at);
                part.local_failures += u8::from(is_path);
            }
        } else if let Some(owner) = part.owner {
            let iov = part.list.iov(at);
            let failure = RequestFailure {
                iov,
                last_iov: part.list.iov(last).max(iov),
                status: completion.status,
                vendor_error: completion.vendor_error,
                reason: Some(lane.status.reason())
                    .filter(|reason| !reason.is_empty())
                    .unwrap_or_else(|| lane.queue_pair.error_text()),
            };
            fail(&self.early_ends, owner, failure);
            self.counters.failed();
        }
        let part_over =
            part.outstanding == 0 && part.owner.is_some_and(|owner| owner.end_state() != EndState::Done);
        match (completion.status.is_refusal(), lane.is_healthy()) {
            (true, true) => refuse_lane(lane, &completion.status.to_string()),
            (true, false) => note_refusal(lane),
            (false, true) => fail_lane(lane, &completion.status.to_string()),
            (false, false) => {}
        }
        if part_over {
            self.end_part(part_index);
        }
        self.settle_lane(index);
    }

    /// The oldest request of a lane, a probe, failed.
    #[cold]
    fn fail_probe(&mut self, index: u16, completion: &Completion) {
        let Some(lane) = self.lanes.at(index) else { return };
        lane.groups.pop_front();
        lane.outstanding -= 1;
        self.posted -= 1;
        lane.end_probe(false);
        if lane.is_healthy() {
            fail_lane(lane, &completion.status.to_string());
        }
        self.settle_lane(index);
    }

    /// Once a lane in ERROR is drained: rewinds its interrupted parts, or ends them if it does not heal.
    #[cold]
    pub(super) fn settle_lane(&mut self, index: u16) {
        let Some(lane) = self.lanes.at(index) else {
            return;
        };
        self.is_resisted |= lane.resists;
        if lane.outstanding > 0 || lane.resists || lane.is_destroying || lane.health() != LaneHealth::Broken {
            return;
        }
        lane.groups.clear();
        if lane.orphaned.is_some() {
            return self.end_orphan(index);
        }
        let reason = lane.status.reason();
        let mut heals = lane.heals;
        let mut next = lane.parts.first();
        while let Some(part) = self.parts.get(next) {
            let part_index = std::mem::replace(&mut next, part.behind());
            if let Some(cursor) = part.rewind.take() {
                part.cursor = cursor;
                part.interruptions += 1;
                lane.status.counts.retries.add(1);
                if !part.waiting {
                    part.waiting = true;
                    self.unposted += 1;
                    lane.turns.push_back(&mut self.parts, part_index);
                }
            }
        }
        // A queue that leads to no peer is made usable again here; others are rebuilt by their connection.
        if heals && !lane.can_stop {
            match lane.queue_pair.renew() {
                Ok(()) => {
                    lane.set_health(LaneHealth::Healthy, "");
                    make_ready(lane, &mut self.ready, self.limits.left(self.posted));
                    return;
                }
                Err(error) => {
                    tracing::warn!("a copy stream cannot be opened again: {error}");
                    (heals, lane.heals) = (false, false);
                }
            }
        }
        if !heals {
            self.fail_waiting(index, EndState::Failed, &reason);
        }
        if let Some(lane) = self.lanes.at(index) {
            lane.set_health(LaneHealth::Drained, &reason);
        }
    }

    /// Ends what waits on a lane; parts with something outstanding end when that is drained, and with them those that it has interrupted.
    #[cold]
    pub(super) fn fail_waiting(&mut self, index: u16, state: EndState, reason: &str) {
        let Some(lane) = self.lanes.at(index) else {
            return;
        };
        let waiting: Vec<u32> = std::iter::from_fn(|| lane.turns.pop_front(&mut self.parts)).collect();
        let mut next = lane.parts.first();
        while let Some(part) = self.parts.get(next) {
            next = part.behind();
            if let Some(owner) = part.owner {
                condemn(&self.early_ends, owner, state, reason);
            }
        }
        for part_index in waiting {
            let Some(part) = self.parts.get(part_index) else { continue };
            self.unposted -= u32::from(std::mem::take(&mut part.waiting));
            part.rewind = None;
            if part.outstanding == 0 {
                self.end_part(part_index);
            }
        }
    }

    #[cold]
    fn queue_failed(&mut self, error: &FabricError) {
        if self.lanes.is_empty() {
            // Those that it had are being destroyed.
            return;
        }
        tracing::error!("completion queue failed, its lanes are closed: {error}");
        for index in self.lanes.indices() {
            let Some(key) = self.lanes.at(index).map(|lane| lane.key) else { continue };
            self.detach_lane(key, EndState::Failed, &error.to_string());
        }
        // Nothing more of them is polled: their credits are free already. Orphans keep theirs.
        self.detached.iter_mut().for_each(|detached| detached.lane.outstanding = 0);
        let left = self.lanes.indices().filter_map(|index| self.lanes.at(index).map(|lane| lane.outstanding));
        self.posted = left.sum();
    }
}

/// Whether `next` makes `completion` known as well: requests of a lane are carried out in order.
#[inline]
fn says_as_much(completion: &Completion, next: &Completion) -> bool {
    let lane = |completion: &Completion| LaneKey::of_request(completion.id).0;
    completion.status == CompletionStatus::Success
        && next.status == CompletionStatus::Success
        && lane(completion) == lane(next)
}

/// Retires, as done, every outstanding request of a lane before sequence number `end`, and says how many they were.
#[inline]
fn retire(
    lane: &mut Lane,
    parts: &mut Parts,
    end: u32,
    counters: &WorkerCounters,
    slow_clock: &mut SlowClock,
) -> u32 {
    let before = lane.outstanding;
    while let Some(group) = lane.groups.front_mut() {
        let done = end.wrapping_sub(group.first);
        if done == 0 || done > i32::MAX as u32 {
            break;
        }
        // Nothing before `end` is left behind this one: spares a look at the next.
        let last = done <= group.count;
        let done = done.min(group.count);
        let part_index = group.part;
        lane.status.retired.store(end, Ordering::Release);
        if done == group.count {
            lane.groups.pop_front();
        } else {
            group.retire(done);
        }
        lane.outstanding -= done;
        let Some(part) = parts.get(part_index) else {
            lane.end_probe(true);
            continue;
        };
        part.outstanding -= done;
        if part.outstanding == 0 && !part.waiting && part.rewind.is_none() {
            let (direction, bytes) = (Direction::from(part.list.opcode), part.list.bytes);
            let begun_at = part.begun_at;
            lane.parts.remove(parts, part_index);
            if let Some(owner) = parts.release(part_index, Some(&lane.recent)) {
                let end = owner.end_part();
                EndedPart { direction, bytes, end }.count(&lane.counts);
                if slow_clock.ends_late(begun_at) {
                    note_late(parts, part_index, end, counters, slow_clock);
                }
            }
        }
        if last {
            break;
        }
    }
    before - lane.outstanding
}

/// Failures that say nothing about the request itself: it may be tried again on a rebuilt queue pair.
fn is_interruption(status: CompletionStatus) -> bool {
    matches!(
        status,
        CompletionStatus::Flushed
            | CompletionStatus::RetryExceeded
            | CompletionStatus::RnrRetryExceeded
            | CompletionStatus::Fatal
    )
}

//! Parts that leave a lane for another one, of this worker or of another.

use std::sync::Arc;
use std::time::Duration;

use super::{EndState, EndedPart, WorkerState, condemn, late_by};
use crate::fabric::Opcode;
use crate::observe::{Direction, process_counts};
use crate::pool::lane_key::LaneKey;
use crate::pool::lane_status::LaneHealth;
use crate::pool::part_list::{Links, NONE};
use crate::pool::slow_clock::SLOW;
use crate::pool::taken_part::TakenPart;
use crate::pool::{clock, quick_clock};

impl WorkerState {
    /// Takes the parts off a drained lane, those that do this or all, the oldest first: nothing of them is under way. None if the lane is
    /// in any other state. Parts of transfers that are to end are ended instead.
    ///
    /// Of a WRITE that had been posted, the peer's queue pair must be quiet as well before it is put anywhere.
    pub fn take_parts(&mut self, key: LaneKey, opcode: Option<Opcode>) -> Vec<TakenPart> {
        let drained = self.lanes.get(key).is_some_and(|lane| lane.health() == LaneHealth::Drained);
        if drained {
            self.take(key, |part_opcode, _| opcode.is_none_or(|opcode| opcode == part_opcode))
        } else {
            Vec::new()
        }
    }

    /// Takes the parts of which nothing was ever posted off a lane that is broken or drained, as [`WorkerState::take_parts`] does.
    pub fn take_unposted(&mut self, key: LaneKey) -> Vec<TakenPart> {
        let down = |health| matches!(health, LaneHealth::Broken | LaneHealth::Drained);
        let down = self.lanes.get(key).is_some_and(|lane| down(lane.health()));
        if down { self.take(key, |_, unposted| unposted) } else { Vec::new() }
    }

    /// Takes those parts of which nothing is outstanding and that are `wanted`, by what they do and whether nothing of them was posted.
    fn take(&mut self, key: LaneKey, wanted: impl Fn(Opcode, bool) -> bool) -> Vec<TakenPart> {
        let now = clock::ms(clock::now_ns());
        self.start_clocks(key.index(), now);
        let mut taken = Vec::new();
        let Some(mut next) = self.lanes.get(key).map(|lane| lane.parts.first()) else { return taken };
        while let Some(part) = self.parts.get(next) {
            let part_index = std::mem::replace(&mut next, part.behind());
            let unposted = part.cursor == 0 && part.interruptions == 0;
            let is_wanted =
                part.outstanding == 0 && part.rewind.is_none() && wanted(part.list.opcode, unposted);
            let Some(owner) = part.owner.filter(|_| is_wanted) else { continue };
            if owner.is_late(now) && owner.condemn(EndState::TimedOut) {
                self.early_ends.note_others(owner);
            }
            if owner.ends_early() {
                self.end_part(part_index);
            } else {
                taken.extend(self.take_part(key, part_index));
            }
        }
        taken
    }

    /// Takes one part off its lane and frees its place.
    fn take_part(&mut self, key: LaneKey, part_index: u32) -> Option<TakenPart> {
        let (lane, part) = (self.lanes.get(key)?, self.parts.get(part_index)?);
        let owner = part.owner.take()?;
        let begun = match part.begun {
            0 => {
                let now = quick_clock::now_ns();
                let took = self.slow_clock.took(part.begun_at, late_by(part.since), now);
                now.saturating_sub(took.as_nanos() as u64).max(1)
            }
            begun => begun,
        };
        let taken = TakenPart {
            owner,
            list: std::mem::take(&mut part.list),
            from: part.cursor,
            begun,
            is_measured: std::mem::take(&mut part.is_measured),
            since: part.since,
            interruptions: part.interruptions,
            local_failures: part.local_failures,
            moves: part.moves,
        };
        let waiting = std::mem::take(&mut part.waiting);
        lane.parts.remove(&mut self.parts, part_index);
        if waiting {
            self.unposted -= 1;
            lane.turns.remove(&mut self.parts, part_index);
        }
        lane.counts.part_went(taken.list.bytes);
        self.parts.release(part_index, None);
        // Callers that sleep know of this worker, but not of the next one.
        owner.watch();
        Some(taken)
    }

    /// Puts a part on a lane, where it goes on; gives it back if the lane takes none. `worker` is the bit of this worker. Of several parts the
    /// oldest is to be put first, which takes the least time.
    #[expect(clippy::result_large_err, reason = "the part goes back whole")]
    pub fn put_part(&mut self, key: LaneKey, part: TakenPart, worker: usize) -> Result<(), TakenPart> {
        let Some(lane) = self.lanes.get(key).filter(|lane| lane.takes_parts()) else { return Err(part) };
        let TakenPart { owner, list, from, begun, is_measured, since, interruptions, local_failures, moves } =
            part;
        owner.moves_to(worker);
        lane.counts.part_came(list.bytes);
        let part_index = self.parts.acquire();
        self.link_by_age(key, part_index, since);
        let begun_at = self.slow_clock.long_ago();
        let Some(part) = self.parts.get(part_index) else { return Ok(()) };
        (part.owner, part.lane, part.list, part.cursor) = (Some(owner), key.index(), list, from);
        (part.begun_at, part.begun, part.is_measured) = (begun_at, begun, is_measured);
        (part.since, part.interruptions, part.moves) = (since, interruptions, moves);
        part.local_failures = local_failures;
        // This worker may have looked for parts of an early end already, and does not look again for this one.
        if part.is_posted() || owner.ends_early() {
            self.end_part(part_index);
        } else {
            self.queue_part(key.index(), part_index);
            self.post_ready();
        }
        Ok(())
    }

    /// Puts a part among those of its lane in the order in which their time limits began: those that are late stand first.
    fn link_by_age(&mut self, key: LaneKey, part_index: u32, since: u64) {
        let Some(lane) = self.lanes.get(key) else { return };
        // From the youngest on: of parts that come in a row each stands behind the one before.
        let (mut before, mut behind) = (lane.parts.last(), NONE);
        while let Some(part) = self.parts.get(before).filter(|part| part.since == 0 || part.since > since) {
            behind = std::mem::replace(&mut before, part.before());
        }
        lane.parts.insert(&mut self.parts, part_index, Links { before, behind });
    }

    /// Ends a part that no lane takes, in `state` for `reason` unless its transfer is to end otherwise already. Counted on the lane that it was taken
    /// off, which is one of this worker's, even if that is gone.
    pub fn end_taken(&mut self, key: LaneKey, part: TakenPart, state: EndState, reason: &str) {
        let TakenPart { owner, mut list, begun, is_measured, .. } = part;
        let (direction, bytes) = (Direction::from(list.opcode), list.bytes);
        condemn(&self.early_ends, owner, state, reason);
        // Before the end is known: its memory may be taken away then.
        list.clear();
        let ended = EndedPart { direction, bytes, end: owner.end_part() };
        let took = Duration::from_nanos(quick_clock::now_ns().saturating_sub(begun));
        if is_measured {
            self.counters.ended(took);
        }
        if ended.end.is_last() && took >= SLOW {
            self.counters.slow_many(1, took);
        }
        let counts = match self.lanes.get(key) {
            Some(lane) => Some(Arc::clone(&lane.counts)),
            None => self.lanes.counts_of_gone(key),
        };
        if let Some(counts) = counts {
            counts.part_came(bytes);
            ended.count(&counts);
        } else {
            process_counts().unplaced().end(
                direction,
                ended.end.state(),
                u64::from(ended.end.is_last()),
                bytes,
            );
        }
    }
}

//! A part on its way from a lane to another one, perhaps of another NIC.

use super::part_owner::PartOwner;
use super::request_list::RequestList;

/// A part that was taken off a lane: nothing of it is under way. Its transfer has not ended as long as this lives, so it is to be
/// put on a lane soon, or [ended](super::WorkerState::end_taken); dropped, the transfer would never end.
#[derive(Debug)]
#[must_use = "its transfer does not end before it is put on a lane or ended"]
pub struct TakenPart {
    /// What it is a part of.
    pub owner: &'static dyn PartOwner,
    /// What it moves, all of it: what is done already stands before `from`.
    pub list: RequestList,
    /// The first request that has to be posted.
    pub from: usize,
    /// When its transfer began, in nanoseconds of the quick clock.
    pub(super) begun: u64,
    /// Its latency is one of the sample.
    pub(super) is_measured: bool,
    /// Since when its time limit counts, in milliseconds of the pool's clock.
    pub(super) since: u64,
    /// How often it was interrupted.
    pub(super) interruptions: u8,
    /// How often of these it was the first to fail, by a local error.
    pub(super) local_failures: u8,
    /// How often it went to another lane before.
    pub(super) moves: u8,
}

/// So often a part that goes to another lane may be interrupted once more: it ends in bounded time where every rail fails.
const MOST_MOVES: u8 = 24;

impl TakenPart {
    /// It goes to another lane.
    pub(super) fn count_move(&mut self) {
        self.moves = self.moves.saturating_add(1).min(MOST_MOVES);
    }

    /// The first request that another NIC has to post: a READ that flushes GPU memory makes sure of what its own NIC has written, so the
    /// WRITEs before it go with it, those that are done as well.
    pub fn first_elsewhere(&self) -> usize {
        if self.list.flushes_gpu() { 0 } else { self.from }
    }
}

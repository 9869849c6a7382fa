//! How the last released transfers ended.

use std::collections::VecDeque;

use super::slots::{FREE, Slot, takings};
use super::{Outcome, TransferId};
use crate::sync::{Mutex, lock};

/// Number of transfers that keep a readable outcome after their release.
pub const REMEMBERED: usize = 4096;

/// The outcomes of the last transfers that ended otherwise than done. That the others were done needs no record: a slot's word says
/// which transfers it has had.
#[derive(Debug, Default)]
pub(super) struct Outcomes(Mutex<VecDeque<Recorded>>);

#[derive(Debug)]
struct Recorded {
    id: TransferId,
    outcome: Outcome,
    slot: &'static Slot,
    /// How often the slot had been taken when this was recorded.
    takings: u64,
}

impl Outcomes {
    /// Records how a transfer of `slot` ended that was not done: before the slot is free of it, or it would read as done.
    #[cold]
    pub(super) fn record(&self, id: TransferId, slot: &'static Slot, outcome: Outcome) {
        let takings = takings(slot.word());
        let mut last = lock(&self.0);
        // Two threads may release the same transfer at the same time and both come here.
        if let Some(known) = last.iter_mut().rev().take(64).find(|known| known.id == id) {
            known.takings = takings;
            return;
        }
        if last.len() == REMEMBERED
            && let Some(oldest) = last.pop_front()
        {
            oldest.slot.forget(oldest.id.0);
        }
        last.push_back(Recorded { id, outcome, slot, takings });
    }

    /// How a transfer of `slot` ended that was released, if it is among the last [`REMEMBERED`].
    pub(super) fn find(&self, id: TransferId, slot: &Slot) -> Option<Outcome> {
        // Before the slot's word: what is recorded before a release is found after it.
        let last = lock(&self.0);
        let (word, number) = (slot.word(), takings(id.0));
        if number == 0 || id.0 & FREE != 0 || word <= id.0 {
            return None;
        }
        let is_late = |since: u64| takings(word).saturating_sub(since) > REMEMBERED as u64;
        match last.iter().rev().find(|known| known.id == id) {
            Some(known) => Some(&known.outcome).filter(|_| !is_late(known.takings)).cloned(),
            None => Some(Outcome::Done).filter(|_| !is_late(number) && !slot.has_forgotten(id.0)),
        }
    }
}

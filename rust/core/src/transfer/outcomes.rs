//! How the last released transfers ended.

use std::collections::{BTreeMap, HashMap};

use super::slots::{FREE, Slot, takings};
use super::{Outcome, TransferId};
use crate::sync::{Mutex, lock};

/// Number of transfers that keep a readable outcome after their release.
pub const REMEMBERED: usize = 4096;

/// The outcomes of the last transfers that ended otherwise than done. That the others were done needs no record: a slot's word says
/// which transfers it has had.
#[derive(Debug, Default)]
pub(super) struct Outcomes(Mutex<Last>);

#[derive(Debug, Default)]
struct Last {
    by_id: HashMap<TransferId, Recorded>,
    /// In the order in which they were recorded, each for the last time.
    order: BTreeMap<u64, TransferId>,
    /// The place in the order of what is recorded next.
    next: u64,
}

#[derive(Debug)]
struct Recorded {
    outcome: Outcome,
    slot: &'static Slot,
    /// How often the slot had been taken when this was recorded.
    takings: u64,
    /// Its place in the order.
    order: u64,
}

impl Outcomes {
    /// Records how a transfer of `slot` ended that was not done: before the slot is free of it, or it would read as done. Again when a
    /// failure that was set aside is told, or if two threads release the transfer at the same time: it then is the last one.
    #[cold]
    pub(super) fn record(&self, id: TransferId, slot: &'static Slot, outcome: Outcome) {
        let takings = takings(slot.word());
        let mut last = lock(&self.0);
        let Last { by_id, order, next } = &mut *last;
        let recorded = Recorded { outcome, slot, takings, order: *next };
        if let Some(before) = by_id.insert(id, recorded) {
            order.remove(&before.order);
        }
        order.insert(*next, id);
        *next += 1;
        if by_id.len() > REMEMBERED
            && let Some((_, oldest)) = order.pop_first()
            && let Some(forgotten) = by_id.remove(&oldest)
        {
            forgotten.slot.forget(oldest.0);
        }
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
        match last.by_id.get(&id) {
            Some(known) => Some(&known.outcome).filter(|_| !is_late(known.takings)).cloned(),
            None => Some(Outcome::Done).filter(|_| !is_late(number) && !slot.has_forgotten(id.0)),
        }
    }
}

//! How workers learn that a transfer of which they have parts is to end early, without looking at all they have.

use super::part_owner::PartOwner;
use crate::sync::{AtomicU64, Ordering};

/// Counts, for one pool, the transfers that were told to end by something that does not know their parts: a caller that
/// cancels, or a worker that has failed another part. A worker looks through its parts when the count has changed.
#[derive(Debug, Default)]
pub struct EarlyEnds {
    /// Incremented by callers and workers (Release) after they have changed an owner; workers load it (Acquire) before they
    /// look at owners, so they find the change.
    count: AtomicU64,
}

impl EarlyEnds {
    /// An owner was condemned or aborted, and a worker that may have parts of it has to be told.
    pub fn note(&self) {
        self.count.fetch_add(1, Ordering::Release);
    }

    /// As [`EarlyEnds::note`], by a worker that has one part: nothing to tell if that is the only one left.
    pub(super) fn note_others(&self, owner: &dyn PartOwner) {
        if owner.parts_left() > 1 {
            self.note();
        }
    }

    /// Whether there were some since `seen`, which is brought up to date.
    pub(super) fn changed(&self, seen: &mut u64) -> bool {
        let count = self.count.load(Ordering::Acquire);
        std::mem::replace(seen, count) != count
    }
}

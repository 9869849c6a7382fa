//! When workers look for parts of transfers that are to end early, without a look at all parts each time.

use super::part_owner::PartOwner;
use crate::sync::{AtomicU64, Ordering};

/// Counts, for one pool, the transfers that are to end early because of something that does not know their parts: a caller that
/// cancels, or a worker that has failed another part. A worker looks through its parts when the count has changed.
#[derive(Debug, Default)]
pub struct EarlyEnds {
    /// Incremented by callers and workers (Release) after they have changed an owner; workers load it (Acquire) before they
    /// look at owners, so they find the change.
    count: AtomicU64,
}

impl EarlyEnds {
    /// An owner was condemned or aborted, and each worker that may have parts of it has to look for them.
    pub fn note(&self) {
        self.count.fetch_add(1, Ordering::Release);
    }

    /// As [`EarlyEnds::note`], by a worker that has one part: nothing is counted if that is the only one left.
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

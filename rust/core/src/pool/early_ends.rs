//! When workers look for parts of transfers that are to end early, without a look at all parts each time.

use std::sync::Arc;

use super::part_owner::PartOwner;
use crate::fork::PerProcess;
use crate::sync::{AtomicU64, Ordering};

/// Counts the transfers that are to end early because of something that does not know their parts: a caller that
/// cancels, or a worker that has failed another part. A worker looks through its parts when the count has changed. All pools of a process
/// have the same one, for a transfer may have parts on several NICs.
#[derive(Debug, Default)]
pub struct EarlyEnds {
    /// Incremented by callers and workers (Release) after they have changed an owner; workers load it (Acquire) before they
    /// look at owners, so they find the change.
    count: AtomicU64,
}

/// That of the process.
static OF_PROCESS: PerProcess<Arc<EarlyEnds>> = PerProcess::new(Arc::default);

impl EarlyEnds {
    /// That of all pools.
    pub(super) fn of_process() -> Arc<Self> {
        Arc::clone(OF_PROCESS.get())
    }

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

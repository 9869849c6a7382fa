//! What is counted of a lane.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::copy_counts::CopyCounts;
use crate::fabric::{Opcode, Paths};
use crate::observe::{
    COUNTED, Counter, Direction, PathNames, TransferCounts, TransferSource, TransferTotals,
};

/// Counts of one lane. They outlive its queue pairs, and the lane in its worker.
#[derive(Debug, Default)]
pub struct LaneCounts {
    /// By the paths that the lane has had: more than one only if one was denied later, or a rebuild found another one.
    by_path: Mutex<ByPath>,
    /// Parts that were posted again. Written under the worker's lock.
    pub(super) retries: Counter,
    /// Queue pairs that have replaced another one. Written under the worker's lock.
    pub(super) rebuilds: Counter,
}

#[derive(Debug, Default)]
struct ByPath {
    posted: Vec<Arc<TransferCounts>>,
    direct: Vec<Arc<CopyCounts>>,
}

impl LaneCounts {
    /// Where to count what the worker posts while the lane has these paths.
    pub(super) fn posted(&self, paths: PathNames) -> Arc<TransferCounts> {
        let mut counts = self.lock();
        if let Some(known) = counts.posted.iter().find(|counts| counts.paths() == paths) {
            return Arc::clone(known);
        }
        let made = Arc::new(TransferCounts::new(paths));
        counts.posted.push(Arc::clone(&made));
        made
    }

    /// Where to count what callers copy while the lane has these paths.
    pub(super) fn direct(&self, paths: PathNames) -> Arc<CopyCounts> {
        let mut counts = self.lock();
        if let Some(known) = counts.direct.iter().find(|counts| counts.paths() == paths) {
            return Arc::clone(known);
        }
        let made = Arc::new(CopyCounts::new(paths));
        counts.direct.push(Arc::clone(&made));
        made
    }

    /// Whether nothing that was posted is unfinished. Without a worker's lock, so it may have changed since.
    pub fn is_idle(&self) -> bool {
        // Each part has bytes, and they are counted on the lane that has it.
        let (begun, ended) = self.bytes();
        COUNTED && begun == ended
    }

    /// Bytes of the parts that it has had and that have not gone to other lanes, and of those that have ended on it: the first less the
    /// second is what it has now. All bytes of a part count where it ends. What callers copy themselves is not in it. For looks at short
    /// intervals: it takes about 0.1 us.
    pub fn bytes(&self) -> (u64, u64) {
        let counts = self.lock();
        // What ended is read first, or what is in flight would seem to be less than it is.
        let ended = counts.posted.iter().fold(0, |sum: u64, counts| sum.wrapping_add(counts.ended_bytes()));
        let had = counts.posted.iter().fold(0, |sum: u64, counts| sum.wrapping_add(counts.bytes_had()));
        (had, ended)
    }

    /// Parts that were posted again after the lane had failed.
    pub fn retries(&self) -> u64 {
        self.retries.get()
    }

    /// How often the lane was rebuilt.
    pub fn rebuilds(&self) -> u64 {
        self.rebuilds.get()
    }

    /// The data behind the lock is consistent after every statement, so a poisoned lock is usable.
    fn lock(&self) -> MutexGuard<'_, ByPath> {
        self.by_path.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TransferSource for LaneCounts {
    fn add_started(&self, totals: &mut TransferTotals) {
        let counts = self.lock();
        counts.posted.iter().for_each(|counts| counts.add_started(totals));
        counts.direct.iter().for_each(|counts| counts.add_started(totals));
    }

    fn add_ended(&self, totals: &mut TransferTotals) {
        let counts = self.lock();
        counts.posted.iter().for_each(|counts| counts.add_ended(totals));
        counts.direct.iter().for_each(|counts| counts.add_ended(totals));
    }
}

/// The names of the paths of a lane. Copy streams, the only lanes that cannot be stopped, are those of a GPU.
pub(super) fn path_names(paths: Paths, can_stop: bool) -> PathNames {
    if can_stop {
        PathNames { write: paths.write.name(), read: paths.read.name() }
    } else {
        PathNames { write: "gpu", read: "gpu" }
    }
}

impl From<Opcode> for Direction {
    #[inline(always)]
    fn from(opcode: Opcode) -> Self {
        match opcode {
            Opcode::Write => Self::Write,
            Opcode::Read => Self::Read,
        }
    }
}

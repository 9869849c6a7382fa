//! What is counted of a lane.

use std::iter::successors;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use once_cell::sync::OnceCell;

use super::copy_counts::CopyCounts;
use crate::fabric::{Opcode, Paths};
use crate::observe::{
    COUNTED, Counter, Direction, PathNames, TransferCounts, TransferSource, TransferTotals,
};

/// Counts of one lane. They outlive its queue pairs, and the lane in its worker.
#[derive(Debug, Default)]
pub struct LaneCounts {
    /// By the paths that the lane has had: more than one only if one was denied later, or a rebuild found another one. It grows at its
    /// end and never shrinks, so that submitters, which ask for bytes, take no lock. Written under `direct`'s lock.
    posted: OnceCell<Posted>,
    direct: Mutex<Vec<Arc<CopyCounts>>>,
    /// Parts that were posted again. Written under the worker's lock.
    pub(super) retries: Counter,
    /// Queue pairs that have replaced another one. Written under the worker's lock.
    pub(super) rebuilds: Counter,
}

/// What was posted on one path, and on those after it.
#[derive(Debug)]
struct Posted {
    counts: Arc<TransferCounts>,
    next: OnceCell<Box<Self>>,
}

impl LaneCounts {
    /// Where to count what the worker posts while the lane has these paths.
    pub(super) fn posted(&self, paths: PathNames) -> Arc<TransferCounts> {
        let _one_at_a_time = self.lock();
        if let Some(known) = self.all_posted().find(|counts| counts.paths() == paths) {
            return Arc::clone(known);
        }
        let counts = Arc::new(TransferCounts::new(paths));
        let made = Posted { counts: Arc::clone(&counts), next: OnceCell::new() };
        // There is no other writer, so the place at the end is free.
        match successors(self.posted.get(), |posted| posted.next.get().map(|next| &**next)).last() {
            None => drop(self.posted.set(made)),
            Some(last) => drop(last.next.set(Box::new(made))),
        }
        counts
    }

    /// Where to count what callers copy while the lane has these paths.
    pub(super) fn direct(&self, paths: PathNames) -> Arc<CopyCounts> {
        let mut counts = self.lock();
        if let Some(known) = counts.iter().find(|counts| counts.paths() == paths) {
            return Arc::clone(known);
        }
        let made = Arc::new(CopyCounts::new(paths));
        counts.push(Arc::clone(&made));
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
    /// intervals, and for submitters: it takes no lock.
    pub fn bytes(&self) -> (u64, u64) {
        // What ended is read first, or what is in flight would seem to be less than it is.
        let ended = self.all_posted().fold(0, |sum: u64, counts| sum.wrapping_add(counts.ended_bytes()));
        let had = self.all_posted().fold(0, |sum: u64, counts| sum.wrapping_add(counts.bytes_had()));
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

    fn all_posted(&self) -> impl Iterator<Item = &Arc<TransferCounts>> {
        successors(self.posted.get(), |posted| posted.next.get().map(|next| &**next))
            .map(|posted| &posted.counts)
    }

    /// The data behind the lock is consistent after every statement, so a poisoned lock is usable.
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<CopyCounts>>> {
        self.direct.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TransferSource for LaneCounts {
    fn add_started(&self, totals: &mut TransferTotals) {
        self.all_posted().for_each(|counts| counts.add_started(totals));
        self.lock().iter().for_each(|counts| counts.add_started(totals));
    }

    fn add_ended(&self, totals: &mut TransferTotals) {
        self.all_posted().for_each(|counts| counts.add_ended(totals));
        self.lock().iter().for_each(|counts| counts.add_ended(totals));
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

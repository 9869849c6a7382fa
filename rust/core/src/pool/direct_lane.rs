//! The direct copies of a lane: made by submitters, without the worker and its lock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::fabric::{DirectCopy, DirectPiece, NotDirect, Opcode};
use crate::observe::{SAMPLE_EVERY, SharedCounts};
use crate::sync::Swap;

/// Copies by way of a queue pair, and where they are counted.
type Direct = (Arc<dyn DirectCopy>, Arc<SharedCounts>);

/// Copies by way of the lane's queue pair, as long as the lane is healthy.
#[derive(Debug)]
pub struct DirectLane {
    /// Of the queue pair that the lane has now; none while it is not healthy. Replaced under the worker's lock, read by
    /// submitters.
    copy: Swap<Option<Direct>>,
}

impl Default for DirectLane {
    fn default() -> Self {
        Self { copy: Swap::from_pointee(None) }
    }
}

impl DirectLane {
    /// The lane has another queue pair, or is not healthy any more.
    pub(super) fn set(&self, copy: Option<Direct>) {
        self.copy.store(Arc::new(copy));
    }

    /// Whether the lane's queue pair has direct copies now.
    pub fn is_there(&self) -> bool {
        self.copy.load().is_some()
    }

    /// Copies the pieces of one transfer, of `bytes` in all, and counts it where the thread with this number does. Answers how
    /// long it took if it is one of those that have their latency measured.
    #[inline]
    pub fn copy(
        &self,
        opcode: Opcode,
        pieces: &[DirectPiece],
        bytes: u64,
        thread: usize,
    ) -> Result<Option<Duration>, NotDirect> {
        let copy = self.copy.load();
        let Some((copy, counts)) = &**copy else { return Err(NotDirect) };
        let is_sampled = counts.done_beside(thread, opcode.into()).is_multiple_of(SAMPLE_EVERY);
        let since = is_sampled.then(Instant::now);
        copy.copy(opcode, pieces)?;
        counts.done(thread, opcode.into(), bytes);
        Ok(since.map(|since| since.elapsed()))
    }
}

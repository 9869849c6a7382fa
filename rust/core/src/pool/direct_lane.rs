//! The direct copies of a lane: made by submitters, without the worker and its lock.

use std::sync::Arc;

use super::copy_clock::look_closely;
use super::copy_counts::CopyCounts;
use super::copying_thread::CopyingThread;
use super::{WorkerPool, quick_clock};
use crate::fabric::{DirectCopy, DirectPiece, NotDirect, Opcode};
use crate::observe::{COUNTED, SAMPLE_EVERY};
use crate::sync::Swap;

/// Copies by way of a queue pair, and where they are counted.
type Direct = (Arc<dyn DirectCopy>, Arc<CopyCounts>);

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

    /// Copies the pieces of one transfer, of `bytes` in all, and counts it; the pool counts how long it took, if that is to be counted.
    #[inline(always)]
    pub fn copy(
        &self,
        opcode: Opcode,
        pieces: &[DirectPiece],
        bytes: u64,
        pool: &WorkerPool,
    ) -> Result<(), NotDirect> {
        let copy = self.copy.load();
        let Some((copy, counts)) = &**copy else { return Err(NotDirect) };
        if !COUNTED {
            return copy.copy(opcode, pieces);
        }
        // Short, so that it is no call: that would take as long as the counting.
        let passes = CopyingThread::with(|thread| {
            let own = counts.own(thread, opcode.into());
            own.filter(|own| thread.clock.passes(own.transfers().is_multiple_of(SAMPLE_EVERY)))
        });
        let Some(tally) = passes else {
            return copy_with_look(&**copy, counts, opcode, pieces, bytes, pool);
        };
        copy.copy(opcode, pieces)?;
        tally.add_alone(bytes);
        Ok(())
    }
}

/// A copy with a look at the clock; each of a thread that counts where others do.
#[cold]
#[inline(never)]
fn copy_with_look(
    copy: &dyn DirectCopy,
    counts: &CopyCounts,
    opcode: Opcode,
    pieces: &[DirectPiece],
    bytes: u64,
    pool: &WorkerPool,
) -> Result<(), NotDirect> {
    CopyingThread::with(|thread| {
        let own = counts.own(thread, opcode.into());
        let tally = own.unwrap_or_else(|| counts.shared(opcode.into()));
        let is_sampled = tally.transfers().is_multiple_of(SAMPLE_EVERY);
        let copy = || copy.copy(opcode, pieces);
        let (answer, times) = match own {
            Some(_) => thread.clock.look(is_sampled, quick_clock::now_ns, copy),
            None => look_closely(is_sampled, quick_clock::now_ns, copy),
        };
        if own.is_none() {
            thread.look_for_place();
        }
        answer?;
        if let Some(times) = times {
            pool.note_copy(times);
        }
        match own {
            Some(own) => own.add_alone(bytes),
            None => tally.add(bytes),
        }
        Ok(())
    })
}

//! The direct copies of a lane: made by submitters, without the worker and its lock.

use std::sync::Arc;

use super::copy_clock::look_closely;
use super::copy_counts::{CopyCounts, Tally};
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

    /// Copies the pieces of one transfer, of `bytes` in all, and counts it; the pool counts how long it took, if that is to be counted. A call of
    /// its own would take as long as the counting.
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
        CopyingThread::with(|thread| {
            let Some(tally) = counts.own(thread, opcode.into()) else {
                return copy_without_place(&**copy, counts, opcode, pieces, bytes, pool, thread);
            };
            if thread.clock.passes(tally.transfers().is_multiple_of(SAMPLE_EVERY)) {
                copy.copy(opcode, pieces)?;
            } else {
                copy_with_look(&**copy, tally, opcode, pieces, pool, thread)?;
            }
            tally.add_alone(bytes);
            Ok(())
        })
    }
}

/// A copy with a look at the clock.
#[cold]
#[inline(never)]
fn copy_with_look(
    copy: &dyn DirectCopy,
    tally: &Tally,
    opcode: Opcode,
    pieces: &[DirectPiece],
    pool: &WorkerPool,
    thread: &CopyingThread,
) -> Result<(), NotDirect> {
    let is_sampled = tally.transfers().is_multiple_of(SAMPLE_EVERY);
    let copy = || copy.copy(opcode, pieces);
    let (answer, times) = thread.clock.look(is_sampled, quick_clock::now_ns, copy);
    if let Some(times) = times {
        pool.note_copies(answer.is_ok(), times);
    }
    thread.copies_in(pool);
    answer
}

/// A copy of a thread that counts where others do: each has its looks.
#[cold]
#[inline(never)]
fn copy_without_place(
    copy: &dyn DirectCopy,
    counts: &CopyCounts,
    opcode: Opcode,
    pieces: &[DirectPiece],
    bytes: u64,
    pool: &WorkerPool,
    thread: &CopyingThread,
) -> Result<(), NotDirect> {
    let tally = counts.shared(opcode.into());
    let is_sampled = tally.transfers().is_multiple_of(SAMPLE_EVERY);
    let (answer, times) = look_closely(is_sampled, quick_clock::now_ns, || copy.copy(opcode, pieces));
    if let Some(times) = times {
        pool.note_copies(answer.is_ok(), times);
    }
    thread.look_for_place();
    answer?;
    tally.add(bytes);
    Ok(())
}

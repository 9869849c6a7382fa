//! From a file to the slots.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::thread::JoinHandle;

use super::{BLOCK, Digest, Filled, failed, joined, spawn};
use crate::ring::Ring;
use crate::store::{Content, StoreError};

/// What [`Source::try_next`] has now.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Next {
    /// A chunk.
    Chunk(Filled),
    /// Nothing yet.
    NotYet,
    /// The end; [`Source::finish`] has the digest.
    End,
}

/// A file that is read, hashed and laid into slots, chunk by chunk, as far as slots are free.
#[derive(Debug)]
pub(crate) struct Source {
    chunks: Receiver<Filled>,
    /// One message for each slot that may be filled.
    free: SyncSender<()>,
    reader: JoinHandle<Result<Digest, StoreError>>,
}

impl Source {
    /// Starts to fill the slots of `ring`, all of which are free, with `content`.
    pub(crate) fn start(content: Content, ring: Arc<Ring>) -> std::io::Result<Self> {
        let slots = usize::from(ring.shape().slots);
        let (filled, chunks) = mpsc::sync_channel(slots);
        let (free, freed) = mpsc::sync_channel(slots);
        let reader = spawn("read", move || fill_slots(content, &ring, &freed, &filled))?;
        let source = Self { chunks, free, reader };
        (0..slots).for_each(|_| source.release());
        Ok(source)
    }

    /// One more slot is free: that of the oldest chunk.
    pub(crate) fn release(&self) {
        // A reader that has ended needs none; and there is room for as many as there are slots.
        let _ = self.free.try_send(());
    }

    /// The next chunk, waiting for it; `None` at the end. At least one slot must be free.
    pub(crate) fn next(&self) -> Option<Filled> {
        self.chunks.recv().ok()
    }

    /// The next chunk if it is there.
    pub(crate) fn try_next(&self) -> Next {
        match self.chunks.try_recv() {
            Ok(chunk) => Next::Chunk(chunk),
            Err(TryRecvError::Empty) => Next::NotYet,
            Err(TryRecvError::Disconnected) => Next::End,
        }
    }

    /// The digest, or why reading failed. Call it at the end; a source that is not at its end ends its thread and gives the
    /// digest of what was read.
    pub(crate) fn finish(self) -> Result<Digest, StoreError> {
        drop((self.chunks, self.free));
        joined(self.reader)
    }
}

fn fill_slots(
    mut content: Content,
    ring: &Ring,
    free: &Receiver<()>,
    filled: &SyncSender<Filled>,
) -> Result<Digest, StoreError> {
    let (mut hasher, mut block) = (blake3::Hasher::new(), Vec::new());
    let (mut bytes, mut sequence) = (0, 0);
    while bytes < content.size() {
        if free.recv().is_err() {
            break; // The rest has no receiver.
        }
        let most = ring.shape().chunk;
        let length = u32::try_from(content.size() - bytes).unwrap_or(u32::MAX).min(most);
        for start in (0..length as usize).step_by(BLOCK) {
            block.resize(BLOCK.min(length as usize - start), 0);
            content.fill(&mut block)?;
            hasher.update(&block);
            if !ring.write(sequence, start, &block) {
                return Err(failed("read", "a chunk is larger than its slot"));
            }
        }
        bytes += u64::from(length);
        if filled.send(Filled { sequence, length }).is_err() {
            break;
        }
        sequence += 1;
    }
    if bytes == content.size() {
        content.check_unchanged()?;
    }
    Ok(Digest { bytes, hash: hasher.finalize().into() })
}

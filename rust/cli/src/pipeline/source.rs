//! From a file to the slots.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TryRecvError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{BLOCK, Digest, Filled, failed, joined, spawn};
use crate::ring::Ring;
use crate::store::{Content, Prefix, StoreError};

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
    /// Starts to fill the slots of `ring`, all of which are free, with `content`, which stands behind `prefix`. The first chunk
    /// gets the number `first`.
    pub(crate) fn start(
        content: Content,
        ring: Arc<Ring>,
        prefix: Prefix,
        first: u64,
    ) -> std::io::Result<Self> {
        let slots = usize::from(ring.shape().slots);
        let (filled, chunks) = mpsc::sync_channel(slots);
        let (free, freed) = mpsc::sync_channel(slots);
        let reader = spawn("read", move || fill_slots(content, &ring, prefix, first, &freed, &filled))?;
        let source = Self { chunks, free, reader };
        (0..slots).for_each(|_| source.release());
        Ok(source)
    }

    /// One more slot is free: that of the oldest chunk.
    pub(crate) fn release(&self) {
        // A reader that has ended needs none; and there is room for as many as there are slots.
        let _ = self.free.try_send(());
    }

    /// The next chunk, waiting for it for `limit` at most. At least one slot must be free.
    pub(crate) fn next_within(&self, limit: Duration) -> Next {
        match self.chunks.recv_timeout(limit) {
            Ok(chunk) => Next::Chunk(chunk),
            Err(RecvTimeoutError::Timeout) => Next::NotYet,
            Err(RecvTimeoutError::Disconnected) => Next::End,
        }
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
    prefix: Prefix,
    first: u64,
    free: &Receiver<()>,
    filled: &SyncSender<Filled>,
) -> Result<Digest, StoreError> {
    let Prefix { mut bytes, mut hasher } = prefix;
    let (mut block, chunk) = (Vec::new(), ring.shape().chunk as usize);
    let (mut sequence, mut at_end) = (first, content.is_at_end());
    while !at_end {
        if free.recv().is_err() {
            break; // The rest has no receiver.
        }
        let mut length = 0;
        while length < chunk && !at_end {
            block.resize(BLOCK.min(chunk - length), 0);
            let read = content.read(&mut block)?;
            at_end = read < block.len() || content.is_at_end();
            let part = block.get(..read).unwrap_or_default();
            hasher.update(part);
            if !ring.write(sequence, length, part) {
                return Err(failed("read", "a chunk is larger than its slot"));
            }
            length += read;
        }
        // A stream may end where a chunk does.
        let Some(length) = u32::try_from(length).ok().filter(|length| *length > 0) else { break };
        bytes += u64::from(length);
        if filled.send(Filled { sequence, length }).is_err() {
            break;
        }
        sequence += 1;
    }
    if at_end {
        content.check_unchanged()?;
    }
    Ok(Digest { bytes, hash: hasher.finalize().into() })
}

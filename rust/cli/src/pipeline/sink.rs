//! From the slots to a file.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::JoinHandle;

use super::{BLOCK, Digest, Filled, joined, spawn};
use crate::ring::Ring;
use crate::store::{Incoming, Prefix, StoreError};

/// Bytes that go to the writing thread at once: a thread is woken for as many, and four of them stay in the processor's cache.
const BATCH: usize = 8 * BLOCK;
/// Batches that wait for the writing thread.
const AHEAD: usize = 2;

/// Where the bytes go.
pub(crate) trait Destination: Send + 'static {
    /// Appends.
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError>;
}

impl Destination for Incoming {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        Self::write(self, bytes)
    }
}

/// A file that is taken from slots and hashed by the caller's thread, and written by another, chunk by chunk.
#[derive(Debug)]
pub(crate) struct Sink<D> {
    ring: Arc<Ring>,
    hasher: blake3::Hasher,
    bytes: u64,
    batches: SyncSender<Vec<u8>>,
    /// Written ones, to be filled again.
    spent: Receiver<Vec<u8>>,
    writer: JoinHandle<Result<D, StoreError>>,
}

impl<D: Destination> Sink<D> {
    /// Starts to write the content of slots of `ring` to `file`, behind `prefix`.
    pub(crate) fn start(file: D, ring: Arc<Ring>, prefix: Prefix) -> std::io::Result<Self> {
        let (batches, from_caller) = mpsc::sync_channel(AHEAD);
        let (to_caller, spent) = mpsc::sync_channel(AHEAD + 1);
        let writer = spawn("write", move || write_batches(file, &from_caller, &to_caller))?;
        let Prefix { bytes, hasher } = prefix;
        Ok(Self { ring, hasher, bytes, batches, spent, writer })
    }

    /// Appends the chunk in its slot, which is free again afterwards; waits while the disk is behind. False when the chunk is
    /// longer than its slot, or writing has failed: [`Sink::finish`] has the reason.
    pub(crate) fn push(&mut self, chunk: Filled) -> bool {
        let length = chunk.length as usize;
        (0..length).step_by(BATCH).all(|start| {
            let mut batch = self.spent.try_recv().unwrap_or_default();
            batch.resize(BATCH.min(length - start), 0);
            let hashed = batch.chunks_mut(BLOCK).zip((start..).step_by(BLOCK)).all(|(block, at)| {
                let copied = self.ring.read(chunk.sequence, at, block);
                self.hasher.update(block);
                copied
            });
            self.bytes += batch.len() as u64;
            hashed && self.batches.send(batch).is_ok()
        })
    }

    /// Waits until everything is written; gives the file, still without its name, and the digest.
    pub(crate) fn finish(self) -> Result<(D, Digest), StoreError> {
        drop((self.batches, self.spent));
        let file = joined(self.writer)?;
        Ok((file, Digest { bytes: self.bytes, hash: self.hasher.finalize().into() }))
    }
}

fn write_batches<D: Destination>(
    mut file: D,
    batches: &Receiver<Vec<u8>>,
    spent: &SyncSender<Vec<u8>>,
) -> Result<D, StoreError> {
    for batch in batches {
        file.write(&batch)?;
        // A full or closed queue only means that the memory is freed instead.
        let _ = spent.try_send(batch);
    }
    Ok(file)
}

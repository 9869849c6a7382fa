//! Reading and writing files beside the transfer: each stage is a thread, linked by short bounded queues, so that
//! disk, hash and transfer overlap. Buffers are reused; a slow stage blocks the others.
//!
//! ```text
//!   Source:  disk ──▶ hash ──▶ next()          Sink:  push() ──▶ hash ──▶ disk
//! ```

use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::thread::{self, JoinHandle};

use crate::store::{Content, Incoming, StoreError};
use crate::wire::Hash;

/// Chunks that a stage may be ahead of the next.
const AHEAD: usize = 2;

/// Size and hash of a finished stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    /// Bytes.
    pub(crate) bytes: u64,
    /// blake3 of them.
    pub(crate) hash: Hash,
}

/// What [`Source::try_next`] has now.
#[derive(Debug)]
pub(crate) enum Next {
    /// A chunk.
    Chunk(Vec<u8>),
    /// Nothing yet.
    NotYet,
    /// The end; [`Source::finish`] has the digest.
    End,
}

/// A file read and hashed chunk by chunk.
#[derive(Debug)]
pub(crate) struct Source {
    chunks: Receiver<Vec<u8>>,
    spent: SyncSender<Vec<u8>>,
    disk: JoinHandle<Result<(), StoreError>>,
    hash: JoinHandle<Digest>,
}

impl Source {
    /// Starts to read `content` in chunks of `chunk` bytes.
    pub(crate) fn start(content: Content, chunk: usize) -> std::io::Result<Self> {
        let (to_hash, from_disk) = mpsc::sync_channel(AHEAD);
        let (to_caller, chunks) = mpsc::sync_channel(AHEAD);
        let (spent, free) = mpsc::sync_channel(3 * AHEAD);
        let disk = spawn("read", move || read_chunks(content, chunk, &free, &to_hash))?;
        let hash = spawn("hash", move || hash_chunks(&from_disk, &to_caller))?;
        Ok(Self { chunks, spent, disk, hash })
    }

    /// The next chunk, waiting for it; `None` at the end.
    pub(crate) fn next(&self) -> Option<Vec<u8>> {
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

    /// Returns a used chunk, to be filled again.
    pub(crate) fn recycle(&self, chunk: Vec<u8>) {
        // A full or closed queue only means that the memory is freed instead.
        let _ = self.spent.try_send(chunk);
    }

    /// The digest, or why reading failed. Call it at the end; a source that is not at its end ends its threads and gives the
    /// digest of what was read.
    pub(crate) fn finish(self) -> Result<Digest, StoreError> {
        drop((self.chunks, self.spent));
        joined(self.disk)??;
        joined(self.hash)
    }
}

/// A file hashed and written chunk by chunk.
#[derive(Debug)]
pub(crate) struct Sink {
    chunks: SyncSender<Vec<u8>>,
    free: Receiver<Vec<u8>>,
    hash: JoinHandle<Digest>,
    disk: JoinHandle<Result<Incoming, StoreError>>,
}

impl Sink {
    /// Starts to write to `file`.
    pub(crate) fn start(file: Incoming) -> std::io::Result<Self> {
        let (chunks, from_caller) = mpsc::sync_channel(AHEAD);
        let (to_disk, from_hash) = mpsc::sync_channel(AHEAD);
        let (spent, free) = mpsc::sync_channel(3 * AHEAD);
        let hash = spawn("hash", move || hash_chunks(&from_caller, &to_disk))?;
        let disk = spawn("write", move || write_chunks(file, &from_hash, &spent))?;
        Ok(Self { chunks, free, hash, disk })
    }

    /// A buffer of `length` bytes to fill and [`Sink::push`].
    pub(crate) fn buffer(&self, length: usize) -> Vec<u8> {
        let mut buffer = self.free.try_recv().unwrap_or_default();
        buffer.resize(length, 0);
        buffer
    }

    /// Appends a chunk; waits while the disk is behind. False when writing has failed: [`Sink::finish`] has the reason.
    pub(crate) fn push(&self, chunk: Vec<u8>) -> bool {
        self.chunks.send(chunk).is_ok()
    }

    /// Waits until everything is written; gives the file, still without its name, and the digest.
    pub(crate) fn finish(self) -> Result<(Incoming, Digest), StoreError> {
        drop((self.chunks, self.free));
        let file = joined(self.disk)??;
        Ok((file, joined(self.hash)?))
    }
}

fn read_chunks(
    mut content: Content,
    chunk: usize,
    free: &Receiver<Vec<u8>>,
    out: &SyncSender<Vec<u8>>,
) -> Result<(), StoreError> {
    let mut left = content.size();
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(chunk);
        let mut buffer = free.try_recv().unwrap_or_default();
        buffer.resize(length, 0);
        content.fill(&mut buffer)?;
        left -= length as u64;
        if out.send(buffer).is_err() {
            return Ok(()); // The rest has no receiver.
        }
    }
    content.check_unchanged()
}

fn hash_chunks(chunks: &Receiver<Vec<u8>>, out: &SyncSender<Vec<u8>>) -> Digest {
    let (mut hasher, mut bytes) = (blake3::Hasher::new(), 0);
    while let Ok(chunk) = chunks.recv() {
        hasher.update(&chunk);
        bytes += chunk.len() as u64;
        if out.send(chunk).is_err() {
            break;
        }
    }
    Digest { bytes, hash: hasher.finalize().into() }
}

fn write_chunks(
    mut file: Incoming,
    chunks: &Receiver<Vec<u8>>,
    spent: &SyncSender<Vec<u8>>,
) -> Result<Incoming, StoreError> {
    while let Ok(chunk) = chunks.recv() {
        file.write(&chunk)?;
        let _ = spent.try_send(chunk);
    }
    Ok(file)
}

fn spawn<T: Send + 'static>(
    name: &str,
    stage: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<JoinHandle<T>> {
    thread::Builder::new().name(name.to_owned()).spawn(stage)
}

fn joined<T>(stage: JoinHandle<T>) -> Result<T, StoreError> {
    stage.join().map_err(|_| StoreError::Io {
        operation: "finish",
        path: "the file".to_owned(),
        reason: "a worker thread ended by a panic".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::store::{Directory, FileName, open_local};

    fn source(path: &Path) -> Source {
        Source::start(open_local(path).unwrap(), 1000).unwrap()
    }

    #[test]
    fn what_is_read_is_written_with_the_same_digest() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        for size in [0_usize, 1, 999, 1000, 1001, 12_345] {
            let content: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            std::fs::write(temp.path().join("in"), &content).unwrap();
            let source = source(&temp.path().join("in"));
            let file = directory.create(&FileName::new("out").unwrap(), size as u64, true).unwrap();
            let sink = Sink::start(file).unwrap();
            while let Some(chunk) = source.next() {
                let mut copy = sink.buffer(chunk.len());
                copy.copy_from_slice(&chunk);
                source.recycle(chunk);
                assert!(sink.push(copy));
            }
            let (file, stored) = sink.finish().unwrap();
            file.commit().unwrap();
            assert_eq!(source.finish().unwrap(), stored);
            assert_eq!(stored.bytes, size as u64);
            assert_eq!(stored.hash, *blake3::hash(&content).as_bytes());
            assert_eq!(std::fs::read(temp.path().join("out")).unwrap(), content);
        }
    }

    #[test]
    fn a_file_that_changes_is_an_error() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("in");
        for (length, what) in [(150_000, "it shrank"), (300_001, "it grew"), (300_000, "it was written to")] {
            std::fs::write(&path, vec![0; 300_000]).unwrap();
            let content = open_local(&path).unwrap();
            thread::sleep(std::time::Duration::from_millis(20));
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(length).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, b"x", 1).unwrap();
            let source = Source::start(content, 1000).unwrap();
            while let Some(chunk) = source.next() {
                source.recycle(chunk);
            }
            let error = source.finish().unwrap_err();
            assert!(
                matches!(error, StoreError::Changed { .. }) && error.to_string().contains(what),
                "{error}"
            );
        }
    }

    #[test]
    fn finishing_early_ends_the_threads() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("in"), vec![0; 100_000]).unwrap();
        let source = source(&temp.path().join("in"));
        assert!(source.next().is_some());
        source.finish().unwrap();
    }
}

//! Between a file and the ring's slots, beside the transfer. Each copy and the hash go block by block, so that the later ones
//! find the bytes in the core's cache.
//!
//! ```text
//!   Source:  own thread:       file ──▶ block, hash ──▶ slot ──▶ next()
//!   Sink:    caller's thread:  push() slot ──▶ block, hash ──▶ batch      own thread:  batch ──▶ file
//! ```
//!
//! The hash is of the bytes as they were read, and as they are written: it covers all between.
//!
//! Writing is the most work, since the file system allocates pages for it, so it has a thread of its own.

mod sink;
pub(crate) mod small;
mod source;

use std::thread::{self, JoinHandle};

use crate::store::StoreError;
use crate::wire::Hash;

pub(crate) use sink::{Destination, Sink};
pub(crate) use source::{Next, Source};

/// Bytes of a block. A put of 2 GiB took 3.1 s of processor time in both processes together, and 3.5 s with 256 KiB: medians of
/// five and four runs on a busy machine, so the difference is small.
pub(crate) const BLOCK: usize = 64 << 10;

/// Size and hash of a finished stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    /// Bytes.
    pub(crate) bytes: u64,
    /// blake3 of them.
    pub(crate) hash: Hash,
}

/// A chunk in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filled {
    /// Its number: it says the slot.
    pub(crate) sequence: u64,
    /// Its bytes.
    pub(crate) length: u32,
}

fn spawn<T: Send + 'static>(
    name: &str,
    stage: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<JoinHandle<T>> {
    thread::Builder::new().name(name.to_owned()).spawn(stage)
}

fn joined<T>(stage: JoinHandle<Result<T, StoreError>>) -> Result<T, StoreError> {
    stage.join().unwrap_or_else(|_| Err(failed("finish", "a worker thread ended by a panic")))
}

fn failed(operation: &'static str, reason: &str) -> StoreError {
    StoreError::Io { operation, path: "the file".to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests;

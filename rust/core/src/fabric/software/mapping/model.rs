//! What stands for `mapping.rs` in loom's models: arrays of loom's atomics, which cannot lie in memory that is mapped.
#![allow(unsafe_code, reason = "the promise of the arrays' elements is the same")]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::sync::{SequentialU32, SequentialU64};

/// What a [`SharedArray`] may hold.
///
/// # Safety
/// As of the real arrays.
pub(super) unsafe trait Shared: Default + Send + Sync {}

// SAFETY: as of the real arrays.
unsafe impl Shared for SequentialU32 {}
// SAFETY: as above.
unsafe impl Shared for SequentialU64 {}

/// `len` elements. One process plays both sides.
#[derive(Debug)]
pub(super) struct SharedArray<T: Shared> {
    elements: Box<[T]>,
}

impl<T: Shared> SharedArray<T> {
    pub(super) fn private(len: usize) -> io::Result<Self> {
        Ok(Self { elements: (0..len).map(|_| T::default()).collect() })
    }

    /// The descriptor leads nowhere.
    pub(super) fn published(_name: &str, len: usize) -> io::Result<(Self, OwnedFd)> {
        Ok((Self::private(len)?, std::fs::File::open("/dev/null")?.into()))
    }

    pub(super) fn published_if_allowed(name: &str, len: usize) -> io::Result<(Self, Option<OwnedFd>)> {
        let (array, file) = Self::published(name, len)?;
        Ok((array, Some(file)))
    }

    /// An array of its own: none is found by a descriptor.
    pub(super) fn open(_file: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Self::private(len)
    }

    pub(super) fn address(&self) -> u64 {
        self.elements.as_ptr() as u64
    }

    pub(super) fn get(&self, index: usize) -> Option<&T> {
        self.elements.get(index)
    }
}

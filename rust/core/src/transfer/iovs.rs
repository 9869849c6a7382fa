//! The iovs of a transfer as the engine reads them.

use std::ops::Range;

use super::Iov;
use crate::memory::KeyOnRail;

/// The iovs of a transfer, wherever they are: a slice, or the four vectors of a C++ caller.
pub trait IovSource {
    /// Number of iovs.
    fn len(&self) -> usize;
    /// The iovs of `range`; none if it is not within `len`.
    fn iovs(&self, range: Range<usize>) -> impl Iterator<Item = Iov>;
    /// The lengths of all iovs, in bytes.
    fn lengths(&self) -> impl Iterator<Item = u64>;
    /// The iov at `index`; `None` from `len` on.
    #[inline]
    fn iov(&self, index: usize) -> Option<Iov> {
        self.iovs(index..index.checked_add(1)?).next()
    }
    /// As [`IovSource::iovs`], with the keys of the first rail, as the caller has named them.
    #[inline]
    fn named(&self, range: Range<usize>) -> impl Iterator<Item = Iov> {
        self.iovs(range)
    }
    /// Where iovs go over a further rail: the memory that the last one of [`IovSource::iovs`] is in, and its keys.
    #[inline]
    fn last_key(&self) -> Option<KeyOnRail> {
        None
    }
    /// Whether there are none.
    #[inline]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl IovSource for [Iov] {
    #[inline]
    fn len(&self) -> usize {
        <[Iov]>::len(self)
    }
    #[inline]
    fn iovs(&self, range: Range<usize>) -> impl Iterator<Item = Iov> {
        self.get(range).unwrap_or_default().iter().copied()
    }
    #[inline]
    fn lengths(&self) -> impl Iterator<Item = u64> {
        self.iter().map(|iov| iov.length)
    }
}

impl<const N: usize> IovSource for [Iov; N] {
    #[inline]
    fn len(&self) -> usize {
        N
    }
    #[inline]
    fn iovs(&self, range: Range<usize>) -> impl Iterator<Item = Iov> {
        self.as_slice().iovs(range)
    }
    #[inline]
    fn lengths(&self) -> impl Iterator<Item = u64> {
        self.as_slice().lengths()
    }
}

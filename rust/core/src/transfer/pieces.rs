//! The iovs of a transfer as the engine reads them.

use std::ops::Range;

use super::{Iov, Piece};

/// The iovs of a transfer, wherever they are: a slice, or the four vectors of a C++ caller.
pub trait PieceSource {
    /// Number of iovs.
    fn len(&self) -> usize;
    /// The iovs of `range`; none if it is not within `len`.
    fn pieces(&self, range: Range<usize>) -> impl Iterator<Item = Piece>;
    /// The lengths of all iovs, in bytes.
    fn lengths(&self) -> impl Iterator<Item = u64>;
    /// The iov at `index`; `None` from `len` on.
    #[inline]
    fn piece(&self, index: usize) -> Option<Piece> {
        self.pieces(index..index.checked_add(1)?).next()
    }
    /// Whether there are none.
    #[inline]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> PieceSource for [T]
where
    for<'a> Piece: From<&'a T>,
{
    #[inline]
    fn len(&self) -> usize {
        <[T]>::len(self)
    }
    #[inline]
    fn pieces(&self, range: Range<usize>) -> impl Iterator<Item = Piece> {
        self.get(range).unwrap_or_default().iter().map(Piece::from)
    }
    #[inline]
    fn lengths(&self) -> impl Iterator<Item = u64> {
        self.iter().map(|iov| Piece::from(iov).length)
    }
}

impl<const N: usize> PieceSource for [Iov; N] {
    #[inline]
    fn len(&self) -> usize {
        N
    }
    #[inline]
    fn pieces(&self, range: Range<usize>) -> impl Iterator<Item = Piece> {
        self.as_slice().pieces(range)
    }
    #[inline]
    fn lengths(&self) -> impl Iterator<Item = u64> {
        self.as_slice().lengths()
    }
}

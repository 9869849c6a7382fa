//! The caller's vectors, seen as the pieces of a transfer without copying them.

use std::fmt;
use std::ops::Range;

use flagcx_p2p::memory::RegionId;
use flagcx_p2p::transfer::{Iov, PieceSource};

use crate::ffi::Pieces;
use crate::handles::Desc;

/// The caller's vectors, cut to equal length.
#[derive(Clone, Copy)]
pub(crate) struct VectorPieces<'a> {
    regions: &'a [u64],
    local: &'a [*const u8],
    sizes: &'a [usize],
    descs: &'a [Desc],
}

impl<'a> VectorPieces<'a> {
    /// The first `count` elements of each vector.
    #[inline]
    pub(crate) fn new(all: &Pieces<'a>, count: i32) -> Result<Self, BadVectors> {
        match usize::try_from(count) {
            Ok(count) if count > 0 => Self::first(all, count),
            _ => Err(BadVectors::Count(count)),
        }
    }

    /// As many elements as there are local addresses.
    #[inline]
    pub(crate) fn whole(all: &Pieces<'a>) -> Result<Self, BadVectors> {
        Self::first(all, all.local.len())
    }

    #[inline]
    fn first(all: &Pieces<'a>, count: usize) -> Result<Self, BadVectors> {
        Ok(Self {
            regions: first(all.regions, count, "mrIds")?,
            local: first(all.local, count, "the vector of local addresses")?,
            sizes: first(all.sizes, count, "sizeVec")?,
            descs: first(all.descs, count, "descs")?,
        })
    }
}

impl PieceSource for VectorPieces<'_> {
    #[inline]
    fn len(&self) -> usize {
        self.regions.len()
    }

    /// Zipped: one test for the end instead of four per piece.
    #[inline]
    fn iovs(&self, range: Range<usize>) -> impl Iterator<Item = Iov> {
        let regions = self.regions.get(range.clone()).unwrap_or_default();
        let local = self.local.get(range.clone()).unwrap_or_default();
        let sizes = self.sizes.get(range.clone()).unwrap_or_default();
        let descs = self.descs.get(range).unwrap_or_default();
        regions.iter().zip(local).zip(sizes.iter().zip(descs)).map(|((region, local), (size, desc))| Iov {
            local: address(*local),
            length: *size as u64,
            region: Some(RegionId(*region)),
            remote: desc.0,
        })
    }

    #[inline]
    fn lengths(&self) -> impl Iterator<Item = u64> {
        self.sizes.iter().map(|size| *size as u64)
    }
}

/// `size` bytes at `address`, to or from `desc`; the local region is found by its address.
#[inline]
pub(crate) fn one_piece(address: usize, size: usize, desc: &Desc) -> [Iov; 1] {
    [Iov { local: address as u64, length: size as u64, region: None, remote: desc.0 }]
}

/// Why vectors are no pieces.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadVectors {
    /// The number of pieces is below 1.
    Count(i32),
    /// A vector has fewer elements than there are pieces.
    Short { vector: &'static str, len: usize, count: usize },
}

impl fmt::Display for BadVectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "a transfer needs at least one piece, got {count}"),
            Self::Short { vector, len, count } => {
                write!(f, "{count} pieces were asked for, but {vector} has {len} elements")
            }
        }
    }
}

#[inline]
fn first<'a, T>(all: &'a [T], count: usize, vector: &'static str) -> Result<&'a [T], BadVectors> {
    all.get(..count).ok_or(BadVectors::Short { vector, len: all.len(), count })
}

/// The address, with the right to reach the memory through it kept: the software fabric copies by address.
#[inline]
fn address(pointer: *const u8) -> u64 {
    pointer.expose_provenance() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use flagcx_p2p::transfer::RdmaDesc;

    fn descs(count: usize) -> Vec<Desc> {
        (0..count).map(|i| Desc(RdmaDesc { address: 0x1000 + i as u64, ..RdmaDesc::default() })).collect()
    }

    #[test]
    fn the_first_elements_become_pieces_in_order() {
        let (regions, sizes, bytes, descs) = ([7, 8, 9], [10, 20, 30], [0_u8; 3], descs(3));
        let local: Vec<*const u8> = bytes.iter().map(std::ptr::from_ref).collect();
        let all = Pieces { regions: &regions, local: &local, sizes: &sizes, descs: &descs, ipc: &[] };
        let pieces = VectorPieces::new(&all, 2).unwrap();
        assert_eq!(pieces.len(), 2);
        let piece = pieces.piece(1).unwrap();
        assert_eq!(piece.region, Some(RegionId(8)));
        assert_eq!(piece.local, local[1].addr() as u64);
        assert_eq!(piece.length, 20);
        assert_eq!(piece.remote.address, 0x1001);
        assert!(pieces.piece(2).is_none());
    }

    #[test]
    fn a_short_vector_or_a_count_below_one_is_refused() {
        let (regions, local, sizes, descs) = ([1; 4], [std::ptr::null(); 4], [1; 4], descs(4));
        let all = Pieces { regions: &regions, local: &local, sizes: &sizes, descs: &descs, ipc: &[] };
        for short in [
            Pieces { regions: &regions[..3], ..all },
            Pieces { local: &local[..3], ..all },
            Pieces { sizes: &sizes[..3], ..all },
            Pieces { descs: &descs[..3], ..all },
        ] {
            let refused = VectorPieces::new(&short, 4).err();
            assert!(matches!(refused, Some(BadVectors::Short { len: 3, count: 4, .. })), "{refused:?}");
            assert!(VectorPieces::new(&short, 3).is_ok());
        }
        for count in [0, -1, i32::MIN] {
            assert_eq!(VectorPieces::new(&all, count).err(), Some(BadVectors::Count(count)));
        }
    }
}

//! The caller's vectors, seen as the pieces of a transfer without copying them.
#![allow(unsafe_code, reason = "reads the C++ caller's vectors")]

use std::fmt;
use std::ops::Range;

use flagcx_p2p::internals::memory::RegionId;
use flagcx_p2p::internals::transfer::{Iov, IovSource};

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
    ///
    /// # Safety
    /// Each pointer is to as many elements as its count says, for as long as this lives.
    #[inline]
    pub(crate) unsafe fn new(all: &'a Pieces, count: i32) -> Result<Self, BadVectors> {
        match usize::try_from(count) {
            // SAFETY: the caller's promise.
            Ok(wanted) if wanted > 0 => unsafe { Self::first(all, wanted) },
            _ => Err(BadVectors::Count(count)),
        }
    }

    /// As many elements as there are local addresses.
    ///
    /// # Safety
    /// As [`VectorPieces::new`].
    #[inline]
    pub(crate) unsafe fn whole(all: &'a Pieces) -> Result<Self, BadVectors> {
        if all.local_count == 0 {
            return Err(BadVectors::Count(0));
        }
        // SAFETY: the caller's promise.
        unsafe { Self::first(all, all.local_count) }
    }

    /// # Safety
    /// As [`VectorPieces::new`]; `count` is more than 0.
    #[inline]
    unsafe fn first(all: &'a Pieces, count: usize) -> Result<Self, BadVectors> {
        // SAFETY: the caller's promise.
        unsafe {
            Ok(Self {
                regions: first(all.regions, all.region_count, count, "mrIds")?,
                local: first(all.local, all.local_count, count, "the vector of local addresses")?,
                sizes: first(all.sizes, all.size_count, count, "sizeVec")?,
                descs: first(all.descs, all.desc_count, count, "descs")?,
            })
        }
    }
}

impl IovSource for VectorPieces<'_> {
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
        regions.iter().zip(local).zip(sizes.iter().zip(descs)).map(|((region, local), (size, desc))| {
            fetch(std::ptr::from_ref(desc).wrapping_add(AHEAD));
            // Exposed, with the right to reach the memory through it: the software fabric copies by address.
            one_piece(Some(RegionId(*region)), local.expose_provenance(), *size, desc)
        })
    }

    #[inline]
    fn lengths(&self) -> impl Iterator<Item = u64> {
        self.sizes.iter().map(|size| *size as u64)
    }
}

/// How many pieces ahead descriptors are fetched. A descriptor fills a cache line, and where many large transfers take
/// turns none of them is in the cache any more: without this, a tenth of the time of pieces of 4 KiB was spent waiting.
const AHEAD: usize = 8;

/// Has the processor fetch a descriptor that will be read soon, if there is one.
#[inline(always)]
fn fetch(desc: *const Desc) {
    // SAFETY: a hint, which does nothing but that, and nothing at all if nothing can be read there.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(desc.cast());
    }
    // SAFETY: as above; `prfm` is a hint, too, and changes no flag.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) desc, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = desc;
}

/// `size` bytes at `address`, to or from `desc`. Without a region it is found by the address.
#[inline]
pub(crate) fn one_piece(region: Option<RegionId>, address: usize, size: usize, desc: &Desc) -> Iov {
    Iov { local: address as u64, length: size as u64, region, remote: (&desc.0).into() }
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

/// # Safety
/// `elements` points at `len` of them for `'a`, and `count` is more than 0.
#[inline]
unsafe fn first<'a, T>(
    elements: *const T,
    len: usize,
    count: usize,
    vector: &'static str,
) -> Result<&'a [T], BadVectors> {
    if len < count {
        return Err(BadVectors::Short { vector, len, count });
    }
    // SAFETY: there are `count` elements, and as there is one, the pointer is not null.
    Ok(unsafe { std::slice::from_raw_parts(elements, count) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desc::RdmaDesc;

    fn descs(count: usize) -> Vec<Desc> {
        (0..count).map(|i| Desc(RdmaDesc { address: 0x1000 + i as u64, ..RdmaDesc::default() })).collect()
    }

    fn pieces(regions: &[u64], local: &[*const u8], sizes: &[usize], descs: &[Desc]) -> Pieces {
        Pieces {
            regions: regions.as_ptr(),
            local: local.as_ptr(),
            sizes: sizes.as_ptr(),
            descs: descs.as_ptr(),
            ipc: std::ptr::null(),
            region_count: regions.len(),
            local_count: local.len(),
            size_count: sizes.len(),
            desc_count: descs.len(),
            ipc_count: 0,
        }
    }

    #[test]
    fn the_first_elements_become_pieces_in_order() {
        let (regions, sizes, bytes, descs) = ([7, 8, 9], [10, 20, 30], [0_u8; 3], descs(3));
        let local: Vec<*const u8> = bytes.iter().map(std::ptr::from_ref).collect();
        let all = pieces(&regions, &local, &sizes, &descs);
        // SAFETY: the vectors outlive it.
        let pieces = unsafe { VectorPieces::new(&all, 2) }.unwrap();
        assert_eq!(pieces.len(), 2);
        let piece = pieces.iov(1).unwrap();
        assert_eq!(piece.region, Some(RegionId(8)));
        assert_eq!(piece.local, local[1].addr() as u64);
        assert_eq!(piece.length, 20);
        assert_eq!(piece.remote.address, 0x1001);
        assert!(pieces.iov(2).is_none());
    }

    #[test]
    fn a_short_vector_or_a_count_below_one_is_refused() {
        let (regions, local, sizes, descs) = ([1; 4], [std::ptr::null(); 4], [1; 4], descs(4));
        let refusal = |all: &Pieces, count| {
            // SAFETY: the vectors outlive it.
            unsafe { VectorPieces::new(all, count) }.err()
        };
        for short in [
            pieces(&regions[..3], &local, &sizes, &descs),
            pieces(&regions, &local[..3], &sizes, &descs),
            pieces(&regions, &local, &sizes[..3], &descs),
            pieces(&regions, &local, &sizes, &descs[..3]),
        ] {
            let refused = refusal(&short, 4);
            assert!(matches!(refused, Some(BadVectors::Short { len: 3, count: 4, .. })), "{refused:?}");
            assert_eq!(refusal(&short, 3), None);
        }
        let all = pieces(&regions, &local, &sizes, &descs);
        for count in [0, -1, i32::MIN] {
            assert_eq!(refusal(&all, count), Some(BadVectors::Count(count)));
        }
        let none = pieces(&regions, &[], &sizes, &descs);
        // SAFETY: the vectors outlive it.
        let refused = unsafe { VectorPieces::whole(&none) }.err();
        assert_eq!(refused, Some(BadVectors::Count(0)));
    }
}

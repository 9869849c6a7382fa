//! Where the pieces of transfers lie in the pools of both ends: at random places, or side by side.
//!
//! Both ends compute the same places from the same few numbers, so that each end can check what the other wrote.

use serde::{Deserialize, Serialize};

/// Most places that are kept in a list. A pool of more has them spread over all of it.
const MOST_PLACES: u64 = 1 << 20;
/// Random places begin a cache line.
const ALIGNMENT: u64 = 64;

/// The numbers that places follow from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayoutSpec {
    /// The order of random places.
    pub(crate) seed: u64,
    /// First byte and bytes of the part of the pool in use.
    pub(crate) start: u64,
    pub(crate) length: u64,
    /// Bytes per piece.
    pub(crate) piece: u32,
    /// Side by side, in order, at both ends.
    pub(crate) contiguous: bool,
}

/// Pieces and their places. Piece `k` lies at one place of the source's pool and one of the destination's; no two pieces
/// overlap at either end.
#[derive(Debug)]
pub(crate) struct Layout {
    spec: LayoutSpec,
    stride: u64,
    pieces: u64,
    /// Place numbers; empty for contiguous pieces, where number and place are the same.
    sources: Vec<u32>,
    destinations: Vec<u32>,
}

impl Layout {
    /// The layout; `None` if the part of the pool holds no piece.
    pub(crate) fn new(spec: LayoutSpec) -> Option<Self> {
        let stride = stride(&spec)?;
        let pieces = spec.length / stride;
        let shuffled = |seed: u64| -> Vec<u32> {
            let mut places: Vec<u32> = (0..u32::try_from(pieces).unwrap_or(0)).collect();
            fastrand::Rng::with_seed(seed).shuffle(&mut places);
            places
        };
        let (sources, destinations) = if spec.contiguous {
            (Vec::new(), Vec::new())
        } else {
            (shuffled(spec.seed), shuffled(!spec.seed))
        };
        (pieces > 0).then_some(Self { spec, stride, pieces, sources, destinations })
    }

    /// Number of pieces.
    pub(crate) fn pieces(&self) -> u64 {
        self.pieces
    }

    /// Bytes per piece.
    pub(crate) fn piece(&self) -> u32 {
        self.spec.piece
    }

    /// Where piece `k`, modulo their number, lies in the source's pool.
    pub(crate) fn source(&self, k: u64) -> u64 {
        self.place(&self.sources, k)
    }

    /// Where piece `k`, modulo their number, lies in the destination's pool.
    pub(crate) fn destination(&self, k: u64) -> u64 {
        self.place(&self.destinations, k)
    }

    fn place(&self, places: &[u32], k: u64) -> u64 {
        let k = k % self.pieces;
        let listed = usize::try_from(k).ok().and_then(|k| places.get(k)).map_or(k, |place| u64::from(*place));
        self.spec.start + listed * self.stride
    }
}

/// Bytes from one place to the next.
fn stride(spec: &LayoutSpec) -> Option<u64> {
    let piece = Some(u64::from(spec.piece)).filter(|piece| *piece > 0)?;
    if spec.contiguous {
        return Some(piece);
    }
    let closest = piece.next_multiple_of(ALIGNMENT);
    let spread = spec.length / MOST_PLACES / ALIGNMENT * ALIGNMENT;
    // A part that holds one piece alone needs no room for its alignment.
    Some(if closest > spec.length { piece } else { closest.max(spread) })
}

/// How many transfers' worth of pieces the part of a pool must hold: the bytes that `batch` pieces of `piece` bytes need.
pub(crate) fn needed(batch: u32, piece: u32, contiguous: bool) -> u64 {
    let piece = u64::from(piece);
    let each = if contiguous || batch == 1 { piece } else { piece.next_multiple_of(ALIGNMENT) };
    each * u64::from(batch)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec() -> impl Strategy<Value = LayoutSpec> {
        (any::<u64>(), 0_u64..1 << 20, 0_u64..1 << 22, 0_u32..1 << 16, any::<bool>()).prop_map(
            |(seed, start, length, piece, contiguous)| LayoutSpec { seed, start, length, piece, contiguous },
        )
    }

    proptest! {
        #[test]
        fn pieces_are_inside_and_do_not_overlap(spec in spec()) {
            let Some(layout) = Layout::new(spec) else {
                prop_assert!(spec.piece == 0 || u64::from(spec.piece) > spec.length);
                return Ok(());
            };
            let piece = u64::from(spec.piece);
            for place in [Layout::source, Layout::destination] {
                let mut starts: Vec<u64> = (0..layout.pieces()).map(|k| place(&layout, k)).collect();
                starts.sort_unstable();
                prop_assert!(starts.windows(2).all(|pair| pair[0] + piece <= pair[1]));
                prop_assert!(starts[0] >= spec.start);
                prop_assert!(starts[starts.len() - 1] + piece <= spec.start + spec.length);
            }
            prop_assert_eq!(layout.source(layout.pieces()), layout.source(0));
        }

        #[test]
        fn what_is_needed_is_enough(batch in 1_u32..200, piece in 1_u32..5000, contiguous in any::<bool>()) {
            let length = needed(batch, piece, contiguous);
            let layout = Layout::new(LayoutSpec { seed: 1, start: 0, length, piece, contiguous }).unwrap();
            prop_assert!(layout.pieces() >= u64::from(batch));
        }
    }

    #[test]
    fn scattered_pieces_have_no_neighbours_and_contiguous_ones_do() {
        let neighbours = |contiguous| {
            let spec = LayoutSpec { seed: 7, start: 0, length: 64 << 20, piece: 4096, contiguous };
            let layout = Layout::new(spec).unwrap();
            let joined = |k: &u64| {
                layout.source(*k) + 4096 == layout.source(k + 1)
                    && layout.destination(*k) + 4096 == layout.destination(k + 1)
            };
            ((0..layout.pieces() - 1).filter(joined).count(), layout.pieces())
        };
        assert_eq!(neighbours(true), (16_383, 16_384));
        assert_eq!(neighbours(false).0, 0);
    }

    #[test]
    fn a_large_pool_of_small_pieces_is_used_to_its_end() {
        let spec = LayoutSpec { seed: 7, start: 0, length: 1 << 30, piece: 8, contiguous: false };
        let layout = Layout::new(spec).unwrap();
        assert_eq!(layout.pieces(), 1 << 20);
        let last = (0..layout.pieces()).map(|k| layout.source(k)).max().unwrap();
        assert!(last > (1 << 30) - 2048, "{last}");
    }
}

//! The bytes that are moved: a seeded pattern in which every 8 bytes tell their place, and its comparison.

use flagcx_p2p::RegisteredBuffer;

use super::layout::Layout;

/// Bytes that are written or compared at a time.
const STEP: usize = 128 << 10;

/// Memory of a pool.
pub(crate) trait Memory {
    /// Copies `bytes` to `offset`. False, and nothing is copied, if they do not fit.
    fn put(&self, offset: usize, bytes: &[u8]) -> bool;
    /// Fills `bytes` from `offset` on. False, and nothing is copied, if there are fewer.
    fn take(&self, offset: usize, bytes: &mut [u8]) -> bool;
}

impl Memory for RegisteredBuffer {
    fn put(&self, offset: usize, bytes: &[u8]) -> bool {
        self.write(offset, bytes)
    }

    fn take(&self, offset: usize, bytes: &mut [u8]) -> bool {
        self.read(offset, bytes)
    }
}

/// Pieces `first` to `first + count - 1`, modulo the number of pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Span {
    pub(crate) first: u64,
    pub(crate) count: u64,
}

/// What a comparison found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Compared {
    /// Pieces compared.
    pub(crate) pieces: u64,
    /// Pieces with bytes other than those of their source.
    pub(crate) wrong: u64,
    /// Offset of the first such byte in the destination's pool.
    pub(crate) first: u64,
}

impl Compared {
    /// Adds what another comparison found.
    pub(crate) fn add(&mut self, other: Self) {
        if self.wrong == 0 {
            self.first = other.first;
        }
        self.pieces += other.pieces;
        self.wrong += other.wrong;
    }
}

/// Writes the pattern of `seed` to these bytes of the pool. False if they are not inside it.
pub(crate) fn fill(memory: &impl Memory, seed: u64, start: u64, length: u64) -> bool {
    let mut bytes = vec![0; STEP];
    steps(start, length).all(|(offset, step)| {
        let Some(bytes) = bytes.get_mut(..step) else { return false };
        pattern(seed, offset, bytes);
        usize::try_from(offset).is_ok_and(|offset| memory.put(offset, bytes))
    })
}

/// Writes zeros to these bytes of the pool. False if they are not inside it.
pub(crate) fn clear(memory: &impl Memory, start: u64, length: u64) -> bool {
    let zeros = vec![0; STEP];
    steps(start, length).all(|(offset, step)| {
        let zeros = zeros.get(..step).unwrap_or_default();
        usize::try_from(offset).is_ok_and(|offset| memory.put(offset, zeros))
    })
}

/// Compares the destinations of these pieces with the pattern of `seed` at their sources.
pub(crate) fn compare(memory: &impl Memory, seed: u64, layout: &Layout, spans: &[Span]) -> Compared {
    let mut found = Compared::default();
    let mut buffers = (vec![0; STEP], vec![0; STEP]);
    for span in distinct(spans, layout.pieces()) {
        for k in span.first..span.first + span.count {
            found.pieces += 1;
            if let Some(offset) = first_wrong(memory, seed, layout, k, &mut buffers) {
                if found.wrong == 0 {
                    found.first = offset;
                }
                found.wrong += 1;
            }
        }
    }
    found
}

/// The pieces of all spans, none of them twice, in order. Threads that go on for different times reach into the spans of others.
fn distinct(spans: &[Span], pieces: u64) -> Vec<Span> {
    let parts = spans.iter().flat_map(|span| {
        let (first, count) = (span.first % pieces, span.count.min(pieces));
        // Behind the last piece comes the first one.
        let before_the_end = count.min(pieces - first);
        [Span { first, count: before_the_end }, Span { first: 0, count: count - before_the_end }]
    });
    let mut parts: Vec<Span> = parts.filter(|span| span.count > 0).collect();
    parts.sort_unstable_by_key(|span| span.first);
    let mut seen = 0;
    let mut left = Vec::with_capacity(parts.len());
    for Span { first, count } in parts {
        let (first, end) = (first.max(seen), first + count);
        if first < end {
            left.push(Span { first, count: end - first });
            seen = end;
        }
    }
    left
}

/// Offset of the first byte of piece `k` that differs from its source.
fn first_wrong(
    memory: &impl Memory,
    seed: u64,
    layout: &Layout,
    k: u64,
    (got, expected): &mut (Vec<u8>, Vec<u8>),
) -> Option<u64> {
    let (source, destination) = (layout.source(k), layout.destination(k));
    for (offset, step) in steps(0, u64::from(layout.piece())) {
        let (got, expected) = (got.get_mut(..step)?, expected.get_mut(..step)?);
        pattern(seed, source + offset, expected);
        let at = destination + offset;
        if !usize::try_from(at).is_ok_and(|at| memory.take(at, got)) {
            return Some(at);
        }
        if got != expected {
            let differing = got.iter().zip(expected.iter()).position(|(got, expected)| got != expected);
            return differing.map(|position| at + position as u64);
        }
    }
    None
}

/// The steps of `length` bytes from `start` on: offset and bytes.
fn steps(start: u64, length: u64) -> impl Iterator<Item = (u64, usize)> {
    (0..length.div_ceil(STEP as u64)).map(move |step| {
        let done = step * STEP as u64;
        (start + done, usize::try_from(length - done).map_or(STEP, |left| left.min(STEP)))
    })
}

/// The pattern from `offset` of a pool on.
pub(crate) fn pattern(seed: u64, offset: u64, bytes: &mut [u8]) {
    let skipped = usize::try_from(offset % 8).unwrap_or(0);
    let (head, rest) = bytes.split_at_mut(bytes.len().min((8 - skipped) % 8));
    for (byte, value) in head.iter_mut().zip(word(seed, offset / 8).into_iter().skip(skipped)) {
        *byte = value;
    }
    let mut index = offset.div_ceil(8);
    let mut words = rest.chunks_exact_mut(8);
    for part in &mut words {
        part.copy_from_slice(&word(seed, index));
        index += 1;
    }
    for (byte, value) in words.into_remainder().iter_mut().zip(word(seed, index)) {
        *byte = value;
    }
}

/// The finalizer of SplitMix64: every bit of seed and index changes about half of the bits. Never what `clear` leaves.
fn word(seed: u64, index: u64) -> [u8; 8] {
    let mut z = seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) | 1).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::super::layout::LayoutSpec;
    use super::*;

    struct Plain(RefCell<Vec<u8>>);

    impl Plain {
        fn new(length: usize) -> Self {
            Self(RefCell::new(vec![0; length]))
        }
    }

    impl Memory for Plain {
        fn put(&self, offset: usize, bytes: &[u8]) -> bool {
            let mut all = self.0.borrow_mut();
            let place = all.get_mut(offset..).and_then(|rest| rest.get_mut(..bytes.len()));
            place.map(|place| place.copy_from_slice(bytes)).is_some()
        }

        fn take(&self, offset: usize, bytes: &mut [u8]) -> bool {
            let all = self.0.borrow();
            let place = all.get(offset..).and_then(|rest| rest.get(..bytes.len()));
            place.map(|place| bytes.copy_from_slice(place)).is_some()
        }
    }

    fn moved(layout: &Layout, from: &Plain, to: &Plain, pieces: std::ops::Range<u64>) {
        for k in pieces {
            let mut bytes = vec![0; layout.piece() as usize];
            assert!(from.take(layout.source(k) as usize, &mut bytes));
            assert!(to.put(layout.destination(k) as usize, &bytes));
        }
    }

    proptest! {
        #[test]
        fn any_part_of_the_pattern_is_part_of_the_whole(offset in 0_usize..1000, length in 0_usize..300) {
            let (mut whole, mut part) = (vec![0; 1300], vec![0; length]);
            pattern(9, 0, &mut whole);
            pattern(9, offset as u64, &mut part);
            prop_assert_eq!(&whole[offset..offset + length], &part[..]);
        }

        #[test]
        fn a_single_wrong_byte_is_found(piece in 1_u32..9000, at in any::<prop::sample::Index>(), contiguous in any::<bool>(), flip in 1_u8..) {
            let length = 300_000;
            let layout = Layout::new(LayoutSpec { seed: 3, start: 100, length, piece, contiguous }).unwrap();
            let (from, to) = (Plain::new(301_000), Plain::new(301_000));
            prop_assert!(fill(&from, 5, 100, length) && clear(&to, 100, length));
            moved(&layout, &from, &to, 0..layout.pieces());
            let whole = [Span { first: 0, count: layout.pieces() }];
            prop_assert_eq!(compare(&to, 5, &layout, &whole), Compared { pieces: layout.pieces(), wrong: 0, first: 0 });
            let k = at.index(layout.pieces() as usize) as u64;
            let wrong = layout.destination(k) as usize + at.index(piece as usize);
            to.0.borrow_mut()[wrong] ^= flip;
            prop_assert_eq!(compare(&to, 5, &layout, &whole), Compared { pieces: layout.pieces(), wrong: 1, first: wrong as u64 });
        }
    }

    #[test]
    fn pieces_that_were_not_moved_are_wrong_and_those_outside_the_spans_are_not_looked_at() {
        let spec = LayoutSpec { seed: 3, start: 0, length: 1 << 16, piece: 4096, contiguous: false };
        let layout = Layout::new(spec).unwrap();
        let (from, to) = (Plain::new(1 << 16), Plain::new(1 << 16));
        assert!(fill(&from, 5, 0, 1 << 16));
        moved(&layout, &from, &to, 3..7);
        let check = |first, count| compare(&to, 5, &layout, &[Span { first, count }]);
        assert_eq!((check(3, 4).pieces, check(3, 4).wrong), (4, 0));
        assert_eq!((check(3, 5).pieces, check(3, 5).wrong), (5, 1));
        assert_eq!((check(0, 1 << 40).pieces, check(0, 1 << 40).wrong), (16, 12), "each piece once");
        assert_eq!(check(19, 4).wrong, 0, "numbers are those modulo the number of pieces");
    }

    #[test]
    fn of_threads_that_reach_into_the_spans_of_others_what_was_moved_is_compared_once() {
        let spec = LayoutSpec { seed: 3, start: 0, length: 1 << 16, piece: 4096, contiguous: false };
        let layout = Layout::new(spec).unwrap();
        let (from, to) = (Plain::new(1 << 16), Plain::new(1 << 16));
        assert!(fill(&from, 5, 0, 1 << 16));
        // Of 16 pieces one thread has moved 12 from the first on, another one 5 from the ninth on: together more than all, but not all.
        moved(&layout, &from, &to, 0..13);
        let spans = [Span { first: 0, count: 12 }, Span { first: 8, count: 5 }];
        assert_eq!(compare(&to, 5, &layout, &spans), Compared { pieces: 13, wrong: 0, first: 0 });
        // One that goes on from the last piece to the first one.
        let spans = [Span { first: 0, count: 2 }, Span { first: 14, count: 5 }];
        let pieces = distinct(&spans, 16).into_iter().flat_map(|span| span.first..span.first + span.count);
        assert_eq!(pieces.collect::<Vec<_>>(), [0, 1, 2, 14, 15]);
    }

    #[test]
    fn nothing_is_written_outside_the_pool() {
        let memory = Plain::new(1000);
        assert!(fill(&memory, 1, 0, 1000));
        assert!(!fill(&memory, 1, 0, 1001) && !clear(&memory, 1001, 1) && !clear(&memory, u64::MAX - 1, 1));
    }
}

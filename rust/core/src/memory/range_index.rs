//! Which of many, possibly overlapping, ranges holds a given one: ordered, deterministic, logarithmic.

/// An immutable index over ranges. Position `i` of the input keeps its number in the answers.
#[derive(Debug, Default)]
pub struct RangeIndex {
    /// Sorted by base, then by input position.
    entries: Vec<Entry>,
    /// Of each [`BLOCK`] entries in a row.
    blocks: Vec<Block>,
}

/// Entries that [`RangeIndex::newest_where`] passes over together.
const BLOCK: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Block {
    /// The largest end of its own ranges.
    reach: u64,
    /// The last of its positions.
    latest: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    base: u64,
    length: u64,
    /// Largest end of this and all earlier entries: lets a search stop early.
    reach: u64,
    position: usize,
}

impl Entry {
    /// Where the range ends; `None` for one that wraps.
    fn end(&self) -> Option<u64> {
        self.base.checked_add(self.length)
    }
}

impl RangeIndex {
    /// Indexes `ranges`, given as (base, length). Ranges that wrap around the address space hold nothing.
    pub fn new(ranges: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut entries: Vec<Entry> = ranges
            .into_iter()
            .enumerate()
            .map(|(position, (base, length))| Entry { base, length, reach: 0, position })
            .collect();
        entries.sort_unstable_by_key(|entry| (entry.base, entry.position));
        let mut reach = 0;
        for entry in &mut entries {
            reach = entry.end().unwrap_or(0).max(reach);
            entry.reach = reach;
        }
        let block = |entries: &[Entry]| Block {
            reach: entries.iter().filter_map(Entry::end).max().unwrap_or(0),
            latest: entries.iter().map(|entry| entry.position).max().unwrap_or(0),
        };
        let blocks = entries.chunks(BLOCK).map(block).collect();
        Self { entries, blocks }
    }

    /// The range with the highest base (then the latest in the input) that holds `address..address + length` whole.
    /// Length 0 is held anywhere inside a range and at its end.
    pub fn find(&self, address: u64, length: u64) -> Option<usize> {
        self.find_where(address, length, |_| true)
    }

    /// As [`RangeIndex::find`], among the ranges of which `counts` says so, by position.
    pub fn find_where(&self, address: u64, length: u64, counts: impl Fn(usize) -> bool) -> Option<usize> {
        let end = address.checked_add(length)?;
        let candidates = self.entries.partition_point(|entry| entry.base <= address);
        self.entries
            .get(..candidates)?
            .iter()
            .rev()
            .take_while(|entry| entry.reach >= end)
            .find(|entry| entry.end().is_some_and(|limit| limit >= end) && counts(entry.position))
            .map(|entry| entry.position)
    }

    /// As [`RangeIndex::find_where`], but the latest in the input, whatever its base.
    pub fn newest_where(&self, address: u64, length: u64, counts: impl Fn(usize) -> bool) -> Option<usize> {
        let end = address.checked_add(length)?;
        let candidates = self.entries.partition_point(|entry| entry.base <= address);
        let blocks = self.blocks.iter().zip(self.entries.get(..candidates)?.chunks(BLOCK)).rev();
        let within_reach = |entries: &[Entry]| entries.last().is_some_and(|entry| entry.reach >= end);
        let mut newest = None;
        for (block, entries) in blocks.take_while(|(_, entries)| within_reach(entries)) {
            if block.reach < end || newest.is_some_and(|newest| block.latest <= newest) {
                continue;
            }
            let held = entries.iter().filter(|entry| entry.end().is_some_and(|limit| limit >= end));
            let positions = held.map(|entry| entry.position).filter(|position| counts(*position));
            newest = newest.max(positions.max());
        }
        newest
    }
}

/// Whether `base..base + size` holds `address..address + length`, in 64 bits without overflow.
#[inline]
pub fn holds(base: u64, size: u64, address: u64, length: u64) -> bool {
    let end = address.checked_sub(base).and_then(|offset| offset.checked_add(length));
    end.is_some_and(|end| end <= size)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn picks_the_innermost_of_nested_ranges() {
        let index = RangeIndex::new([(100, 1000), (200, 50), (400, 10)]);
        assert_eq!(index.find(210, 10), Some(1));
        assert_eq!(index.find(210, 100), Some(0));
        assert_eq!(index.find(1100, 0), Some(0));
        assert_eq!(index.find(1100, 1), None);
        assert_eq!(index.find(u64::MAX, 2), None);
        assert_eq!(RangeIndex::default().find(0, 0), None);
    }

    /// As where a program registers a large range, and each of its pieces too: not all pieces are looked at.
    #[test]
    fn the_newest_of_many_pieces_is_found_quickly() {
        let count = 1 << 18;
        let index = RangeIndex::new([(0, count * 16)].into_iter().chain((0..count).map(|at| (at * 16, 16))));
        let looked = std::cell::Cell::new(0);
        let newest = |address, length| {
            index.newest_where(address, length, |_| {
                looked.set(looked.get() + 1);
                true
            })
        };
        for piece in [0, 1, count / 2, count - 1] {
            assert_eq!(newest(piece * 16 + 4, 8), Some(1 + piece as usize));
            assert_eq!(newest(piece * 16 + 4, 13), (piece < count - 1).then_some(0));
        }
        assert!(looked.get() < 8 * 64, "{} of {count}", looked.get());
    }

    proptest! {
        /// Of more ranges than are passed over together.
        #[test]
        fn the_newest_agrees_with_a_linear_search(
            ranges in prop::collection::vec((0u64..400, 0u64..60), 0..300), address in 0u64..460, length in 0u64..60,
        ) {
            let index = RangeIndex::new(ranges.clone());
            for every in [1, 2, 7] {
                let expected = ranges.iter().enumerate()
                    .filter(|(position, (base, size))| position % every == 0 && holds(*base, *size, address, length))
                    .map(|(position, _)| position)
                    .max();
                prop_assert_eq!(index.newest_where(address, length, |position| position % every == 0), expected);
            }
        }

        #[test]
        fn agrees_with_a_linear_search(
            ranges in prop::collection::vec((0u64..200, 0u64..60), 0..30), address in 0u64..260, length in 0u64..60,
        ) {
            let expected = ranges.iter().enumerate()
                .filter(|(_, (base, size))| holds(*base, *size, address, length))
                .max_by_key(|(position, (base, _))| (*base, *position)).map(|(position, _)| position);
            let index = RangeIndex::new(ranges.clone());
            prop_assert_eq!(index.find(address, length), expected);
            let expected = ranges.iter().enumerate()
                .filter(|(position, (base, size))| position % 2 == 0 && holds(*base, *size, address, length))
                .max_by_key(|(position, (base, _))| (*base, *position)).map(|(position, _)| position);
            prop_assert_eq!(index.find_where(address, length, |position| position % 2 == 0), expected);
        }

        #[test]
        fn holds_never_overflows(base: u64, size: u64, address: u64, length: u64) {
            let wide = u128::from(address) >= u128::from(base)
                && u128::from(address) + u128::from(length) <= u128::from(base) + u128::from(size);
            prop_assert_eq!(holds(base, size, address, length), wide);
        }
    }
}

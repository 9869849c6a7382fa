//! How a transfer is spread over lanes.

use super::IovSource;

/// Which share of the iovs one part gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Iovs `start..end`, whole.
    Range {
        /// First.
        start: usize,
        /// Behind the last.
        end: usize,
    },
    /// Stripe `part` of `of` of every long iov; short ones whole, in turn.
    Stripe {
        /// Which stripe.
        part: usize,
        /// Of how many.
        of: usize,
    },
    /// A fraction of every long iov, from `start` to `end` in units of [`Share::WHOLE`]; of short ones those that fall to it, whole.
    Fraction {
        /// Where it begins.
        start: u32,
        /// Where it ends.
        end: u32,
    },
}

impl Share {
    /// All of a transfer, in the units of fractions.
    pub const WHOLE: u32 = 1 << 16;

    /// All of them.
    #[inline]
    pub fn all(source: &(impl IovSource + ?Sized)) -> Self {
        Self::Range { start: 0, end: source.len() }
    }
}

/// Over how many lanes a transfer may be spread, and from which size on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// Lanes at most.
    lanes: usize,
    /// A single iov of fewer bytes goes over one lane: twice `min_part`.
    from: u64,
    /// Bytes that a part must at least have.
    min_part: u64,
}

impl Spread {
    /// Over lanes that a device moves the bytes of.
    pub const fn over_device(lanes: usize) -> Self {
        Self { lanes, from: 2 * MIN_PART, min_part: MIN_PART }
    }

    /// Over lanes of which threads of this process copy or send the bytes.
    pub const fn over_threads(lanes: usize) -> Self {
        Self { lanes, from: 2 * MIN_PART_OF_THREAD, min_part: MIN_PART_OF_THREAD }
    }

    /// Over how many lanes so many bytes go.
    #[inline]
    pub fn parts(&self, bytes: u64) -> usize {
        usize::try_from(bytes / self.min_part).unwrap_or(usize::MAX).clamp(1, self.lanes.max(1))
    }

    /// Whether a single iov of so many bytes goes over one lane.
    #[inline(always)]
    pub fn keeps_whole(&self, length: u64) -> bool {
        length < self.from
    }
}

/// How a transfer is spread over lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    parts: usize,
    striped: bool,
    iovs: usize,
}

/// Bytes that a part must at least have: below that a second lane costs more than it brings.
const MIN_PART: u64 = 256 << 10;

/// As [`MIN_PART`], where a thread moves each part: below that, waking the second thread costs more than it moves.
/// Between two processes of a host of 2 hardware threads, WRITEs in GB/s over one lane, two and four: 16 x 64 KiB 4.8, 4.0,
/// 4.0; 1 MiB 5.6, 5.5, 5.8, and 6.2 over one lane that the worker's thread leaves to the caller; 4 MiB 3.8, 6.3, 5.9.
/// Over TCP on a loopback 1 MiB 3.1, 3.0, 2.0; READs 2.9, 2.8, 2.4; 16 MiB 2.6, 3.2, 3.1.
const MIN_PART_OF_THREAD: u64 = 1 << 20;

impl Plan {
    /// Spreads `source` over lanes.
    #[inline]
    pub fn new(source: &(impl IovSource + ?Sized), spread: &Spread) -> Self {
        let iovs = source.len();
        if iovs == 1 && source.lengths().all(|length| spread.keeps_whole(length)) {
            return Self { parts: 1, striped: false, iovs };
        }
        // Two sums that the compiler makes several at a time; `any`, all lengths or-ed, is no less than the longest.
        let (sum, any) = source
            .lengths()
            .fold((0u64, 0u64), |(sum, any), length| (sum.wrapping_add(length), any | length));
        let total =
            if any <= u64::from(u32::MAX) { sum } else { source.lengths().fold(0, u64::saturating_add) };
        let parts = spread.parts(total);
        // Dealing out whole iovs balances well unless one of them is a large share of all.
        let is_large = |length: u64| length.saturating_mul(2 * parts as u64) > total;
        let striped = parts > 1 && is_large(any) && source.lengths().any(is_large);
        Self { parts, striped, iovs }
    }

    /// Number of parts, at least 1.
    pub fn parts(&self) -> usize {
        self.parts
    }

    /// The share of part `part`.
    pub fn share(&self, part: usize) -> Share {
        if self.striped {
            Share::Stripe { part, of: self.parts }
        } else {
            let bound = |part: usize| (self.iovs as u128 * part as u128 / self.parts as u128) as usize;
            Share::Range { start: bound(part), end: bound(part + 1) }
        }
    }
}

/// Offset and length of stripe `part` of `of` of an iov, which begins at a multiple of `page`, the bytes of a page; iovs too short to
/// cut belong whole to one part in turn.
pub(super) fn stripe(length: u64, index: usize, part: usize, of: usize, page: u64) -> (u64, u64) {
    if length < MIN_PART.max(of as u64 * page) {
        return if index % of == part { (0, length) } else { (0, 0) };
    }
    let bound = |part: usize| {
        if part == of {
            length
        } else {
            (u128::from(length) * part as u128 / of as u128) as u64 / page * page
        }
    };
    (bound(part), bound(part + 1) - bound(part))
}

/// Offset and length of a [`Share::Fraction`] of an iov. Fractions that tile the whole tile every iov.
pub(super) fn fraction(length: u64, index: usize, (start, end): (u32, u32), page: u64) -> (u64, u64) {
    if length < MIN_PART.max(MOST_FRACTIONS * page) {
        let at = spread_evenly(index);
        return if (start..end).contains(&at) { (0, length) } else { (0, 0) };
    }
    let bound = |at: u32| {
        if at >= Share::WHOLE {
            length
        } else {
            (u128::from(length) * u128::from(at) / u128::from(Share::WHOLE)) as u64 / page * page
        }
    };
    (bound(start), bound(end) - bound(start))
}

/// Parts of a transfer over several rails, at most.
const MOST_FRACTIONS: u64 = 64;

/// A place in the whole for each index, such that every run of them is spread evenly: Fibonacci hashing.
fn spread_evenly(index: usize) -> u32 {
    (index as u32).wrapping_mul(0x9e37_79b1) >> 16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The stripes of an iov tile it and begin at pages, and a short one belongs to exactly one part.
        #[test]
        fn stripes_tile(
            length in prop_oneof![0u64..4_000_000, any::<u64>()], index in 0usize..20, of in 1usize..9,
            page in prop::sample::select(vec![4u64 << 10, 16 << 10, 64 << 10]),
        ) {
            let stripes: Vec<_> = (0..of).map(|part| stripe(length, index, part, of, page)).collect();
            prop_assert_eq!(stripes.iter().map(|(_, length)| u128::from(*length)).sum::<u128>(), u128::from(length));
            let mut end = 0;
            for (offset, length) in stripes.into_iter().filter(|(_, length)| *length > 0) {
                prop_assert_eq!(offset, end);
                prop_assert!(offset.is_multiple_of(page));
                end = offset + length;
            }
        }

        /// Fractions that tile the whole tile each iov, begin at pages, and a short iov belongs to exactly one.
        #[test]
        fn fractions_tile(
            length in prop_oneof![0u64..4_000_000, any::<u64>()], index in 0usize..5000,
            mut bounds in prop::collection::vec(0u32..=Share::WHOLE, 0..9),
            page in prop::sample::select(vec![4u64 << 10, 16 << 10, 64 << 10]),
        ) {
            bounds.extend([0, Share::WHOLE]);
            bounds.sort_unstable();
            let parts = bounds.windows(2).map(|pair| fraction(length, index, (pair[0], pair[1]), page));
            let mut end = 0;
            for (offset, length) in parts.filter(|(_, length)| *length > 0) {
                prop_assert_eq!(offset, end);
                prop_assert!(offset.is_multiple_of(page));
                end = offset + length;
            }
            prop_assert_eq!(end, length);
        }

        /// Shares of whole iovs cover each iov once.
        #[test]
        fn ranges_tile(iovs in 1usize..5000, parts in 1usize..9) {
            let plan = Plan { parts, striped: false, iovs };
            let mut next = 0;
            for part in 0..parts {
                let Share::Range { start, end } = plan.share(part) else { panic!("not a range") };
                prop_assert_eq!(start, next);
                next = end;
            }
            prop_assert_eq!(next, iovs);
        }
    }
}

//! How transfers are cut into work requests.

use crate::fabric::{MAX_SGE, Opcode};

/// How ranges are cut and joined.
#[derive(Clone, Copy, Debug)]
pub struct SlicePolicy {
    /// Bytes of one slice, at least 1.
    pub(super) slice: u32,
    /// Longest request: a slice with a small remainder, within the port's message limit.
    pub(super) longest: u32,
    /// Neighbours are joined up to this length.
    pub(super) join: u32,
    /// Scatter/gather entries that one request may carry.
    pub(super) max_sge: u8,
    /// Payloads up to this many bytes go inline.
    pub(super) max_inline: u32,
}

/// Requests longer than this gain nothing by joining, and leave nothing to spread.
const JOIN_LIMIT: u32 = 1 << 20;

/// The longest message of the InfiniBand architecture.
const LONGEST: u32 = 1 << 31;

impl SlicePolicy {
    /// `slice_size` 0 cuts only at `max_message`, the port's limit. A last slice takes a remainder of up to
    /// `fragment_limit` bytes along.
    pub fn new(
        slice_size: usize,
        fragment_limit: usize,
        max_message: u32,
        max_sge: u32,
        max_inline: u32,
    ) -> Self {
        let limit = max_message.clamp(1, LONGEST);
        let wanted = u32::try_from(slice_size).unwrap_or(u32::MAX);
        let slice = if wanted == 0 { limit } else { wanted.min(limit) };
        let fragment = u32::try_from(fragment_limit).unwrap_or(u32::MAX);
        Self {
            slice,
            longest: slice.saturating_add(fragment).min(limit),
            join: slice.min(JOIN_LIMIT),
            max_sge: max_sge.clamp(1, MAX_SGE as u32) as u8,
            max_inline,
        }
    }

    /// Slice and longest request in one word, for [`super::SliceSizes`].
    pub(super) fn sizes(&self) -> u64 {
        u64::from(self.slice) << 32 | u64::from(self.longest)
    }

    /// This policy with other sizes.
    #[inline(always)]
    pub(super) fn with_sizes(self, sizes: u64) -> Self {
        let slice = (sizes >> 32) as u32;
        Self { slice, longest: sizes as u32, join: slice.min(JOIN_LIMIT), ..self }
    }

    /// Whether a queue pair that was granted so much takes every request that this makes.
    pub fn fits(&self, max_sge: u32, max_inline: u32) -> bool {
        u32::from(self.max_sge) <= max_sge && self.max_inline <= max_inline
    }

    /// Whether so many bytes are one request: at least one byte, and not to be cut.
    #[inline]
    pub fn takes_whole(&self, length: u64) -> bool {
        length.wrapping_sub(1) < u64::from(self.longest)
    }

    /// Bytes up to which a chunk goes inline: none of a READ, which sends nothing along, nor of memory that the CPU may not
    /// read.
    #[inline(always)]
    pub(super) fn inline_limit(&self, opcode: Opcode, readable: bool) -> u32 {
        if readable && opcode == Opcode::Write { self.max_inline } else { 0 }
    }

    /// This policy on a queue pair that was granted less.
    pub fn granted(self, max_sge: u32, max_inline: u32) -> Self {
        Self {
            max_sge: u32::from(self.max_sge).min(max_sge).max(1) as u8,
            max_inline: self.max_inline.min(max_inline),
            ..self
        }
    }
}

#[cfg(test)]
#[cfg(not(flagcx_p2p_loom))]
mod tests {
    use super::*;

    #[test]
    fn a_queue_pair_that_was_granted_less_does_not_fit_until_the_policy_says_so() {
        let policy = SlicePolicy::new(0, 0, 1 << 30, 4, 64);
        assert!(policy.fits(4, 64) && policy.fits(5, 65));
        assert!(!policy.fits(3, 64) && !policy.fits(4, 63));
        assert!(policy.granted(3, 0).fits(3, 0));
    }
}

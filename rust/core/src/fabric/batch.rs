//! Work requests that are posted together, and what becomes of them.

use std::num::NonZeroI32;

use super::{Opcode, Sge, WorkRequest};

/// A list of work requests and what all of them have in common, which so is not said once per request.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// READ or WRITE, all of them.
    pub opcode: Opcode,
    /// Id of the first request; see [`Batch::id`].
    pub first_id: u64,
    /// Every how many requests one is signaled; 0: only the last one is. A provider that posts a long batch in parts may
    /// signal the last one of each part as well.
    pub signal_every: u32,
    /// The requests, in posting order.
    pub requests: &'a [WorkRequest],
    /// What their scatter/gather entries are ranges of.
    pub entries: &'a [Sge],
    /// Each request has one entry, and the entries lie in the order of the requests: a provider need not look which they
    /// are. False is always right.
    pub one_each: bool,
}

impl<'a> Batch<'a> {
    /// The entries of the requests from the first one on, if each has [one](Batch::one_each).
    #[inline(always)]
    pub fn in_order(&self) -> Option<&'a [Sge]> {
        self.entries.get(self.requests.first().filter(|_| self.one_each)?.first_sge as usize..)
    }

    /// What request `index` is called in its completion. The lower 32 bits count up from those of `first_id`, and wrap;
    /// the upper 32 are the same in all.
    #[inline]
    pub fn id(&self, index: usize) -> u64 {
        let sequence = (self.first_id as u32).wrapping_add(index as u32);
        self.first_id >> 32 << 32 | u64::from(sequence)
    }

    /// Whether request `index` asks for a completion on success: every `signal_every`-th does, and the last one.
    #[inline]
    pub fn is_signaled(&self, index: usize) -> bool {
        let count = index + 1;
        count == self.requests.len() || count.is_multiple_of(self.signal_every as usize)
    }
}

/// Answer of [`super::WorkQueue::post`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posted {
    /// Requests accepted, from the front.
    pub accepted: usize,
    /// Why the next one was refused (`ENOMEM`: the send queue is full), if one was. Not an `Option<i32>`, so that the
    /// answer fits in registers.
    pub errno: Option<NonZeroI32>,
}

impl Posted {
    /// All requests were accepted.
    #[inline]
    pub fn all(batch: &Batch<'_>) -> Self {
        Self { accepted: batch.requests.len(), errno: None }
    }

    /// So many were accepted, and the next one was refused with `errno` (`EIO` instead of 0).
    #[inline]
    pub fn cut(accepted: usize, errno: i32) -> Self {
        Self { accepted, errno: NonZeroI32::new(errno).or(NonZeroI32::new(libc::EIO)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: WorkRequest =
        WorkRequest { remote_address: 0, rkey: 0, first_sge: 0, origin: 0, sge_count: 1, inline: false };

    fn signaled(length: usize, signal_every: u32) -> Vec<usize> {
        let requests = vec![REQUEST; length];
        let batch = Batch {
            opcode: Opcode::Write,
            first_id: 0,
            signal_every,
            requests: &requests,
            entries: &[],
            one_each: false,
        };
        (0..length).filter(|index| batch.is_signaled(*index)).collect()
    }

    #[test]
    fn every_so_many_and_the_last_are_signaled() {
        assert_eq!(signaled(7, 3), [2, 5, 6]);
        assert_eq!(signaled(6, 3), [2, 5]);
        assert_eq!(signaled(3, 1), [0, 1, 2]);
        assert_eq!(signaled(5, 0), [4]);
        assert_eq!(signaled(5, u32::MAX), [4]);
        assert_eq!(signaled(1, 9), [0]);
        assert_eq!(signaled(0, 1), [0; 0]);
    }

    #[test]
    fn ids_count_within_their_lower_half() {
        let batch = Batch {
            opcode: Opcode::Read,
            first_id: 0xABCD_1234_FFFF_FFFE,
            signal_every: 1,
            requests: &[REQUEST; 4],
            entries: &[],
            one_each: false,
        };
        let ids: Vec<_> = (0..4).map(|index| batch.id(index)).collect();
        assert_eq!(
            ids,
            [0xABCD_1234_FFFF_FFFE, 0xABCD_1234_FFFF_FFFF, 0xABCD_1234_0000_0000, 0xABCD_1234_0000_0001]
        );
    }
}

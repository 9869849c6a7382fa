//! How the last released transfers ended.

use std::collections::VecDeque;

use super::slots::{SLOT_BITS, SLOT_MASK};
use super::{Failure, Outcome, TransferId};
use crate::sync::{AtomicU64, Mutex, Ordering, lock};

/// Transfers whose outcome stays readable after their release.
pub const REMEMBERED: usize = 4096;

/// Twice as many as promised, so that long-running transfers between them do not push out the last ones released. A
/// power of two: the remainder costs nothing.
const LENGTH: usize = 2 * REMEMBERED;

/// How a transfer ended, without the details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum End {
    Done = 1,
    Failed = 2,
    TimedOut = 3,
    Cancelled = 4,
}

/// The ends of transfers that have their sequence numbers from one count.
#[derive(Debug)]
pub(super) struct Ends {
    /// The sequence number, where ids have it, with an [`End`] below, at `sequence % len`; 0 for none. Written by whoever
    /// released the transfer, read by anyone: one word, so Relaxed. A straggler does not overwrite a younger transfer's.
    by_sequence: [AtomicU64; LENGTH],
    /// The same of the last stragglers: transfers that ran for so long that younger ones had their places.
    stragglers: Mutex<VecDeque<u64>>,
}

impl Default for Ends {
    fn default() -> Self {
        Self { by_sequence: std::array::from_fn(|_| AtomicU64::new(0)), stragglers: Mutex::default() }
    }
}

impl Ends {
    #[inline(always)]
    pub(super) fn record(&self, id: TransferId, end: End) {
        let sequence = id.0 >> SLOT_BITS;
        let Some(entry) = self.by_sequence.get(sequence as usize % LENGTH) else { return };
        let value = id.0 & !SLOT_MASK | end as u64;
        // Sequence numbers begin anew after 2^44.
        if (value.wrapping_sub(entry.load(Ordering::Relaxed)) as i64) > 0 {
            entry.store(value, Ordering::Relaxed);
        } else {
            self.record_straggler(value);
        }
    }

    #[cold]
    fn record_straggler(&self, value: u64) {
        let mut stragglers = lock(&self.stragglers);
        if stragglers.len() == REMEMBERED {
            stragglers.pop_front();
        }
        stragglers.push_back(value);
    }

    /// How a released transfer ended, if it is among the last [`REMEMBERED`].
    pub(super) fn find(&self, id: TransferId) -> Option<End> {
        let sequence = id.0 >> SLOT_BITS;
        let is_meant = |value: &u64| sequence != 0 && value >> SLOT_BITS == sequence;
        let value = self.by_sequence.get(sequence as usize % LENGTH)?.load(Ordering::Relaxed);
        let value =
            Some(value).filter(is_meant).or_else(|| lock(&self.stragglers).iter().copied().find(is_meant))?;
        [End::Done, End::Failed, End::TimedOut, End::Cancelled]
            .into_iter()
            .find(|end| *end as u64 == value & SLOT_MASK)
    }
}

/// Details of the last failed transfers, oldest first.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<VecDeque<(TransferId, Failure)>>);

impl Failures {
    /// Keeps the details of a failure.
    pub(super) fn keep(&self, id: TransferId, failure: &Failure) {
        let mut failures = lock(&self.0);
        // Two threads may release the same transfer at the same time and both come here.
        if !failures.iter().rev().take(64).any(|(failed, _)| *failed == id) {
            if failures.len() == REMEMBERED {
                failures.pop_front();
            }
            failures.push_back((id, failure.clone()));
        }
    }

    pub(super) fn find(&self, id: TransferId) -> Option<Outcome> {
        let failures = lock(&self.0);
        failures.iter().rev().find(|(failed, _)| *failed == id).map(|(_, f)| Outcome::Failed(f.clone()))
    }
}

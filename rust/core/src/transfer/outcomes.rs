//! How the last released transfers ended.

use std::collections::VecDeque;

use super::slots::{SLOT_BITS, SLOT_MASK};
use super::{Failure, TransferId};
use crate::pool::EndState;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};

/// Number of transfers that keep a readable outcome after their release.
pub const REMEMBERED: usize = 4096;

/// Twice as many as promised, so that long-running transfers between them do not push out the last ones released. A
/// power of two: the remainder costs nothing.
const LENGTH: usize = 2 * REMEMBERED;

/// The end states of released transfers.
#[derive(Debug)]
pub(super) struct Outcomes {
    /// The sequence number, where ids have it, with an [`EndState`] below, at `sequence % len`; 0 for none. Written by the
    /// thread that releases the transfer, read by any: one word, so Relaxed. A straggler does not overwrite a younger
    /// transfer's.
    by_sequence: [AtomicU64; LENGTH],
    /// Such words of the last stragglers: transfers that ran for so long that younger ones stood there already.
    stragglers: Mutex<VecDeque<u64>>,
    /// Details of the last failed ones, oldest first.
    failures: Mutex<VecDeque<(TransferId, Failure)>>,
}

impl Default for Outcomes {
    fn default() -> Self {
        Self {
            by_sequence: std::array::from_fn(|_| AtomicU64::new(0)),
            stragglers: Mutex::default(),
            failures: Mutex::default(),
        }
    }
}

impl Outcomes {
    #[inline(always)]
    pub(super) fn record(&self, id: TransferId, state: EndState) {
        let sequence = id.0 >> SLOT_BITS;
        let Some(entry) = self.by_sequence.get(sequence as usize % LENGTH) else { return };
        let value = id.0 & !SLOT_MASK | state as u64;
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
    pub(super) fn find(&self, id: TransferId) -> Option<EndState> {
        let sequence = id.0 >> SLOT_BITS;
        let is_meant = |value: &u64| sequence != 0 && value >> SLOT_BITS == sequence;
        let value = self.by_sequence.get(sequence as usize % LENGTH)?.load(Ordering::Relaxed);
        let value =
            Some(value).filter(is_meant).or_else(|| lock(&self.stragglers).iter().copied().find(is_meant))?;
        Some(EndState::from_code(value as u8))
    }

    /// Keeps the details of a failure.
    #[cold]
    pub(super) fn record_failure(&self, id: TransferId, failure: &Failure) {
        let mut failures = lock(&self.failures);
        // Two threads may release the same transfer at the same time and both come here.
        if !failures.iter().rev().take(64).any(|(failed, _)| *failed == id) {
            if failures.len() == REMEMBERED {
                failures.pop_front();
            }
            failures.push_back((id, failure.clone()));
        }
    }

    /// The details of a failure, if it is among the last [`REMEMBERED`].
    pub(super) fn find_failure(&self, id: TransferId) -> Option<Failure> {
        let failures = lock(&self.failures);
        failures.iter().rev().find(|(failed, _)| *failed == id).map(|(_, failure)| failure.clone())
    }
}

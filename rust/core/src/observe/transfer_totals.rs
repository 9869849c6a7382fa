//! Sums of what was counted of transfers.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::{AddAssign, SubAssign};

use super::Direction;

/// Counts of transfers, which others go on to add to.
pub trait TransferSource: Debug + Send + Sync {
    /// Adds what began so far.
    fn add_started(&self, totals: &mut TransferTotals);

    /// Adds what ended so far.
    fn add_ended(&self, totals: &mut TransferTotals);

    /// Adds both. What ended is read first: else a transfer that begins and ends in between would be taken off what is in flight.
    fn add_to(&self, totals: &mut TransferTotals) {
        self.add_ended(totals);
        self.add_started(totals);
    }
}

/// Transfers and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Transfers.
    pub transfers: u64,
    /// Bytes of their parts.
    pub bytes: u64,
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.transfers = self.transfers.wrapping_add(other.transfers);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Self) {
        self.transfers = self.transfers.wrapping_sub(other.transfers);
        self.bytes = self.bytes.wrapping_sub(other.bytes);
    }
}

/// What was counted for one direction and path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathTotals {
    /// What began.
    pub started: Amount,
    /// What ended, by the number of its [`EndState`](super::EndState).
    pub ended: [Amount; 4],
}

/// What was counted, by direction and path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransferTotals(BTreeMap<(Direction, &'static str), PathTotals>);

impl TransferTotals {
    /// Those of one direction and path.
    pub fn of(&mut self, direction: Direction, path: &'static str) -> &mut PathTotals {
        self.0.entry((direction, path)).or_default()
    }

    /// Every direction and path that has counted something.
    pub fn iter(&self) -> impl Iterator<Item = (Direction, &'static str, &PathTotals)> {
        let used = self.0.iter().filter(|(_, totals)| **totals != PathTotals::default());
        used.map(|((direction, path), totals)| (*direction, *path, totals))
    }

    /// Adds those of `other`.
    pub fn merge(&mut self, other: &Self) {
        for ((direction, path), more) in &other.0 {
            let totals = self.of(*direction, path);
            totals.started += more.started;
            for (total, more) in totals.ended.iter_mut().zip(more.ended) {
                *total += more;
            }
        }
    }

    /// What was counted since it was `earlier`.
    pub fn since(mut self, earlier: &Self) -> Self {
        for ((direction, path), less) in &earlier.0 {
            let totals = self.of(*direction, path);
            totals.started -= less.started;
            for (total, less) in totals.ended.iter_mut().zip(less.ended) {
                *total -= less;
            }
        }
        self
    }

    /// What began and has not ended.
    pub fn in_flight(&self) -> Amount {
        let mut left = Amount::default();
        for totals in self.0.values() {
            left += totals.started;
            for ended in totals.ended {
                left -= ended;
            }
        }
        // The counts of several lanes are not of one moment: what seems to be ended before it began is not in flight.
        let least_zero = |value: u64| if value as i64 > 0 { value } else { 0 };
        Amount { transfers: least_zero(left.transfers), bytes: least_zero(left.bytes) }
    }
}

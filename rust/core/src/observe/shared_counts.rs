//! Counts of transfers that many threads count at a time.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Amount, Direction, EndState, PathNames, TransferSource, TransferTotals};

/// Counts of transfers that no worker has. Rare: every thread adds (Relaxed: they guard no other memory), any reads.
#[derive(Debug)]
pub struct SharedCounts {
    paths: PathNames,
    /// What ended, by direction and end.
    ended: [[SharedTally; 4]; 2],
    started: [SharedTally; 2],
}

#[derive(Debug, Default)]
struct SharedTally {
    transfers: AtomicU64,
    bytes: AtomicU64,
}

impl SharedTally {
    fn add(&self, transfers: u64, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.transfers.fetch_add(transfers, Ordering::Relaxed);
    }

    fn amount(&self) -> Amount {
        Amount {
            transfers: self.transfers.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

impl SharedCounts {
    /// Nothing yet.
    pub fn new(paths: PathNames) -> Self {
        Self { paths, ended: Default::default(), started: Default::default() }
    }

    /// As [`TransferCounts::start`](super::TransferCounts::start).
    #[cold]
    pub fn start(&self, direction: Direction, transfers: u64, bytes: u64) {
        if let Some(tally) = self.started.get(direction as usize) {
            tally.add(transfers, bytes);
        }
    }

    /// As [`TransferCounts::end`](super::TransferCounts::end).
    #[cold]
    pub fn end(&self, direction: Direction, end: EndState, transfers: u64, bytes: u64) {
        let ends = self.ended.get(direction as usize);
        if let Some(tally) = ends.and_then(|ends| ends.get(end as usize)) {
            tally.add(transfers, bytes);
        }
    }
}

impl TransferSource for SharedCounts {
    fn add_started(&self, totals: &mut TransferTotals) {
        for direction in [Direction::Write, Direction::Read] {
            let of_path = totals.of(direction, self.paths.of(direction));
            if let Some(started) = self.started.get(direction as usize) {
                of_path.started += started.amount();
            }
        }
    }

    fn add_ended(&self, totals: &mut TransferTotals) {
        for direction in [Direction::Write, Direction::Read] {
            let of_path = totals.of(direction, self.paths.of(direction));
            let tallies = self.ended.get(direction as usize).into_iter().flatten();
            for (total, tally) in of_path.ended.iter_mut().zip(tallies) {
                *total += tally.amount();
            }
        }
    }
}

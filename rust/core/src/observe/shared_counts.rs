//! Counts of transfers that many threads count at a time.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use super::transfer_counts::COUNTED;
use super::{Amount, Direction, EndState, PathNames, TransferSource, TransferTotals};

/// Copies of the counts of transfers that end well. Threads with different numbers mostly use different copies, each on a cache line
/// of its own.
const SHARDS: usize = 4;

/// Counts of transfers that threads make by themselves, beside workers. Every thread adds (Relaxed: they guard no other memory), any
/// reads.
#[derive(Debug)]
pub struct SharedCounts {
    paths: PathNames,
    done: [CachePadded<[SharedTally; 2]>; SHARDS],
    /// What ended otherwise, by direction and end.
    others: [[SharedTally; 4]; 2],
    /// What began, but for what is in `done`.
    started: [SharedTally; 2],
}

#[derive(Debug, Default)]
struct SharedTally {
    transfers: AtomicU64,
    bytes: AtomicU64,
}

impl SharedTally {
    /// Answers the transfers before.
    #[inline]
    fn add(&self, transfers: u64, bytes: u64) -> u64 {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.transfers.fetch_add(transfers, Ordering::Relaxed)
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
        Self { paths, done: Default::default(), others: Default::default(), started: Default::default() }
    }

    /// A transfer of so many bytes began and ended well, by the thread with this number.
    #[inline]
    pub fn done(&self, thread: usize, direction: Direction, bytes: u64) {
        if let Some(tally) = self.tally(thread, direction).filter(|_| COUNTED) {
            tally.add(1, bytes);
        }
    }

    /// Transfers that ended well and were counted where this thread counts; 1 if none is counted, so that none has its turn to be
    /// measured.
    #[inline]
    pub fn done_beside(&self, thread: usize, direction: Direction) -> u64 {
        if !COUNTED {
            return 1;
        }
        self.tally(thread, direction).map_or(0, |tally| tally.transfers.load(Ordering::Relaxed))
    }

    #[inline]
    fn tally(&self, thread: usize, direction: Direction) -> Option<&SharedTally> {
        self.done.get(thread % SHARDS)?.get(direction as usize)
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
        let ends = self.others.get(direction as usize);
        if let Some(tally) = ends.and_then(|ends| ends.get(end as usize)) {
            tally.add(transfers, bytes);
        }
    }

    fn done_so_far(&self, direction: Direction) -> Amount {
        let mut done = Amount::default();
        let tallies = self.done.iter().filter_map(|shard| shard.get(direction as usize));
        tallies.for_each(|tally| done += tally.amount());
        done
    }
}

impl TransferSource for SharedCounts {
    fn add_started(&self, totals: &mut TransferTotals) {
        for direction in [Direction::Write, Direction::Read] {
            let of_path = totals.of(direction, self.paths.of(direction));
            of_path.started += self.done_so_far(direction);
            if let Some(started) = self.started.get(direction as usize) {
                of_path.started += started.amount();
            }
        }
    }

    fn add_ended(&self, totals: &mut TransferTotals) {
        for direction in [Direction::Write, Direction::Read] {
            let of_path = totals.of(direction, self.paths.of(direction));
            if let Some(total) = of_path.ended.first_mut() {
                *total += self.done_so_far(direction);
            }
            let others = self.others.get(direction as usize).into_iter().flatten();
            for (total, tally) in of_path.ended.iter_mut().zip(others) {
                *total += tally.amount();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_counted_and_measured_only_where_transfers_are_counted() {
        let counts = SharedCounts::new(PathNames { write: "shared", read: "shared" });
        assert_eq!(counts.done_beside(0, Direction::Write), u64::from(!COUNTED));
        counts.done(0, Direction::Write, 8);
        assert_eq!(counts.done_beside(0, Direction::Write), 1);
        let mut totals = TransferTotals::default();
        counts.add_to(&mut totals);
        assert_eq!(totals.of(Direction::Write, "shared").ended[0].transfers, u64::from(COUNTED));
        assert_eq!(totals.in_flight(), Amount::default());
    }
}

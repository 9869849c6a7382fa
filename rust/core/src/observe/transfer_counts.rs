//! Counts of transfers: what began, and what ended, how.

use super::{Amount, Counter, Direction, TransferTotals};

/// How a transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TransferEnd {
    /// All bytes are where they belong.
    Done = 0,
    /// Something failed.
    Failed = 1,
    /// Not within its deadline.
    TimedOut = 2,
    /// By the caller, or with its connection.
    Cancelled = 3,
}

impl TransferEnd {
    /// Every end, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Done, Self::Failed, Self::TimedOut, Self::Cancelled];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The names of the paths that WRITEs and READs take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathNames {
    /// Of WRITEs.
    pub write: &'static str,
    /// Of READs.
    pub read: &'static str,
}

impl PathNames {
    /// The name for one direction.
    pub fn of(self, direction: Direction) -> &'static str {
        match direction {
            Direction::Write => self.write,
            Direction::Read => self.read,
        }
    }
}

/// What one thread at a time counts, the holder of a worker's lock, of the transfers of one lane by one path. Any thread reads.
#[derive(Debug)]
pub struct TransferCounts {
    paths: PathNames,
    directions: [OfDirection; 2],
}

#[derive(Debug, Default)]
struct OfDirection {
    started: Tally,
    ended: [Tally; 4],
}

#[derive(Debug, Default)]
struct Tally {
    transfers: Counter,
    bytes: Counter,
}

impl Tally {
    #[inline(always)]
    fn add(&self, transfers: u64, bytes: u64) {
        self.transfers.add(transfers);
        self.bytes.add(bytes);
    }

    fn amount(&self) -> Amount {
        Amount { transfers: self.transfers.get(), bytes: self.bytes.get() }
    }
}

impl TransferCounts {
    /// Nothing yet.
    pub fn new(paths: PathNames) -> Self {
        Self { paths, directions: Default::default() }
    }

    /// The paths that it counts.
    pub fn paths(&self) -> PathNames {
        self.paths
    }

    /// A part with so many bytes began; `transfers` is 1 for one part of each transfer, and 0 for the others.
    #[inline(always)]
    pub fn start(&self, direction: Direction, transfers: u64, bytes: u64) {
        if let Some(counts) = self.directions.get(direction as usize) {
            counts.started.add(transfers, bytes);
        }
    }

    /// A part with so many bytes ended; `transfers` is 1 for the last part of each transfer, and 0 for the others.
    #[inline(always)]
    pub fn end(&self, direction: Direction, end: TransferEnd, transfers: u64, bytes: u64) {
        if let Some(counts) = self.directions.get(direction as usize)
            && let Some(tally) = counts.ended.get(end as usize)
        {
            tally.add(transfers, bytes);
        }
    }

    /// Adds what was counted so far.
    pub fn add_to(&self, totals: &mut TransferTotals) {
        for direction in [Direction::Write, Direction::Read] {
            let Some(counts) = self.directions.get(direction as usize) else { continue };
            let of_path = totals.of(direction, self.paths.of(direction));
            of_path.started += counts.started.amount();
            for (total, tally) in of_path.ended.iter_mut().zip(&counts.ended) {
                *total += tally.amount();
            }
        }
    }
}

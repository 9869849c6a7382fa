//! Counts of transfers: what began, and what ended, how.

use super::{Amount, Counter, Direction, TransferTotals};

/// Transfers are counted, but for the comparison of `./x bench overhead`.
pub(crate) const COUNTED: bool = !cfg!(feature = "uncounted");

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
    started: [Tally; 2],
    /// By direction, and the code of the end: the ends of last parts come after those of the others. The parts that were not last
    /// ones are counted where the transfers of the last ones are.
    ended: [[Tally; 8]; 2],
    /// Bytes of parts that came from other lanes, where they began, and of those that went to others, where they end.
    came: Counter,
    went: Counter,
}

#[derive(Debug, Default)]
struct Tally {
    parts: Counter,
    bytes: Counter,
}

impl TransferCounts {
    /// Nothing yet.
    pub fn new(paths: PathNames) -> Self {
        Self {
            paths,
            started: Default::default(),
            ended: Default::default(),
            came: Counter::default(),
            went: Counter::default(),
        }
    }

    /// The paths that it counts.
    pub fn paths(&self) -> PathNames {
        self.paths
    }

    /// A part with so many bytes began; `transfers` is 1 for one part of each transfer, and 0 for the others. Answers the
    /// transfers counted before.
    #[inline(always)]
    pub fn start(&self, direction: Direction, transfers: u64, bytes: u64) -> u64 {
        if !COUNTED {
            return 1;
        }
        let Some(tally) = self.started.get(direction as usize) else { return 0 };
        let before = tally.parts.get();
        tally.parts.add(transfers);
        tally.bytes.add(bytes);
        before
    }

    /// A part with so many bytes ended. `code` is the number of a [`EndState`](super::EndState), of its transfer so far, plus 4 for the last part
    /// of the transfer: one number, so that no part costs a decision.
    #[inline(always)]
    pub fn end(&self, direction: Direction, code: u8, bytes: u64) {
        let ends = self.ended.get(direction as usize).filter(|_| COUNTED);
        if let Some(tally) = ends.and_then(|ends| ends.get(usize::from(code & 7))) {
            tally.parts.add(1);
            tally.bytes.add(bytes);
        }
    }

    /// A part with so many bytes that had begun here goes on on another lane, which counts its end. Neither is a beginning or an end, so
    /// what all lanes count together is that of transfers that never moved.
    pub fn part_went(&self, bytes: u64) {
        if COUNTED {
            self.went.add(bytes);
        }
    }

    /// A part that began on another lane goes on here.
    pub fn part_came(&self, bytes: u64) {
        if COUNTED {
            self.came.add(bytes);
        }
    }

    /// Bytes of the parts that were here and have not gone.
    pub fn bytes_had(&self) -> u64 {
        let came = self.came.get().wrapping_sub(self.went.get());
        self.started.iter().fold(came, |sum, started| sum.wrapping_add(started.bytes.get()))
    }

    /// Bytes of the parts that have ended here.
    pub fn ended_bytes(&self) -> u64 {
        self.ended.iter().flatten().fold(0, |sum: u64, ended| sum.wrapping_add(ended.bytes.get()))
    }

    /// Adds what began so far.
    pub fn add_started(&self, totals: &mut TransferTotals) {
        for direction in [Direction::Write, Direction::Read] {
            let of_path = totals.of(direction, self.paths.of(direction));
            if let Some(started) = self.started.get(direction as usize) {
                of_path.started += Amount { transfers: started.parts.get(), bytes: started.bytes.get() };
            }
        }
    }

    /// Adds what ended so far. Read before what began, or what is in flight would seem to be less than it is.
    pub fn add_ended(&self, totals: &mut TransferTotals) {
        for direction in [Direction::Write, Direction::Read] {
            let of_path = totals.of(direction, self.paths.of(direction));
            let tallies = |code: usize| self.ended.get(direction as usize)?.get(code);
            for (code, total) in of_path.ended.iter_mut().enumerate() {
                if let (Some(others), Some(last)) = (tallies(code), tallies(code + 4)) {
                    let bytes = others.bytes.get().wrapping_add(last.bytes.get());
                    *total += Amount { transfers: last.parts.get(), bytes };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::EndState;

    #[test]
    fn transfers_are_counted_with_their_last_part_and_bytes_with_each() {
        let counts = TransferCounts::new(PathNames { write: "rdma", read: "tcp" });
        assert_eq!([1, 0].map(|first| counts.start(Direction::Read, first, 100)), [0, 1]);
        counts.end(Direction::Read, EndState::Done as u8, 100);
        counts.end(Direction::Read, EndState::Failed as u8 + 4, 100);
        counts.start(Direction::Write, 1, 7);
        let mut totals = TransferTotals::default();
        counts.add_ended(&mut totals);
        counts.add_started(&mut totals);
        let read = *totals.of(Direction::Read, "tcp");
        assert_eq!(read.started, Amount { transfers: 1, bytes: 200 });
        assert_eq!(read.ended[0], Amount { transfers: 0, bytes: 100 });
        assert_eq!(read.ended[1], Amount { transfers: 1, bytes: 100 });
        assert_eq!(totals.in_flight(), Amount { transfers: 1, bytes: 7 });
    }
}

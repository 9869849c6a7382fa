//! Counts of the transfers that callers copy themselves, each of which begins and ends in a call.

use crossbeam::utils::CachePadded;

use super::copying_thread::CopyingThread;
use super::places::PLACES;
use crate::fork::ProcessGeneration;
use crate::observe::{Amount, Direction, EndState, PathNames, TransferSource, TransferTotals};
use crate::sync::{AtomicU64, Ordering};

/// Counts of one lane, for one pair of paths. A thread that has a place adds at that place, by plain loads and stores; all others
/// share one tally, by locked additions, of which two take a tenth of a copy of 4 KiB.
#[derive(Debug)]
pub(super) struct CopyCounts {
    paths: PathNames,
    /// Number of the process generation that uses them.
    generation: u32,
    /// On cache lines of their own, by direction.
    own: [CachePadded<[Tally; 2]>; PLACES],
    shared: CachePadded<[Tally; 2]>,
}

/// At a place: stored by the thread that has the place, which alone loads for it, and by the next one after [`Places`](super::places::Places) has
/// handed the place on. Shared: added to by any thread. Any thread loads either to report. Relaxed, for they guard no other memory.
#[derive(Debug, Default)]
pub(super) struct Tally {
    transfers: AtomicU64,
    bytes: AtomicU64,
}

impl Tally {
    /// Transfers so far, for the thread that has the place.
    #[inline(always)]
    pub(super) fn transfers(&self) -> u64 {
        self.transfers.load(Ordering::Relaxed)
    }

    /// A transfer of so many bytes, by the thread that has the place.
    #[inline(always)]
    pub(super) fn add_alone(&self, bytes: u64) {
        self.bytes.store(self.bytes.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed);
        self.transfers.store(self.transfers().wrapping_add(1), Ordering::Relaxed);
    }

    /// The same, by any thread.
    pub(super) fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.transfers.fetch_add(1, Ordering::Relaxed);
    }

    fn amount(&self) -> Amount {
        Amount { transfers: self.transfers(), bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

impl CopyCounts {
    /// Nothing yet.
    pub(super) fn new(paths: PathNames) -> Self {
        let generation = ProcessGeneration::current().number();
        Self { paths, generation, own: Default::default(), shared: CachePadded::default() }
    }

    /// The paths that it counts.
    pub(super) fn paths(&self) -> PathNames {
        self.paths
    }

    /// Where that thread, the current one, counts alone, if it has a place.
    #[inline(always)]
    pub(super) fn own(&self, thread: &CopyingThread, direction: Direction) -> Option<&Tally> {
        self.own.get(thread.place(self.generation)?)?.get(direction as usize)
    }

    /// Where all others count.
    pub(super) fn shared(&self, direction: Direction) -> &Tally {
        let [writes, reads] = &*self.shared;
        if direction as usize == 0 { writes } else { reads }
    }

    fn so_far(&self, direction: Direction) -> Amount {
        let mut amount = self.shared(direction).amount();
        let own = self.own.iter().filter_map(|line| line.get(direction as usize));
        own.for_each(|tally| amount += tally.amount());
        amount
    }
}

impl TransferSource for CopyCounts {
    fn add_started(&self, totals: &mut TransferTotals) {
        for direction in [Direction::Write, Direction::Read] {
            totals.of(direction, self.paths.of(direction)).started += self.so_far(direction);
        }
    }

    fn add_ended(&self, totals: &mut TransferTotals) {
        for direction in [Direction::Write, Direction::Read] {
            let of_path = totals.of(direction, self.paths.of(direction));
            if let Some(done) = of_path.ended.get_mut(EndState::Done as usize) {
                *done += self.so_far(direction);
            }
        }
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests {
    use std::cell::RefCell;
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    /// Tests that take all places, one at a time.
    static ALONE: Mutex<()> = Mutex::new(());

    fn done(counts: &CopyCounts) -> [Amount; 2] {
        let mut totals = TransferTotals::default();
        counts.add_to(&mut totals);
        assert_eq!(totals.in_flight(), Amount::default());
        [Direction::Write, Direction::Read].map(|direction| totals.of(direction, "shared").ended[0])
    }

    fn count(counts: &CopyCounts, direction: Direction, bytes: u64) -> bool {
        CopyingThread::with(|thread| match counts.own(thread, direction) {
            Some(own) => {
                own.add_alone(bytes);
                true
            }
            None => {
                thread.look_for_place();
                counts.shared(direction).add(bytes);
                false
            }
        })
    }

    /// Threads that come and end, more at a time than there are places.
    #[test]
    fn no_count_is_lost_whatever_threads_come_and_end() {
        const THREADS: u64 = 3 * PLACES as u64;
        const EACH: u64 = 5000;
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = CopyCounts::new(PathNames { write: "shared", read: "shared" });
        for round in 1..=4 {
            let at_places: Vec<bool> = std::thread::scope(|scope| {
                let run = || {
                    let writes = (0..EACH).map(|_| count(&counts, Direction::Write, 8)).last();
                    count(&counts, Direction::Read, 3);
                    writes.unwrap_or_default()
                };
                let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(run)).collect();
                threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
            });
            assert_eq!(at_places.len() as u64, THREADS);
            assert!(at_places.contains(&true), "none had a place in round {round}");
            let (writes, reads) = (round * THREADS * EACH, round * THREADS);
            let expected = [(writes, 8 * writes), (reads, 3 * reads)];
            assert_eq!(done(&counts), expected.map(|(transfers, bytes)| Amount { transfers, bytes }));
        }
    }

    /// Values of a thread that are dropped after its place was given back copy as well.
    #[test]
    fn a_thread_that_ends_has_no_place_any_more() {
        struct CopiesAtTheEnd(Arc<CopyCounts>);
        impl Drop for CopiesAtTheEnd {
            fn drop(&mut self) {
                (0..100).for_each(|_| {
                    count(&self.0, Direction::Read, 1);
                });
            }
        }
        thread_local!(static LAST: RefCell<Option<CopiesAtTheEnd>> = const { RefCell::new(None) });
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = Arc::new(CopyCounts::new(PathNames { write: "shared", read: "shared" }));
        let mut threads = (0..2 * PLACES).map(|_| {
            let counts = Arc::clone(&counts);
            std::thread::spawn(move || {
                // Dropped last, for it was made first.
                LAST.set(Some(CopiesAtTheEnd(Arc::clone(&counts))));
                let at_place = (0..100).filter(|_| count(&counts, Direction::Write, 1)).count();
                assert!(at_place > 0, "places are free again");
            })
            .join()
        });
        assert!(threads.all(|thread| thread.is_ok()));
        let expected = Amount { transfers: 200 * PLACES as u64, bytes: 200 * PLACES as u64 };
        assert_eq!(done(&counts), [expected; 2]);
    }
}

#[cfg(all(test, flagcx_p2p_loom))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod models {
    use super::*;
    use crate::pool::places::Places;
    use crate::sync::Arc;

    /// Two threads that count one after the other at a place, or one of them elsewhere while it is taken.
    #[test]
    fn a_place_that_is_handed_on_keeps_what_was_counted() {
        loom::model(|| {
            let places = Arc::new(Places::default());
            let (own, shared) = (Arc::new(Tally::default()), Arc::new(Tally::default()));
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let (places, own, shared) = (places.clone(), own.clone(), shared.clone());
                    loom::thread::spawn(move || match places.take() {
                        Some(0) => {
                            own.add_alone(8);
                            places.give_back(0);
                        }
                        place => {
                            shared.add(8);
                            place.into_iter().for_each(|place| places.give_back(place));
                        }
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            let mut sum = own.amount();
            sum += shared.amount();
            assert_eq!(sum, Amount { transfers: 2, bytes: 16 });
        });
    }
}

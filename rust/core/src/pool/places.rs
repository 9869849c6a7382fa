//! Places: each is that of one thread at a time, and the next thread there goes on with what the one before has stored.

use crate::sync::{AtomicU32, Ordering};

/// Threads that have a place at a time.
pub(super) const PLACES: usize = 16;

/// Which places are taken.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// A bit for each. Set by the thread that takes the place (Acquire), and cleared by the same thread (Release): so what one thread has stored at
    /// a place is what the next one there loads.
    taken: AtomicU32,
}

impl Places {
    /// A place that no other thread has.
    pub(super) fn take(&self) -> Option<usize> {
        let mut taken = self.taken.load(Ordering::Relaxed);
        loop {
            let place = taken.trailing_ones();
            if place as usize >= PLACES {
                return None;
            }
            taken = self.taken.fetch_or(1 << place, Ordering::Acquire);
            if taken & 1 << place == 0 {
                return Some(place as usize);
            }
        }
    }

    /// The calling thread has that place no longer.
    pub(super) fn give_back(&self, place: usize) {
        self.taken.fetch_and(!(1 << place), Ordering::Release);
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_taken_once_until_it_is_given_back() {
        let places = Places::default();
        let taken: Vec<_> = std::iter::from_fn(|| places.take()).collect();
        assert_eq!(taken, (0..PLACES).collect::<Vec<_>>());
        places.give_back(5);
        assert_eq!([places.take(), places.take()], [Some(5), None]);
    }
}

//! How a worker's thread sleeps and is woken without losing a wake-up.
//!
//! A submitter leaves work (under the worker's lock or in a submission queue) and then asks [`Parking::must_wake`];
//! the thread announces that it parks and then looks for work once more before it really sleeps.

use crate::sync::{AtomicU32, Ordering, fence};

const AWAKE: u32 = 0;
const PARKED: u32 = 1;

/// The thread's announced state.
#[derive(Debug)]
pub(super) struct Parking {
    /// `AWAKE` or `PARKED`. The thread stores `PARKED` before its last look for work and `AWAKE` after sleeping; a
    /// submitter that has left work swaps it back and then owes a wake-up. Each side writes its own word (this one, the
    /// work) and then reads the other's, with a SeqCst fence between, so one of them sees the other.
    state: AtomicU32,
}

impl Default for Parking {
    fn default() -> Self {
        Self { state: AtomicU32::new(AWAKE) }
    }
}

impl Parking {
    /// The thread is about to park: look for work once more after this.
    pub(super) fn announce(&self) {
        self.state.store(PARKED, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The thread is up again.
    pub(super) fn cancel(&self) {
        self.state.store(AWAKE, Ordering::Relaxed);
    }

    /// After leaving work: true if the thread is parked and the caller, and no other, must wake it.
    #[inline]
    pub(super) fn must_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.state.load(Ordering::Relaxed) == PARKED
            && self.state.compare_exchange(PARKED, AWAKE, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(all(test, flagcx_p2p_loom))]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod models {
    use super::*;
    use crate::sync::{Arc, AtomicBool};

    /// Work left by a submitter is either seen by the thread's last look or comes with a wake-up.
    #[test]
    fn no_wake_up_is_lost() {
        loom::model(|| {
            let shared = Arc::new((Parking::default(), AtomicBool::new(false), AtomicBool::new(false)));
            let submitter = {
                let shared = shared.clone();
                loom::thread::spawn(move || {
                    shared.1.store(true, Ordering::Relaxed);
                    if shared.0.must_wake() {
                        shared.2.store(true, Ordering::Relaxed);
                    }
                })
            };
            shared.0.announce();
            let saw_work = shared.1.load(Ordering::Relaxed);
            submitter.join().unwrap();
            assert!(saw_work || shared.2.load(Ordering::Relaxed));
        });
    }

    /// Two submitters never wake twice for one parking.
    #[test]
    fn one_wake_up_per_parking() {
        loom::model(|| {
            let parking = Arc::new(Parking::default());
            parking.announce();
            let other = parking.clone();
            let submitter = loom::thread::spawn(move || other.must_wake());
            let mine = parking.must_wake();
            assert!(mine != submitter.join().unwrap());
        });
    }
}

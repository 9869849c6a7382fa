//! For how long a worker's thread moves bytes beside the callers that wait for them.

use crate::sync::{AtomicU32, Ordering};

/// How often a worker's thread parks, which it does after each transfer, before it leaves the bytes of transfers that are not
/// spread to their callers again.
const PARKS: u32 = 64;

/// While it is on, the thread moves bytes beside callers.
#[derive(Debug, Default)]
pub(super) struct Shares {
    /// How often the thread still parks until it is off. Set by callers with transfers that are spread over several workers,
    /// counted down by the thread; a hint with a wake-up behind it, so Relaxed.
    parks: AtomicU32,
}

impl Shares {
    /// Turns it on, or keeps it on. True if it was off: the thread may nap, and has to be woken.
    pub(super) fn begin(&self) -> bool {
        self.parks.swap(PARKS, Ordering::Relaxed) == 0
    }

    /// The thread parks.
    pub(super) fn note_park(&self) {
        // A caller's new count that is lost here comes again with its next transfer.
        self.parks.store(self.parks.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }

    /// Whether it is on.
    pub(super) fn is_on(&self) -> bool {
        self.parks.load(Ordering::Relaxed) != 0
    }
}

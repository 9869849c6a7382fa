//! A rail that is made while its connection ends: its lanes are closed, by the thread that ends the connection or by the one that makes the rail.

use super::CLOSED;
use crate::sync::{AtomicU32, OnceCell, Ordering};

/// Puts a rail into its place. True if the connection with this `gate` has been [`shut`]: then the caller closes the lanes of the rail.
pub(super) fn fill<R>(place: &OnceCell<R>, rail: R, gate: &AtomicU32) -> bool {
    // Filled by the connection's task alone, one rail after the other.
    let _ = place.set(rail);
    // An exchange though it changes nothing: of this and that of `shut` the later one sees what the earlier thread had done.
    gate.fetch_or(0, Ordering::SeqCst) & CLOSED != 0
}

/// Sets the bits of a connection that ends. The caller closes the lanes of the rails that it finds then. Of a rail that is put there later, [`fill`]
/// answers true to its caller.
pub(super) fn shut(gate: &AtomicU32, closed: u32) {
    gate.fetch_or(closed, Ordering::SeqCst);
}

#[cfg(all(test, flagcx_p2p_loom))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod models {
    use super::super::{CANCELS, FAILURES_HELD, RAILS};
    use super::*;
    use crate::sync::Arc;

    /// While submitters change other bits of the gate.
    #[test]
    fn a_rail_that_is_made_at_the_end_is_closed() {
        loom::model(|| {
            let place = Arc::new(OnceCell::new());
            let gate = Arc::new(AtomicU32::new(RAILS | FAILURES_HELD));
            let submitter = {
                let gate = Arc::clone(&gate);
                loom::thread::spawn(move || gate.fetch_and(!FAILURES_HELD, Ordering::Relaxed))
            };
            let task = {
                let (place, gate) = (Arc::clone(&place), Arc::clone(&gate));
                loom::thread::spawn(move || fill(&place, (), &gate))
            };
            shut(&gate, CLOSED | CANCELS);
            let is_found = place.get().is_some();
            let is_reported = task.join().unwrap();
            submitter.join().unwrap();
            assert!(is_found || is_reported, "its lanes stay open");
        });
    }
}

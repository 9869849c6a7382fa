//! The transfers that use a region, which its deregistration waits for.

use crate::sync::{SequentialBool, SequentialU64};

/// Counts the uses of a region. One begins by an addition, and never waits.
#[derive(Debug, Default)]
pub(super) struct RegionUses {
    /// Transfers (parts of them) that use it. Incremented by submitters, decremented by the thread that ends the part, read
    /// by the deregistering thread. The increment is followed by a look at `revoked`, the store to `revoked` by a
    /// look at this: one of the two sees the other. The thread that sees the count fall sees what the transfer did to the memory.
    count: SequentialU64,
    /// Set once by the deregistering thread: no new use. Pairs with `count`.
    revoked: SequentialBool,
}

impl RegionUses {
    /// Begins a use, which is to be ended in any case. False: it is not allowed any more.
    #[inline(always)]
    pub(super) fn begin(&self) -> bool {
        self.count.increment();
        !self.revoked.load()
    }

    #[inline(always)]
    pub(super) fn end(&self) {
        self.count.decrement();
    }

    /// Allows no new ones.
    pub(super) fn revoke(&self) {
        self.revoked.store(true);
    }

    /// Whether some have not ended.
    pub(super) fn are_left(&self) -> bool {
        self.count.load() != 0
    }
}

#[cfg(all(test, flagcx_p2p_loom))]
#[allow(clippy::unwrap_used, reason = "tests")]
#[allow(unsafe_code, reason = "loom watches accesses to a cell")]
mod models {
    use loom::cell::UnsafeCell;

    use super::*;
    use crate::sync::Arc;

    /// Memory that a transfer reads and that is taken back; loom reports accesses that nothing orders.
    #[derive(Default)]
    struct Used(RegionUses, UnsafeCell<()>);

    // SAFETY: loom reports what two threads would do at a time.
    unsafe impl Sync for Used {}

    #[test]
    fn memory_is_not_taken_back_under_a_transfer() {
        loom::model(|| {
            let used = Arc::new(Used::default());
            let transfer = {
                let used = used.clone();
                loom::thread::spawn(move || {
                    if used.0.begin() {
                        used.1.with(|_| ());
                    }
                    used.0.end();
                })
            };
            used.0.revoke();
            if !used.0.are_left() {
                used.1.with_mut(|_| ());
            }
            transfer.join().unwrap();
        });
    }
}

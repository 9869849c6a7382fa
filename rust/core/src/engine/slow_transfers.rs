//! Transfers of an engine that have not ended for long.

use std::sync::{PoisonError, Weak};
use std::time::Duration;

use super::Engine;
use crate::observe::SlowTransfer;

impl Engine {
    /// The transfers of this engine that have not ended for at least `older_than`, the oldest first; with [`Duration::ZERO`], all
    /// that have not ended.
    ///
    /// For operators: a peer that is stopped, or a path that loses everything, is found by the age of what waits for it. A
    /// transfer that was copied by the call which started it, or that no worker has taken from its queue yet, is not among them.
    /// Any thread may call it; it takes each worker's lock for a moment. In a forked child it answers nothing.
    pub fn slow_transfers(&self, older_than: Duration) -> Vec<SlowTransfer> {
        let mut slow = Vec::new();
        if self.here().is_err() {
            return slow;
        }
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for connection in connections.iter().flatten().filter_map(Weak::upgrade) {
            connection.add_slow_transfers(older_than, &mut slow);
        }
        slow.sort_by_key(|transfer| std::cmp::Reverse(transfer.age));
        slow
    }
}

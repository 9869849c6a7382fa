//! Failed transfers with a caller that asks only whether they have ended: out of their slots, and kept apart.

use std::time::Instant;

use super::{Live, Outcome, Table, TransferId};
use crate::sync::lock;
use crate::transfer::failed::{Asked, FailedTransfers};

impl Table {
    /// Frees the slot of a transfer that has ended. One that failed or timed out is kept, and its hold begins; answers
    /// that outcome.
    #[cold]
    pub fn set_aside(&self, live: &Live, asked: Asked, peer: impl FnOnce() -> String) -> Option<Outcome> {
        let outcome = self.outcome_of(live, peer)?;
        self.record(live, &outcome);
        if matches!(outcome, Outcome::Done | Outcome::Cancelled) {
            self.free(live);
            return None;
        }
        // Under the lock until the slot is free, so that each reader finds the transfer here or there, and once.
        self.with_failed(|failed| {
            if !live.is_current() {
                return None;
            }
            failed.insert(live.id, &outcome, asked);
            if !self.free(live) {
                failed.tell(live.id, asked.thread);
                return None;
            }
            Some(outcome)
        })
    }

    /// Whether a failed transfer that was set aside reads as ended; `None` for any other.
    pub fn has_failed_ended(&self, id: TransferId, asked: Asked) -> Option<bool> {
        self.with_failed(|failed| failed.has_ended(id, asked))
    }

    /// The outcome of a failed transfer that was set aside, told to `thread`; it is then remembered as others are.
    pub fn take_failed(&self, id: TransferId, thread: usize) -> Option<Outcome> {
        self.with_failed(|failed| {
            let outcome = failed.tell(id, thread)?;
            // Before the lock is released: each reader finds the outcome here or there.
            self.outcomes.record(id, self.slot(id)?, outcome.clone());
            Some(outcome)
        })
    }

    /// The next failed transfer of a connection that the thread was told to have ended, and not that it failed.
    pub fn take_refusal(&self, connection: u64, thread: usize) -> Option<(TransferId, Outcome)> {
        self.with_failed(|failed| failed.take_refusal(connection, thread))
    }

    /// Whether a connection may start transfers, as far as its failed ones are concerned.
    pub fn has_room_for_failures(&self, connection: u64) -> bool {
        self.with_failed(|failed| failed.has_room(connection, Instant::now()))
    }

    /// The handle of a connection is gone, through which failed transfers were asked about.
    pub fn forget_failed(&self, connection: u64) {
        self.with_failed(|failed| failed.forget(connection));
    }

    fn with_failed<T>(&self, act: impl FnOnce(&mut FailedTransfers) -> T) -> T {
        let mut failed = lock(&self.failed);
        let answer = act(&mut failed);
        let forgotten = failed.take_forgotten();
        drop(failed);
        // Not under the lock: what writes the log may ask about transfers.
        if let Some(id) = forgotten {
            tracing::warn!(
                transfer = id.0,
                "more failed transfers of a connection than an engine keeps are past their hold: the oldest ones are \
                 forgotten, and flagcxP2pEngineXferStatus reads true for them; ask flagcxP2pEngineXferResult in time"
            );
        }
        answer
    }
}

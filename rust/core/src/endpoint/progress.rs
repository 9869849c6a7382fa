//! How far a client is, for the server that gives out places.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use crate::events::Wakeup;

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It sends its request.
    Asking,
    /// It waits for its page.
    Waiting,
    /// It reads its answer.
    Reading,
    /// It has its answer, and is to close. It has no place any more.
    Ending,
}

/// Of one client: written by its task, read by the server's, both on the loop's thread.
pub(super) struct Progress {
    phase: Cell<Phase>,
    /// When it last went on. What it sends of its request does not count: a client that sends a byte now and then has none yet.
    since: Cell<Instant>,
    /// Woken with each change of the phase: a place has become free, or may be taken from the client.
    changed: Arc<Wakeup>,
}

impl Progress {
    /// Of a client that has just connected.
    pub(super) fn new(changed: Arc<Wakeup>) -> Self {
        Self { phase: Cell::new(Phase::Asking), since: Cell::new(Instant::now()), changed }
    }

    /// It is in `phase` now, and went on just now.
    pub(super) fn note(&self, phase: Phase) {
        self.since.set(Instant::now());
        if self.phase.replace(phase) != phase {
            self.changed.wake();
        }
    }

    /// Whether its place is free.
    pub(super) fn is_ending(&self) -> bool {
        self.phase.get() == Phase::Ending
    }

    /// Since when it has kept its place waiting; `None` while it is itself the one that waits.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.phase.get() != Phase::Waiting).then_some(self.since.get())
    }
}

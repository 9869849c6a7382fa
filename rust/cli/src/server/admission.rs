//! How many clients a server accepts: sixteen that have still to open their session, `--max-clients` that have; and the end of all.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Clients that have still to open their session and to prove the key. Further ones wait in the listener's backlog.
const MAX_PENDING: usize = 16;

/// What sessions may still do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Anything.
    Serving,
    /// Finish their current request.
    Draining,
    /// Nothing: they are aborted.
    Aborting,
}

/// The counts of a server's clients, and its phase.
#[derive(Debug)]
pub(super) struct Admission {
    counts: Mutex<Counts>,
    changed: Condvar,
    /// Clients served at the same time. Each has a ring of its own.
    max_sessions: usize,
}

#[derive(Debug)]
struct Counts {
    pending: usize,
    sessions: usize,
    phase: Phase,
}

/// The right of one client to be served, released when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    admission: Arc<Admission>,
    in_session: bool,
}

impl Admission {
    pub(super) fn new(max_sessions: usize) -> Arc<Self> {
        let counts = Counts { pending: 0, sessions: 0, phase: Phase::Serving };
        Arc::new(Self { counts: Mutex::new(counts), changed: Condvar::new(), max_sessions })
    }

    /// Waits until one more client may connect; `None` once the server is ending.
    pub(super) fn acquire(self: &Arc<Self>) -> Option<Permit> {
        let full = |counts: &mut Counts| counts.phase == Phase::Serving && counts.pending >= MAX_PENDING;
        let waited = self.changed.wait_while(self.counts(), full);
        let mut counts = waited.unwrap_or_else(PoisonError::into_inner);
        if counts.phase != Phase::Serving {
            return None;
        }
        counts.pending += 1;
        Some(Permit { admission: Arc::clone(self), in_session: false })
    }

    /// Clients served at the same time, at most.
    pub(super) fn max_sessions(&self) -> usize {
        self.max_sessions
    }

    /// What sessions may still do.
    pub(super) fn phase(&self) -> Phase {
        self.counts().phase
    }

    /// Moves to a later phase, never back; returns the number of running sessions.
    pub(super) fn enter(&self, phase: Phase) -> usize {
        let mut counts = self.counts();
        counts.phase = counts.phase.max(phase);
        self.changed.notify_all();
        counts.sessions
    }

    /// Waits until no client is left, at most until `deadline`. False: some are left.
    pub(super) fn wait_empty(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let busy = |counts: &mut Counts| counts.pending + counts.sessions > 0;
        let waited = self.changed.wait_timeout_while(self.counts(), left, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Turns it into the permit of a session. False: the server has as many sessions as it may.
    pub(super) fn open_session(&mut self) -> bool {
        let mut counts = self.admission.counts();
        if !self.in_session && counts.sessions < self.admission.max_sessions {
            counts.pending -= 1;
            counts.sessions += 1;
            self.in_session = true;
            self.admission.changed.notify_all();
        }
        self.in_session
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.admission.counts();
        if self.in_session {
            counts.sessions -= 1;
        } else {
            counts.pending -= 1;
        }
        self.admission.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn pending_clients_use_no_session() {
        let admission = Admission::new(3);
        let mut sessions: Vec<_> = (0..3).map(|_| admission.acquire().unwrap()).collect();
        assert!(sessions.iter_mut().all(Permit::open_session));
        let mut late: Vec<_> = (0..MAX_PENDING).map(|_| admission.acquire().unwrap()).collect();
        assert!(!late[0].open_session(), "all sessions are in use");
        sessions.pop();
        assert!(late[0].open_session() && late[0].open_session(), "once");
        assert!(!late[1].open_session());
    }

    #[test]
    fn acquire_waits_for_a_permit_or_for_the_end() {
        let admission = Admission::new(1);
        let mut pending: Vec<_> = (0..MAX_PENDING).map(|_| admission.acquire().unwrap()).collect();
        let acquire = |admission: &Arc<Admission>| {
            let admission = Arc::clone(admission);
            std::thread::spawn(move || admission.acquire())
        };
        let waiting = acquire(&admission);
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished());
        pending.pop();
        pending.push(waiting.join().unwrap().unwrap());
        let waiting = acquire(&admission);
        admission.enter(Phase::Draining);
        assert!(waiting.join().unwrap().is_none());
        assert!(!admission.wait_empty(Instant::now() + Duration::from_millis(1)));
        drop(pending);
        assert!(admission.wait_empty(Instant::now()));
        admission.enter(Phase::Aborting);
        assert_eq!(admission.enter(Phase::Draining), 0);
        assert_eq!(admission.phase(), Phase::Aborting, "phases only move forward");
    }
}

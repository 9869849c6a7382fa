//! How many clients there may be: few that have still to open their session, sixteen that have; and how all of them end.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Clients served at the same time. Each has a ring of its own.
pub(super) const MAX_SESSIONS: usize = 16;
/// Clients that have still to open their session and to prove the key. Further ones wait in the listener's backlog.
const MAX_UNPROVEN: usize = 16;

/// What sessions may still do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Anything.
    Serving,
    /// End the request that they are at.
    Draining,
    /// Nothing.
    Cut,
}

/// All places of a server.
#[derive(Debug)]
pub(super) struct Places {
    counts: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Debug)]
struct Counts {
    unproven: usize,
    sessions: usize,
    phase: Phase,
}

/// The place of one client, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    proven: bool,
}

impl Places {
    pub(super) fn new() -> Arc<Self> {
        let counts = Counts { unproven: 0, sessions: 0, phase: Phase::Serving };
        Arc::new(Self { counts: Mutex::new(counts), changed: Condvar::new() })
    }

    /// A place for a client that has proven nothing yet, as soon as there is one; `None` once the server ends.
    pub(super) fn next(self: &Arc<Self>) -> Option<Place> {
        let full = |counts: &mut Counts| counts.phase == Phase::Serving && counts.unproven >= MAX_UNPROVEN;
        let waited = self.changed.wait_while(self.counts(), full);
        let mut counts = waited.unwrap_or_else(PoisonError::into_inner);
        if counts.phase != Phase::Serving {
            return None;
        }
        counts.unproven += 1;
        Some(Place { places: Arc::clone(self), proven: false })
    }

    /// What sessions may still do.
    pub(super) fn phase(&self) -> Phase {
        self.counts().phase
    }

    /// Goes on to a later phase; gives the number of running sessions.
    pub(super) fn enter(&self, phase: Phase) -> usize {
        let mut counts = self.counts();
        counts.phase = counts.phase.max(phase);
        self.changed.notify_all();
        counts.sessions
    }

    /// Waits until no client is left, at most until `deadline`. False: some are.
    pub(super) fn wait_empty(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let busy = |counts: &mut Counts| counts.unproven + counts.sessions > 0;
        let waited = self.changed.wait_timeout_while(self.counts(), left, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Changes it for the place of a session. False: all of those are taken.
    pub(super) fn prove(&mut self) -> bool {
        let mut counts = self.places.counts();
        if !self.proven && counts.sessions < MAX_SESSIONS {
            counts.unproven -= 1;
            counts.sessions += 1;
            self.proven = true;
            self.places.changed.notify_all();
        }
        self.proven
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.places.counts();
        if self.proven {
            counts.sessions -= 1;
        } else {
            counts.unproven -= 1;
        }
        self.places.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_unproven_take_no_place_of_a_session() {
        let places = Places::new();
        let mut sessions: Vec<_> = (0..MAX_SESSIONS).map(|_| places.next().unwrap()).collect();
        assert!(sessions.iter_mut().all(Place::prove));
        let mut late: Vec<_> = (0..MAX_UNPROVEN).map(|_| places.next().unwrap()).collect();
        assert!(!late[0].prove(), "all are taken");
        sessions.pop();
        assert!(late[0].prove() && late[0].prove(), "once");
        assert!(!late[1].prove());
    }

    #[test]
    fn the_next_waits_for_a_place_or_for_the_end() {
        let places = Places::new();
        let mut unproven: Vec<_> = (0..MAX_UNPROVEN).map(|_| places.next().unwrap()).collect();
        let next = |places: &Arc<Places>| {
            let places = Arc::clone(places);
            std::thread::spawn(move || places.next())
        };
        let waiting = next(&places);
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished());
        unproven.pop();
        unproven.push(waiting.join().unwrap().unwrap());
        let waiting = next(&places);
        places.enter(Phase::Draining);
        assert!(waiting.join().unwrap().is_none());
        assert!(!places.wait_empty(Instant::now() + Duration::from_millis(1)));
        drop(unproven);
        assert!(places.wait_empty(Instant::now()));
        places.enter(Phase::Cut);
        assert_eq!(places.enter(Phase::Draining), 0);
        assert_eq!(places.phase(), Phase::Cut, "it does not go back");
    }
}

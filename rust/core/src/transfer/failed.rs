//! Failed transfers of callers that ask only whether a transfer has ended, and would take a yes for success.
//!
//! Such a transfer reads as not ended for a while (the hold): callers with a limit of their own run into it. After the
//! hold it reads as ended, and the thread that is told so has its next notification on that connection refused. An answer
//! that says how the transfer ended makes both unnecessary and ends them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Failure, Outcome, TransferId};
use crate::fabric::CompletionStatus;
use crate::pool::EndState;

/// How many failed transfers of one connection are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Within their hold: the connection starts no transfers from here on.
    pub(super) held: usize,
    /// Past their hold: the oldest ones beyond it are forgotten.
    pub(super) past: usize,
}

impl Limits {
    pub(super) const DEFAULT: Self = Self { held: 1 << 20, past: 1 << 16 };
}

/// Which caller asks, and when.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Number of the connection.
    pub connection: u64,
    /// Number of the thread.
    pub thread: usize,
    /// The time.
    pub now: Instant,
}

/// Failed transfers of one engine that a caller without the outcome asked about.
#[derive(Debug)]
pub(super) struct FailedTransfers {
    hold: Duration,
    limits: Limits,
    by_id: HashMap<TransferId, Entry>,
    connections: HashMap<u64, OfConnection>,
    /// Notifications to be refused: by connection, thread and order.
    refusals: BTreeMap<(u64, usize, u64), TransferId>,
    /// Numbers the entries.
    next: u64,
    /// Of the last entry; most failures of a time have the same.
    texts: Arc<Texts>,
    /// The first transfer of a connection that was forgotten, until that has been logged.
    forgotten: Option<TransferId>,
}

#[derive(Debug)]
struct Entry {
    /// The connection that met the failure, or [`NO_CONNECTION`].
    connection: u64,
    order: u64,
    failed: Failed,
    /// The connections and threads that have been told that it has ended, and not how.
    told: Vec<(u64, usize)>,
}

/// The ids of one connection in the order in which their failures were met.
#[derive(Debug, Default)]
struct OfConnection {
    /// Within their hold, with its end.
    held: BTreeMap<u64, (Instant, TransferId)>,
    /// Past their hold.
    past: BTreeMap<u64, TransferId>,
    /// The loss of some has been logged.
    warned: bool,
}

/// The number of no connection: what a destroyed connection has met, other connections may still ask about.
const NO_CONNECTION: u64 = 0;

/// An [`Outcome`] that is neither done nor cancelled, in little memory.
#[derive(Debug)]
struct Failed {
    state: EndState,
    iov: usize,
    last_iov: usize,
    status: CompletionStatus,
    vendor_error: u32,
    texts: Arc<Texts>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Texts {
    peer: String,
    reason: String,
}

impl FailedTransfers {
    pub(super) fn new(hold: Duration, limits: Limits) -> Self {
        Self {
            hold,
            limits,
            by_id: HashMap::new(),
            connections: HashMap::new(),
            refusals: BTreeMap::new(),
            next: 0,
            texts: Arc::default(),
            forgotten: None,
        }
    }

    /// Begins the hold of a transfer, when a caller without the outcome has just met its end as failed or timed out.
    pub(super) fn insert(&mut self, id: TransferId, outcome: &Outcome, asked: Asked) {
        let Some(failed) = self.shorten(outcome) else { return };
        let order = self.next;
        self.next += 1;
        let of_connection = self.connections.entry(asked.connection).or_default();
        of_connection.held.insert(order, (asked.now + self.hold, id));
        self.by_id.insert(id, Entry { connection: asked.connection, order, failed, told: Vec::new() });
        self.expire(asked.connection, asked.now);
    }

    /// Whether a kept transfer reads as ended; the asking thread is then told of the failure by its next notification.
    /// `None` for one that is not kept.
    pub(super) fn has_ended(&mut self, id: TransferId, asked: Asked) -> Option<bool> {
        let connection = self.by_id.get(&id)?.connection;
        self.expire(connection, asked.now);
        let entry = self.by_id.get_mut(&id)?;
        if self.connections.get(&connection).is_some_and(|of| of.held.contains_key(&entry.order)) {
            return Some(false);
        }
        let asker = (asked.connection, asked.thread);
        if !entry.told.contains(&asker) {
            entry.told.push(asker);
            self.refusals.insert((asker.0, asker.1, entry.order), id);
        }
        Some(true)
    }

    /// How a kept transfer ended, for a thread that is told so. It is not kept from now on, unless another thread was told
    /// that it has ended and has sent no notification since.
    pub(super) fn tell(&mut self, id: TransferId, thread: usize) -> Option<Outcome> {
        let entry = self.by_id.get(&id)?;
        let (order, outcome) = (entry.order, entry.failed.outcome());
        let (own, others): (Vec<_>, Vec<_>) =
            entry.told.iter().copied().partition(|(_, told)| *told == thread);
        for (connection, thread) in own {
            self.refusals.remove(&(connection, thread, order));
        }
        if !others
            .iter()
            .any(|(connection, thread)| self.refusals.contains_key(&(*connection, *thread, order)))
        {
            self.drop_entry(id);
        }
        Some(outcome)
    }

    /// The first failed transfer of a connection that the thread was told has ended, without being told yet that it failed.
    /// It stays kept, for other threads that ask.
    pub(super) fn take_refusal(&mut self, connection: u64, thread: usize) -> Option<(TransferId, Outcome)> {
        let of_thread = (connection, thread, 0)..=(connection, thread, u64::MAX);
        let (key, id) = self.refusals.range(of_thread).next().map(|(key, id)| (*key, *id))?;
        self.refusals.remove(&key);
        Some((id, self.by_id.get(&id)?.failed.outcome()))
    }

    /// Whether a connection may start transfers: fewer than the limit of its failed ones are within their hold.
    pub(super) fn has_room(&mut self, connection: u64, now: Instant) -> bool {
        self.expire(connection, now);
        self.connections.get(&connection).is_none_or(|of| of.held.len() < self.limits.held)
    }

    /// The handle of a connection is gone: what was told through it is forgotten. It may have met failures of transfers
    /// of other connections, so the latest of the rest are kept for those.
    pub(super) fn forget(&mut self, connection: u64) {
        let Some(of) = self.connections.remove(&connection) else { return };
        let mut rest = self.connections.remove(&NO_CONNECTION).unwrap_or_default();
        for (order, (end, id)) in of.held {
            self.disown(id);
            rest.held.insert(order, (end, id));
        }
        for (order, id) in of.past {
            if self.by_id.get(&id).is_some_and(|entry| entry.told.iter().all(|(told, _)| *told == connection))
            {
                self.drop_entry(id);
            } else {
                self.disown(id);
                rest.past.insert(order, id);
            }
        }
        while rest.held.len() + rest.past.len() > self.limits.past {
            let oldest = rest.past.pop_first().map(|(_, id)| id);
            let oldest = oldest.or_else(|| rest.held.pop_first().map(|(_, (_, id))| id));
            oldest.into_iter().for_each(|id| self.drop_entry(id));
        }
        self.connections.insert(NO_CONNECTION, rest);
        if self.by_id.is_empty() {
            self.by_id.shrink_to_fit();
        }
    }

    /// A transfer that was forgotten because too many of its connection were kept, once for each connection.
    pub(super) fn take_forgotten(&mut self) -> Option<TransferId> {
        self.forgotten.take()
    }

    fn disown(&mut self, id: TransferId) {
        if let Some(entry) = self.by_id.get_mut(&id) {
            entry.connection = NO_CONNECTION;
        }
    }

    fn drop_entry(&mut self, id: TransferId) {
        let Some(entry) = self.by_id.remove(&id) else { return };
        if let Some(of) = self.connections.get_mut(&entry.connection) {
            of.held.remove(&entry.order);
            of.past.remove(&entry.order);
        }
        for (connection, thread) in entry.told {
            self.refusals.remove(&(connection, thread, entry.order));
        }
    }

    /// Ends the holds that have expired.
    fn expire(&mut self, connection: u64, now: Instant) {
        let Some(of) = self.connections.get_mut(&connection) else { return };
        let mut forgotten = Vec::new();
        while let Some(first) = of.held.first_entry() {
            if first.get().0 > now {
                break;
            }
            let (order, (_, id)) = first.remove_entry();
            of.past.insert(order, id);
            if of.past.len() > self.limits.past {
                forgotten.extend(of.past.pop_first().map(|(_, id)| id));
            }
        }
        if !forgotten.is_empty() && !std::mem::replace(&mut of.warned, true) {
            self.forgotten = forgotten.first().copied();
        }
        forgotten.into_iter().for_each(|id| self.drop_entry(id));
    }

    fn shorten(&mut self, outcome: &Outcome) -> Option<Failed> {
        let nothing = Failed {
            state: EndState::TimedOut,
            iov: 0,
            last_iov: 0,
            status: CompletionStatus::General,
            vendor_error: 0,
            texts: Arc::clone(&self.texts),
        };
        match outcome {
            Outcome::Done | Outcome::Cancelled => None,
            Outcome::TimedOut => Some(nothing),
            Outcome::Failed(failure) => {
                if self.texts.peer != failure.peer || self.texts.reason != failure.reason {
                    let Failure { peer, reason, .. } = failure.clone();
                    self.texts = Arc::new(Texts { peer, reason });
                }
                let Failure { iov, last_iov, status, vendor_error, .. } = *failure;
                let texts = Arc::clone(&self.texts);
                Some(Failed { state: EndState::Failed, iov, last_iov, status, vendor_error, texts })
            }
        }
    }
}

impl Failed {
    fn outcome(&self) -> Outcome {
        let Self { state, iov, last_iov, status, vendor_error, .. } = *self;
        let Texts { peer, reason } = (*self.texts).clone();
        Outcome::new(state, Some(Failure { iov, last_iov, status, vendor_error, peer, reason }))
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
#[path = "failed_tests.rs"]
mod tests;

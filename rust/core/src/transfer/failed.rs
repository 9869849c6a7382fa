//! Failed transfers of callers that ask only whether a transfer has ended, and would take a yes for success.
//!
//! Such a transfer reads as not ended for a while (the hold): callers with a limit of their own run into it. After the
//! hold it reads as ended, and the thread that is told so has its next notification on that connection refused. An answer
//! that says how the transfer ended makes both unnecessary and ends them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::outcomes::End;
use super::{Failure, Outcome, TransferId};
use crate::fabric::CompletionStatus;

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
    /// Whose notifications are refused: (connection, thread, order).
    refusals: BTreeMap<(u64, usize, u64), TransferId>,
    /// Numbers the entries.
    next: u64,
    /// Of the last entry; most failures of a time have the same.
    texts: Arc<Texts>,
}

#[derive(Debug)]
struct Entry {
    connection: u64,
    order: u64,
    failed: Failed,
    /// The connection and thread that have been told that it has ended, and not how.
    told: Option<(u64, usize)>,
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

/// An [`Outcome`] that is neither done nor cancelled, in little memory.
#[derive(Debug)]
struct Failed {
    end: End,
    iov: usize,
    status: CompletionStatus,
    vendor_error: u32,
    texts: Arc<Texts>,
}

#[derive(Debug, Default, PartialEq, Eq)]
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
        }
    }

    /// Begins the hold of a transfer whose end as failed or timed out a caller without the outcome has just met.
    pub(super) fn keep(&mut self, id: TransferId, outcome: &Outcome, asked: Asked) {
        let Some(failed) = self.shorten(outcome) else { return };
        let order = self.next;
        self.next += 1;
        let of_connection = self.connections.entry(asked.connection).or_default();
        of_connection.held.insert(order, (asked.now + self.hold, id));
        self.by_id.insert(id, Entry { connection: asked.connection, order, failed, told: None });
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
        if entry.told.is_none() {
            entry.told = Some((asked.connection, asked.thread));
            self.refusals.insert((asked.connection, asked.thread, entry.order), id);
        }
        Some(true)
    }

    /// How a kept transfer ended, which is not kept from now on.
    pub(super) fn take(&mut self, id: TransferId) -> Option<(End, Outcome)> {
        let entry = self.by_id.remove(&id)?;
        if let Some(of) = self.connections.get_mut(&entry.connection) {
            of.held.remove(&entry.order);
            of.past.remove(&entry.order);
        }
        if let Some((connection, thread)) = entry.told {
            self.refusals.remove(&(connection, thread, entry.order));
        }
        Some((entry.failed.end, entry.failed.outcome()))
    }

    /// The first failed transfer that a thread was told to have ended on a connection and whose failure it has not been
    /// told yet; it is taken.
    pub(super) fn take_refusal(
        &mut self,
        connection: u64,
        thread: usize,
    ) -> Option<(TransferId, End, Outcome)> {
        let of_thread = (connection, thread, 0)..=(connection, thread, u64::MAX);
        let id = *self.refusals.range(of_thread).next()?.1;
        let (end, outcome) = self.take(id)?;
        Some((id, end, outcome))
    }

    /// Whether a connection may start transfers: fewer than the limit of its failed ones are within their hold.
    pub(super) fn has_room(&mut self, connection: u64, now: Instant) -> bool {
        self.expire(connection, now);
        self.connections.get(&connection).is_none_or(|of| of.held.len() < self.limits.held)
    }

    /// Forgets the transfers of a connection, whose handle is gone.
    pub(super) fn forget(&mut self, connection: u64) {
        let Some(of) = self.connections.remove(&connection) else { return };
        for id in of.held.into_values().map(|(_, id)| id).chain(of.past.into_values()) {
            let _ = self.take(id);
        }
    }

    /// Ends the holds whose time is over.
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
        let Some(first) = forgotten.first() else { return };
        if !std::mem::replace(&mut of.warned, true) {
            tracing::warn!(
                transfer = first.0,
                "more than {} failed transfers of a connection are past their hold and were not asked about: the oldest \
                 ones are forgotten, and flagcxP2pEngineXferStatus reads true for them; ask flagcxP2pEngineXferResult",
                self.limits.past
            );
        }
        for id in forgotten {
            let _ = self.take(id);
        }
    }

    fn shorten(&mut self, outcome: &Outcome) -> Option<Failed> {
        let nothing = Failed {
            end: End::TimedOut,
            iov: 0,
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
                let Failure { iov, status, vendor_error, .. } = *failure;
                let texts = Arc::clone(&self.texts);
                Some(Failed { end: End::Failed, iov, status, vendor_error, texts })
            }
        }
    }
}

impl Failed {
    fn outcome(&self) -> Outcome {
        if self.end == End::TimedOut {
            return Outcome::TimedOut;
        }
        let Self { iov, status, vendor_error, .. } = *self;
        let Texts { peer, reason } = &*self.texts;
        Outcome::Failed(Failure { iov, status, vendor_error, peer: peer.clone(), reason: reason.clone() })
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
#[path = "failed_tests.rs"]
mod tests;

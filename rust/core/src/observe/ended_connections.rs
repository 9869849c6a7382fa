//! What the connections that have ended counted: for the process, and by peer.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use super::connections::{ConnectionReport, OTHER_PEERS, Sums};
use super::{TransferSource, TransferTotals};

/// What the connections that have ended had counted.
#[derive(Debug, Default)]
pub(super) struct EndedConnections {
    all: Sums,
    /// Of these, those of peers without series of their own.
    other: Sums,
    /// Of these, those of each peer that still has its name: other connections with it go on with the same series. By the address of
    /// the name, which serves no other one while it is held here.
    by_peer: HashMap<usize, (Weak<str>, Sums)>,
    late: Vec<Late>,
}

/// The counts of a connection that has ended, while others have them: a thread in the middle of a copy, or a GPU.
#[derive(Debug)]
struct Late {
    peer: Weak<str>,
    counts: Vec<Arc<dyn TransferSource>>,
    /// What is part of the sums already.
    seen: TransferTotals,
}

impl EndedConnections {
    /// Adds a connection that has ended with this report. What `counts` count after that is added later.
    pub(super) fn add(
        &mut self,
        peer: &Arc<str>,
        counts: Vec<Arc<dyn TransferSource>>,
        report: ConnectionReport,
    ) {
        self.by_peer.retain(|_, (name, _)| name.strong_count() > 0);
        self.all.add(&report);
        if **peer == *OTHER_PEERS {
            self.other.add(&report);
        } else {
            let of_peer = self.by_peer.entry(address(peer));
            of_peer.or_insert_with(|| (Arc::downgrade(peer), Sums::default())).1.add(&report);
        }
        if counts.is_empty() {
            return;
        }
        // When the list would have to grow, so that most ends do not look at the others.
        if self.late.len() == self.late.capacity() {
            self.add_late();
        }
        self.late.push(Late { peer: Arc::downgrade(peer), counts, seen: report.transfers });
    }

    /// Adds what was counted since the last call, and drops the counts that are complete.
    pub(super) fn add_late(&mut self) {
        for mut late in std::mem::take(&mut self.late) {
            // Found out first: what others count before they drop it is read then.
            let is_complete = late.counts.iter_mut().all(|counts| Arc::get_mut(counts).is_some());
            let mut now = TransferTotals::default();
            late.counts.iter().for_each(|counts| counts.add_to(&mut now));
            let more = now.clone().since(&late.seen);
            self.all.add_transfers(&more);
            match late.peer.upgrade() {
                Some(peer) if *peer == *OTHER_PEERS => self.other.add_transfers(&more),
                Some(peer) => {
                    if let Some((_, sums)) = self.by_peer.get_mut(&address(&peer)) {
                        sums.add_transfers(&more);
                    }
                }
                None => {}
            }
            if !is_complete {
                late.seen = now;
                self.late.push(late);
            }
        }
    }

    /// Of all.
    pub(super) fn all(&self) -> &Sums {
        &self.all
    }

    /// Of those with this peer, or of all without series of their own.
    pub(super) fn of(&self, peer: &Arc<str>) -> Option<&Sums> {
        if **peer == *OTHER_PEERS {
            return Some(&self.other);
        }
        self.by_peer.get(&address(peer)).map(|(_, sums)| sums)
    }

    /// Whether there are some of peers without series of their own.
    pub(super) fn has_others(&self) -> bool {
        self.other.connections() > 0
    }
}

fn address(name: &Arc<str>) -> usize {
    Arc::as_ptr(name).addr()
}

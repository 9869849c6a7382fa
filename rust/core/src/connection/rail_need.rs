//! What a connection with one rail tells its task of the need for another one.
//!
//! Transfers of several parts ask by themselves. What goes over one lane takes the shortest path, which asks nothing: the task looks
//! while something is moved, and is woken by the first transfer behind a pause.

use super::{Connection, UNSEEN};
use crate::rails::RailCounts;
use crate::sync::Ordering;

impl Connection {
    /// Whether it has one rail, and there are pairs of NICs for others.
    pub(super) fn may_need_rail(&self) -> bool {
        self.rails.adding.has_pairs() && !self.has_rails()
    }

    /// Whether the only rail carries nothing now: it has no lane in working order, or its port is down.
    pub(super) fn has_lost_its_rail(&self) -> bool {
        self.rails_up().0 == 0
    }

    /// Has a further rail made if no rail works, or more is under way than those that do need to be busy.
    pub(super) fn need_rail(&self) {
        let working = u64::from(self.rails_up().0.count_ones());
        let (under_way, _) = self.rails_flow();
        let enough = self.context.settings.plan_limits.rail_from.saturating_mul(working);
        if working == 0 || under_way.iter().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes)) > enough {
            self.consider_rails(|| 0);
        }
    }

    /// What the lanes of the only rail count.
    pub(super) fn count_first_rail(&self) -> RailCounts {
        let [first, ..] = self.rail_counts();
        first
    }

    /// The task does not look: the next transfer wakes it.
    pub(super) fn set_unseen(&self, is_unseen: bool) {
        if is_unseen {
            self.gate.fetch_or(UNSEEN, Ordering::Relaxed);
        } else if self.is_unseen() {
            self.gate.fetch_and(!UNSEEN, Ordering::Relaxed);
        }
    }

    pub(super) fn is_unseen(&self) -> bool {
        self.gate.load(Ordering::Relaxed) & UNSEEN != 0
    }

    /// A transfer begins: wakes the task if it does not look.
    #[cold]
    pub(super) fn be_seen(&self) {
        if self.is_unseen() && self.gate.fetch_and(!UNSEEN, Ordering::Relaxed) & UNSEEN != 0 {
            self.wakeup.wake();
        }
    }
}

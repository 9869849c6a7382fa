//! What a connection with one rail tells its task of the need for another one.
//!
//! Transfers of several parts ask by themselves. What goes over one lane takes the shortest path, which asks nothing: the task looks
//! while something is moved, and is woken by the first transfer behind a pause.

use std::time::Duration;

use super::{Connection, LaneHandle, UNSEEN};
use crate::pool::{LaneHealth, clock};
use crate::rails::{MAX_RAILS, RailCounts, RailSet};
use crate::sync::Ordering;

/// What the only rail of a connection lacks, the worst last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trouble {
    /// Nothing.
    #[default]
    None,
    /// Parts wait on a lane that has just failed.
    Waits,
    /// It carries nothing: it has no lane in working order, its port is down, or parts wait on a lane that is not rebuilt.
    Lost,
    /// The same, and its device is lost: the connection ends if no other rail is made.
    Ends,
}

/// A lane is rebuilt in a few milliseconds if both ends can.
const REBUILT: Duration = Duration::from_millis(20);

impl Connection {
    /// Whether it has one rail, and there are pairs of NICs for others.
    pub(super) fn may_need_rail(&self) -> bool {
        self.rails.adding.has_pairs() && !self.has_rails()
    }

    /// Whether there are NICs for a rail that is not made, and that was not refused a moment ago.
    pub(super) fn could_make_rail(&self) -> bool {
        self.rails.adding.could_make(self.rails.in_use(), clock::now_ns())
    }

    /// Pairs of NICs that were refused may be tried again at once.
    pub(super) fn forget_refusals(&self) {
        self.rails.adding.forget_refusals();
    }

    /// Whether other rails may get keys of memory that a rail has: NICs here still register it, or the peer announces it.
    pub(super) fn memory_comes(&self, rail: usize) -> bool {
        let known = |rail| self.remote_of(rail).map_or(0, |remote| remote.known().0);
        let up = self.rails_up();
        let others = (0..MAX_RAILS).filter(|other| *other != rail && up.has(*other));
        self.context.registry.is_registering_further() || others.map(known).max() < Some(known(rail))
    }

    /// What the only rail lacks.
    pub(super) fn trouble(&self) -> Trouble {
        if self.rails_up().0 == 0 {
            return Trouble::Lost;
        }
        let failed = |lane: &&LaneHandle| {
            matches!(lane.status.health(), LaneHealth::Broken | LaneHealth::Drained)
                && !lane.status.counts.is_idle()
        };
        let waiting = self.lanes.iter().filter(failed).map(|lane| lane.status.broken_for()).max();
        match waiting {
            None => Trouble::None,
            Some(time) if time < REBUILT => Trouble::Waits,
            // The others may look well only because nothing was posted on them: it is the peer's NIC that has failed.
            Some(_) => Trouble::Lost,
        }
    }

    /// The rails that carry something now, also of a connection that has one.
    pub(super) fn rails_that_carry(&self) -> RailSet {
        if self.has_rails() || self.trouble() < Trouble::Lost { self.rails_up() } else { RailSet::default() }
    }

    /// Has a further rail made if no rail carries anything, or more is under way than those that do need to be busy.
    pub(super) fn need_rail(&self, carry: RailSet) {
        let working = u64::from(carry.0.count_ones());
        let (under_way, _) = self.rails_flow();
        let enough = self.context.settings.plan_limits.rail_from.saturating_mul(working);
        if working == 0 || under_way.iter().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes)) > enough {
            self.consider_rails_beside(carry);
        }
    }

    /// What the lanes of the only rail count.
    pub(super) fn count_first_rail(&self) -> RailCounts {
        let [first, ..] = self.rail_counts(RailSet::first(1));
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

    /// A transfer has begun: wakes the task if it does not look.
    #[cold]
    pub(super) fn be_seen(&self) {
        if self.is_unseen() && self.gate.fetch_and(!UNSEEN, Ordering::Relaxed) & UNSEEN != 0 {
            self.wakeup.wake();
        }
    }
}

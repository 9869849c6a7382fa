//! Rails that are lost for good, and the pairs of NICs that take over from them.

use super::rail_adding::Pairs;
use super::{Connection, DeviceHealth};
use crate::control::RailRefusal;
use crate::pool::{LaneHealth, clock};
use crate::rails::{Loss, MAX_RAILS, NicPair};
use crate::sync::lock;

impl Connection {
    /// Takes note of rails of which the device here is lost, or all lanes are closed: other pairs may take over. Called by the task, before it
    /// asks whether there is another rail to be made.
    pub(super) fn note_lost_rails(&self) {
        let mut pairs = lock(&self.rails.adding.pairs);
        let mut is_new = false;
        for (rail, health) in self.rail_devices() {
            let is_own = matches!(health, DeviceHealth::Lost(_));
            let is_closed =
                || self.lanes_of(rail).iter().all(|lane| lane.status.health() == LaneHealth::Closed);
            if is_own || is_closed() {
                is_new |= pairs.pairing.lost(rail, if is_own { Loss::Own } else { Loss::Peer }).is_some();
            }
        }
        if is_new {
            self.rails.adding.set_has_pairs(true);
        }
    }

    /// Leader: the place of a pair that the peer wants because it has lost the NIC of another one. Here it shows by lanes that do not work.
    pub(super) fn substitute_for(&self, wanted: NicPair, pairs: &mut Pairs, now: u64) -> Option<usize> {
        let works = |rail| self.lanes_of(rail).iter().any(|lane| lane.status.health() == LaneHealth::Healthy);
        let made = |rail: &usize| *rail == 0 || self.rails.get(*rail).is_some();
        let rails = || (0..MAX_RAILS).filter(made).filter_map(|rail| Some((rail, pairs.pairing.pair(rail)?)));
        let has_lost = |has: &dyn Fn(NicPair) -> bool| {
            let of_nic = || rails().filter(|(_, pair)| has(*pair));
            of_nic().next().is_some() && !of_nic().any(|(rail, _)| works(rail))
        };
        if !has_lost(&|pair| pair.own == wanted.own) && !has_lost(&|pair| pair.peer == wanted.peer) {
            return None;
        }
        let rail = pairs.pairing.take_over(wanted, now)?;
        self.rails.adding.set_has_pairs(true);
        Some(rail)
    }

    /// Leader: both ends have a rail, and none of its lanes connects. Another pair may take over, on a number of its own.
    pub(super) fn rail_unconnected(&self, rail: usize, reason: &str) {
        let Some(made) = self.rails.get(rail) else { return };
        let (adding, now) = (&self.rails.adding, clock::now_ns());
        let peer_nic = adding.peer_name(made.peer);
        self.note_refused(
            rail,
            made.own,
            &format!(
                "a request was answered over its path to {peer_nic} of the peer, and no lane connects: {reason}; another pair of NICs takes \
                 its place if there is one, and it is tried again up to 60 s apart"
            ),
        );
        let mut pairs = lock(&adding.pairs);
        self.give_up_rail(rail, RailRefusal::Unusable, &mut pairs, now);
        if let Some(next) = pairs.pairing.lost(rail, Loss::Pair) {
            self.request_beside(next, &mut pairs, now);
        }
    }

    /// Leader: a rail that is not made leaves its NICs to another pair, which is wanted as that was, perhaps by the peer.
    pub(super) fn request_beside(&self, next: usize, pairs: &mut Pairs, now: u64) {
        self.rails.adding.set_has_pairs(true);
        self.rails.adding.demand.goes_on(next, now);
        self.request_rail(next, pairs, now);
    }

    /// A pair that was to take over is not made: the next one is tried at once. False if that is none, or what was refused would be refused of
    /// any pair.
    pub(super) fn try_next_substitute(
        &self,
        rail: usize,
        why: RailRefusal,
        pairs: &mut Pairs,
        now: u64,
    ) -> bool {
        if !is_of_pair(why) || !pairs.pairing.is_substitute(rail) || !pairs.pairing.refuse(rail, now) {
            return false;
        }
        self.rails.adding.demand.goes_on(rail, now);
        self.request_rail(rail, pairs, now);
        true
    }
}

/// Whether what was refused may be granted to another pair of NICs.
pub(super) fn is_of_pair(why: RailRefusal) -> bool {
    matches!(why, RailRefusal::Unusable | RailRefusal::Unlike)
}

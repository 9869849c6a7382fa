//! The exchange of region changes with the peer, as part of the connection's task.
//!
//! The regions of each further rail's NIC are announced in frames of their own. All rails have their turn, so one with many regions
//! does not keep the others waiting; the first goes before them while the peer waits for the answer to a Sync.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::SyncRequests;
use crate::control::RegionFrame;
use crate::control::wire::RegionChanges;
use crate::memory::{RemoteRegions, Subscription};
use crate::rails::MAX_RAILS;

/// The exchange with a peer that announces changes.
#[derive(Debug)]
pub(in crate::connection) struct Exchange {
    first: RailRegions,
    /// Further rails: that of number 1 is the first here.
    further: [Option<RailRegions>; MAX_RAILS - 1],
    /// The rail that has the next turn.
    turn: u8,
    sync_requests: Arc<SyncRequests>,
    /// The peer's last unanswered Sync, and the version of the local regions of the first rail when it came.
    asked: Option<(u64, u64)>,
}

/// The regions of one rail.
#[derive(Debug)]
struct RailRegions {
    /// Those of the local NIC, up to the version that was sent to the peer.
    local: Subscription,
    /// Those of the peer's NIC.
    remote: Arc<RemoteRegions>,
    /// No changes are sent before this time, unless the peer has sent a Sync.
    pause: Option<Instant>,
}

/// Pause after a frame with all changes: registrations in a row go in few frames, not in one each. A peer that needs
/// them at once sends a Sync.
const PAUSE: Duration = Duration::from_millis(1);

impl Exchange {
    pub(in crate::connection) fn new(
        local: Subscription,
        remote: Arc<RemoteRegions>,
        sync_requests: Arc<SyncRequests>,
    ) -> Self {
        let (first, further) = (RailRegions::new(local, remote), [const { None }; MAX_RAILS - 1]);
        Self { first, further, turn: 0, sync_requests, asked: None }
    }

    /// Announces the regions of a further rail, and takes those of the peer. `local`: from the default cursor on, for the peer has none of
    /// them. Call it once both ends have the rail: the peer drops changes of others, and this end does until then. So the follower calls it
    /// before it sends RailReady, and the leader before it reads another frame. False, and nothing is done, for the first rail, a number
    /// that no rail has, and a rail that is there.
    pub(in crate::connection) fn add_rail(
        &mut self,
        rail: u8,
        local: Subscription,
        remote: Arc<RemoteRegions>,
    ) -> bool {
        let place = usize::from(rail).checked_sub(1).and_then(|at| self.further.get_mut(at));
        match place {
            Some(place @ None) => {
                *place = Some(RailRegions::new(local, remote));
                true
            }
            _ => false,
        }
    }

    /// The next frame for the peer; `None` if there is none to send.
    pub(in crate::connection) fn next(&mut self) -> Option<RegionFrame> {
        if let Some(number) = self.sync_requests.next() {
            return Some(RegionFrame::Sync(number));
        }
        // Further rails come later: without their keys a transfer uses the first one.
        let sent = self.first.local.sent_version();
        if let Some((number, _)) = self.asked.filter(|(_, version)| sent >= *version) {
            self.asked = None;
            return Some(RegionFrame::Synced(number));
        }
        if self.asked.is_some()
            && let Some(changes) = self.first.next(0, true)
        {
            return Some(RegionFrame::Changes(changes));
        }
        let numbers = 0..MAX_RAILS as u8;
        let mut turns = numbers.clone().cycle().skip(self.turn.into()).take(numbers.len());
        turns.find_map(|rail| {
            let changes = self.rail_mut(rail)?.next(rail, false)?;
            self.turn = (rail + 1) % numbers.end;
            Some(RegionFrame::Changes(changes))
        })
    }

    /// When to call [`Exchange::next`] again without another event.
    pub(in crate::connection) fn deadline(&self) -> Option<Instant> {
        let further = self.further.iter().flatten().filter_map(|rail| rail.pause);
        self.first.pause.into_iter().chain(further).min()
    }

    /// Handles a frame of the peer. Returns changes to be applied to the [`Exchange::remote`] of their rail, which may take long.
    pub(in crate::connection) fn receive(&mut self, frame: RegionFrame) -> Option<RegionChanges> {
        match frame {
            RegionFrame::Changes(changes) => return Some(changes),
            RegionFrame::Sync(number) => self.asked = Some((number, self.first.local.version())),
            RegionFrame::Synced(number) => self.sync_requests.answered(number),
        }
        None
    }

    /// The peer's regions of a rail; `None` if there is none of that number.
    pub(in crate::connection) fn remote(&self, rail: u8) -> Option<&Arc<RemoteRegions>> {
        match usize::from(rail).checked_sub(1) {
            None => Some(&self.first.remote),
            Some(at) => self.further.get(at)?.as_ref().map(|rail| &rail.remote),
        }
    }

    fn rail_mut(&mut self, rail: u8) -> Option<&mut RailRegions> {
        match usize::from(rail).checked_sub(1) {
            None => Some(&mut self.first),
            Some(at) => self.further.get_mut(at)?.as_mut(),
        }
    }
}

impl RailRegions {
    fn new(local: Subscription, remote: Arc<RemoteRegions>) -> Self {
        Self { local, remote, pause: None }
    }

    /// The next changes, under the number of the rail; `None` without any, or during a pause.
    fn next(&mut self, rail: u8, is_urgent: bool) -> Option<RegionChanges> {
        let is_urgent = is_urgent || self.local.has_more();
        if !is_urgent && self.pause.is_some_and(|end| Instant::now() < end) {
            return None;
        }
        let changes = self.local.next();
        self.pause = changes.as_ref().map(|_| Instant::now() + PAUSE);
        changes.map(|changes| RegionChanges { rail, ..changes })
    }
}

#[cfg(test)]
#[cfg(not(flagcx_p2p_loom))]
mod tests;

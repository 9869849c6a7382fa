//! The exchange of region changes with the peer, as part of the connection's task.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::SyncRequests;
use crate::control::RegionFrame;
use crate::control::wire::RegionChanges;
use crate::memory::{RemoteRegions, Subscription};

/// The exchange with a peer that announces changes.
#[derive(Debug)]
pub(in crate::connection) struct Exchange {
    /// The local regions, up to the version that was sent to the peer.
    local: Subscription,
    remote: Arc<RemoteRegions>,
    sync_requests: Arc<SyncRequests>,
    /// The peer's last unanswered Sync, and the version of the local regions when it came.
    asked: Option<(u64, u64)>,
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
        Self { local, remote, sync_requests, asked: None, pause: None }
    }

    /// The next frame for the peer; `None` if there is none to send.
    pub(in crate::connection) fn next(&mut self) -> Option<RegionFrame> {
        if let Some(number) = self.sync_requests.next() {
            return Some(RegionFrame::Sync(number));
        }
        if let Some((number, _)) = self.asked.filter(|(_, version)| self.local.sent_version() >= *version) {
            self.asked = None;
            return Some(RegionFrame::Synced(number));
        }
        let is_urgent = self.asked.is_some() || self.local.has_more();
        if !is_urgent && self.pause.is_some_and(|end| Instant::now() < end) {
            return None;
        }
        let changes = self.local.next();
        self.pause = changes.as_ref().map(|_| Instant::now() + PAUSE);
        changes.map(RegionFrame::Changes)
    }

    /// When to call [`Exchange::next`] again without another event.
    pub(in crate::connection) fn deadline(&self) -> Option<Instant> {
        self.pause
    }

    /// Handles a frame of the peer. Returns changes to be applied to [`Exchange::remote`], which may take long.
    pub(in crate::connection) fn receive(&mut self, frame: RegionFrame) -> Option<RegionChanges> {
        match frame {
            RegionFrame::Changes(changes) => return Some(changes),
            RegionFrame::Sync(number) => self.asked = Some((number, self.local.version())),
            RegionFrame::Synced(number) => self.sync_requests.answered(number),
        }
        None
    }

    /// The peer's regions.
    pub(in crate::connection) fn remote(&self) -> &Arc<RemoteRegions> {
        &self.remote
    }
}

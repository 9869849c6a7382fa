//! What is to be said to the peer about regions, and what becomes of what it says: the part of the connection's task.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::SyncRequests;
use crate::control::RegionFrame;
use crate::control::wire::RegionChanges;
use crate::memory::{RemoteRegions, Subscription};

/// The exchange with a peer that tells changes.
#[derive(Debug)]
pub(in crate::connection) struct Exchange {
    /// Our regions, as far as the peer has been told.
    local: Subscription,
    remote: Arc<RemoteRegions>,
    sync_requests: Arc<SyncRequests>,
    /// The peer's last question that is not answered, and the version of our regions when it came.
    asked: Option<(u64, u64)>,
    /// Nothing is told before, unless the peer asks.
    pause: Option<Instant>,
}

/// Between two frames that tell all there is: registrations in a row go in few frames, not in one each. Who cannot wait
/// for them asks.
const PAUSE: Duration = Duration::from_millis(1);

impl Exchange {
    pub(in crate::connection) fn new(
        local: Subscription,
        remote: Arc<RemoteRegions>,
        sync_requests: Arc<SyncRequests>,
    ) -> Self {
        Self { local, remote, sync_requests, asked: None, pause: None }
    }

    /// The next frame for the peer; `None` if there is nothing to say.
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

    /// When to look again although nothing has happened.
    pub(in crate::connection) fn deadline(&self) -> Option<Instant> {
        self.pause
    }

    /// The peer has said something. Answers the changes that are to be applied to [`Exchange::remote`], which may take
    /// long.
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

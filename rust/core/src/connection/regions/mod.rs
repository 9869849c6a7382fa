//! The exchange of region changes between the two ends of a connection.
//!
//! ```text
//!   register, deregister ──▶ Announced ── wakes ──▶ Exchange ── Changes ──▶  peer's Exchange ──▶ RemoteRegions
//!   a miss ──▶ SyncRequests ─────────────── wakes ──▶ (the task)  ── Sync ───▶
//!          ◀── Synced ──────────────────────────────────────── ◀── what has changed, then Synced ──
//! ```
//! Both run on the connection's task. No caller waits for a peer that does not read: at most one frame waits in the
//! channel, and the next one carries all changes since.

mod exchange;
mod sync_requests;

pub(super) use exchange::Exchange;
pub(super) use sync_requests::SyncRequests;

use std::time::Duration;

use super::Connection;
use crate::memory::{RemoteCheck, RemoteRegion};
use crate::transfer::Iov;

/// How long a look-up waits for regions that the peer has not announced yet.
const QUESTION_LIMIT: Duration = Duration::from_secs(1);

impl Connection {
    /// The key for a range of the peer's memory, from the regions that it has announced; `None` if none holds it.
    ///
    /// If none holds it, this sends a Sync to the peer and waits for the answer for at most a second: a region that
    /// the peer registered before the call is found. It sends none on the event loop, which must not block, nor to an
    /// original engine.
    #[doc(hidden)]
    pub fn remote_key(&self, address: u64, length: u64) -> Option<u32> {
        self.remote_region(address, length).map(|region| region.rkey)
    }

    /// The region that [`Connection::remote_key`] finds.
    #[doc(hidden)]
    pub fn remote_region(&self, address: u64, length: u64) -> Option<RemoteRegion> {
        self.known_region(address, length).or_else(|| {
            self.request_regions();
            self.known_region(address, length)
        })
    }

    /// Why no region of the peer, or no segment of one, holds the range: none does, or it runs from one into the next.
    #[doc(hidden)]
    pub fn not_announced(&self, address: u64, length: u64) -> String {
        let boundary = self.here().ok().and_then(|()| self.remote.table().boundary_in(address, length));
        match boundary {
            Some(boundary) => format!(
                "the peer announced no region that holds {address:#x}+{length}: one ends at {boundary:#x}, where another with a key \
                 of its own begins; describe the parts before and behind it apart"
            ),
            None => format!("the peer announced no region that holds {address:#x}+{length}"),
        }
    }

    /// The region of those that the peer has announced until now. Never waits.
    #[doc(hidden)]
    pub fn known_region(&self, address: u64, length: u64) -> Option<RemoteRegion> {
        self.here().ok()?;
        self.remote.table().find(address, length).copied()
    }

    /// The region of the peer that was registered before all others that it has now, as [`Connection::remote_region`] asks for them;
    /// the first that its handshake named, of an original engine.
    #[doc(hidden)]
    pub fn oldest_region(&self) -> Option<RemoteRegion> {
        self.here().ok()?;
        self.request_regions();
        self.remote.table().oldest().copied()
    }

    /// Looks up pieces again that were named by the peer's addresses, after a transfer of them was refused, or failed as remote access.
    ///
    /// The peer may have deregistered the memory and registered it again before the first look-up, which found the old key because
    /// the announcement was under way. This asks the peer, for at most `limit` and at most a second, so what it registered before the call
    /// is found. True: each piece lies in a region, and one or more have another key than before, so the transfer can be
    /// started again. False: it would end as it did, and the keys may have changed.
    #[doc(hidden)]
    pub fn find_again(&self, iovs: &mut [Iov], limit: Duration) -> bool {
        self.request_regions_within(limit);
        if self.here().is_err() {
            return false;
        }
        let (table, mut has_changed) = (self.remote.table(), false);
        for iov in iovs {
            let (remote, length) = (&mut iov.remote, iov.length);
            if matches!(
                table.check(remote.rkey, remote.address, length),
                RemoteCheck::Inside(_) | RemoteCheck::InSegments { .. }
            ) {
                continue;
            }
            let Some(region) = table.find(remote.address, length) else { return false };
            remote.rkey = region.rkey;
            has_changed = true;
        }
        has_changed
    }

    /// The number of known regions of the peer, and the version that they are of. 0, 0 for a peer that announces no
    /// changes.
    #[doc(hidden)]
    pub fn known_regions(&self) -> (usize, u64) {
        if !self.is_here() {
            return (0, 0);
        }
        self.remote.known()
    }

    /// Waits until all regions that the peer registered before the call are known; false if it does not answer.
    fn request_regions(&self) -> bool {
        self.request_regions_within(QUESTION_LIMIT)
    }

    fn request_regions_within(&self, limit: Duration) -> bool {
        let on_loop = self.recovery.get().is_none_or(|(_, events)| events.is_current_thread());
        let limit = limit.min(QUESTION_LIMIT);
        !on_loop && !self.is_closed() && self.sync_requests.ask(limit, || self.wakeup.wake())
    }

    /// Regions of the peer were deregistered: the lanes drop their cached look-ups.
    pub(super) fn invalidate_remote_regions(&self) {
        for (_, lane) in self.all_lanes() {
            lane.worker.with_state(|state| state.forget_remote(lane.key));
        }
        self.gpu.imports().release();
    }
}

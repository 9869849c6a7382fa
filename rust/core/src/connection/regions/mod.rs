//! How the two ends of a connection keep knowing each other's regions.
//!
//! ```text
//!   register, deregister ──▶ Announced ── wakes ──▶ Exchange ── Changes ──▶  peer's Exchange ──▶ RemoteRegions
//!   a miss ──▶ Questions ─────────────── wakes ──▶ (the task)  ── Sync ───▶
//!          ◀── Synced ──────────────────────────────────────── ◀── what has changed, then Synced ──
//! ```
//! Both run on the connection's task. Nothing waits for a peer that does not read: one frame waits in the channel, and what
//! is new meanwhile is the difference that the next one tells.

mod exchange;
mod questions;

pub(super) use exchange::Exchange;
pub(super) use questions::Questions;

use std::time::Duration;

use super::Connection;

/// How long a look-up waits for what the peer has not told yet.
const QUESTION_LIMIT: Duration = Duration::from_secs(1);

impl Connection {
    /// The key for a range of the peer's memory, from the regions that it has announced; `None` if none holds it.
    ///
    /// If none does, this asks the peer whether there are more, and waits for its answer for at most a second: whatever
    /// the peer registered before the call is found. It does not ask where that would block the event loop, nor an
    /// original engine.
    pub fn remote_key(&self, address: u64, length: u64) -> Option<u32> {
        self.here().ok()?;
        let find = || self.remote.table().find(address, length).map(|region| region.rkey);
        find().or_else(|| {
            self.ask_for_regions();
            find()
        })
    }

    /// How many regions of the peer are known, and up to which of its versions. Of a peer that tells no changes: 0, 0.
    pub fn known_regions(&self) -> (usize, u64) {
        if !self.is_here() {
            return (0, 0);
        }
        self.remote.known()
    }

    /// Waits until all is known that the peer has registered before the call; false if it does not say.
    fn ask_for_regions(&self) -> bool {
        let on_loop = self.recovery.get().is_none_or(|(_, events)| events.is_current_thread());
        !on_loop && !self.is_closed() && self.questions.ask(QUESTION_LIMIT, || self.wakeup.wake())
    }

    /// Regions of the peer are gone: the lanes take none of them for granted any more.
    pub(super) fn forget_remote_regions(&self) {
        for lane in &self.lanes {
            lane.worker.with_state(|state| state.forget_remote(lane.key));
        }
        // Its owner must not free memory that is open here.
        self.gpu.imports().close_idle();
    }
}

//! Requests of a peer that has named too many wrong keys: a request with a key that the peer may have guessed waits for its
//! turn.

use std::time::Instant;

use super::{Server, Stop, WaitsFor};
use crate::fabric::software::device_core::Core;
use crate::fabric::software::tcp::frame::GROUP;

impl Server {
    /// How many requests of the group may be carried out at once. One, while what it names has to wait: or a key that is
    /// right would show at once behind one that is announced.
    pub(super) fn most_at_once(&self) -> usize {
        if self.peer_record.is_limited() { 1 } else { GROUP }
    }

    /// Whether the key of the first request is looked at now: the peer was told of it, or it had its turn.
    pub(super) fn may_be_looked_at(&mut self, core: &Core) -> bool {
        let Some(header) = self.pending.front().filter(|header| header.length > 0 && !self.has_closed) else {
            return true;
        };
        let key = header.rkey;
        if self.admitted == Some(key) || core.regions.view().pin(key).is_ok_and(|pin| pin.is_announced()) {
            return true;
        }
        let now = Instant::now();
        let turn = match self.held {
            Some((held, turn)) if held == key => Some(turn),
            _ => self.peer_record.turn(now),
        };
        self.held = turn.map(|turn| (key, turn));
        let is_its_turn = turn.is_some_and(|turn| now >= turn);
        if is_its_turn {
            (self.held, self.admitted) = (None, Some(key));
        }
        is_its_turn
    }

    /// Nothing wakes it but the clock. One that has no turn, for too many wait for theirs, is closed.
    pub(super) fn wait_for_turn(&mut self) -> Result<(), Stop> {
        self.tell();
        if self.outgoing.is_some() {
            return Ok(());
        }
        Err(Stop(if self.held.is_some() { WaitsFor::Parked } else { WaitsFor::Close }))
    }
}

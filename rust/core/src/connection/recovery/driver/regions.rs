//! The exchange of regions, as part of the task of a connection.

use std::io;
use std::sync::Arc;

use super::Driver;
use crate::connection::Connection;
use crate::connection::regions::Exchange;
use crate::control::RegionFrame;

impl Driver {
    /// Handles a frame about regions. A helper thread applies large changes.
    pub(super) async fn receive_regions(&mut self, frame: RegionFrame) {
        let Some(exchange) = &mut self.exchange else { return };
        let Some(changes) = exchange.receive(frame) else { return };
        let rail = changes.rail;
        let Some(regions) = exchange.remote(rail).map(Arc::clone) else {
            tracing::debug!(peer = %self.socket.peer(), rail, "changes of the regions of a rail that is not there are dropped");
            return;
        };
        let applied = match regions.is_quick(&changes) {
            true => regions.apply(&changes),
            false => self.answering(self.handle.blocking(move || regions.apply(&changes))).await,
        };
        match applied {
            Ok(false) => {}
            // Before any other frame of the peer: once a Sync is answered, keys of removed regions must be refused.
            Ok(true) => self.command(Connection::invalidate_remote_regions).await,
            Err(error) => self.machine.channel_lost(&io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }

    /// Sends changes of regions while the socket accepts them, up to the limit of a turn; true if there may be more.
    pub(super) fn send_regions(&mut self) -> bool {
        for _ in 0..REGION_FRAMES_PER_TURN {
            if self.machine.is_over() || !self.flush() || !self.socket.has_room() {
                return false;
            }
            let Some(frame) = self.exchange.as_mut().and_then(Exchange::next) else { return false };
            self.socket.queue_regions(&frame);
        }
        self.flush()
    }
}

/// Frames about regions that are sent per turn.
const REGION_FRAMES_PER_TURN: usize = 4;

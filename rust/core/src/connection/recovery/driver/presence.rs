//! Detection of the peer's end, as part of the task of a connection.

use std::time::Duration;

use super::super::LostReason;
use super::{Driver, Observation};
use crate::connection::Presence;
use crate::control::ChannelFrame;
use crate::events::first;

/// Interval of Pongs while the task waits for a helper and reads no pings: shorter than the shortest period of the
/// peer's checks.
const KEEPALIVE_INTERVAL: Duration = Duration::from_millis(40);

impl Driver {
    /// Ends the connection when the peer has ended. A failed lane may be the first sign of that.
    pub(super) fn check_peer(&mut self, seen: &[Observation]) {
        match &self.presence {
            Presence::Sockets => {}
            Presence::Process(process) => {
                let may_be_dead = seen.iter().any(|seen| !matches!(seen, Observation::Device { .. }));
                if process.has_ended() || may_be_dead && !process.is_alive() {
                    self.machine.peer_died(process.pid().as_raw_nonzero().get());
                }
            }
            Presence::Pinged(pinger) => {
                if pinger.is_gone() {
                    let limit = pinger.limit();
                    if !self.leave(&LostReason::Silent(limit).to_string()) {
                        self.machine.peer_silent(limit);
                    }
                }
            }
        }
    }

    /// Reports received bytes as a sign of life.
    pub(super) fn note_activity(&mut self) {
        let received = self.socket.bytes_received();
        if received != std::mem::replace(&mut self.received, received)
            && let Presence::Pinged(pinger) = &self.presence
        {
            pinger.received();
        }
    }

    /// Waits for `work`, and sends Pongs meanwhile: a drain may take seconds.
    pub(super) async fn answering<T>(&self, work: impl Future<Output = T>) -> T {
        let answers = async {
            loop {
                self.handle.sleep(KEEPALIVE_INTERVAL).await;
                if self.answers {
                    // The next turn finds the error.
                    let _ = self.socket.try_send(&ChannelFrame::Pong(0));
                }
            }
        };
        first(work, answers).await
    }
}

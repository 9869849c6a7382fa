//! Whether the peer is still there, as part of the task of a connection.

use std::time::Duration;

use super::{Driver, Observation};
use crate::connection::Presence;
use crate::control::ChannelFrame;
use crate::events::first;

/// While the task waits for a helper it reads no questions. A peer that asks all the same hears of it that often: more often
/// than the shortest of its periods.
const KEEPALIVE_INTERVAL: Duration = Duration::from_millis(40);

impl Driver {
    /// The end of the peer ends the connection. A lane that fails may be the first to tell of it.
    pub(super) fn check_peer(&mut self, seen: &[Observation]) {
        match &self.presence {
            Presence::Sockets => {}
            Presence::Process(process) => {
                let may_be_dead = seen.iter().any(|seen| !matches!(seen, Observation::Device(_)));
                if process.has_ended() || may_be_dead && !process.is_alive() {
                    self.machine.peer_died(process.pid().as_raw_nonzero().get());
                }
            }
            Presence::Pinged(pinger) => {
                if pinger.is_gone() {
                    self.machine.peer_silent(pinger.limit());
                }
            }
        }
    }

    /// What has been read is a sign of life.
    pub(super) fn note_activity(&mut self) {
        let received = self.socket.bytes_received();
        if received != std::mem::replace(&mut self.received, received)
            && let Presence::Pinged(pinger) = &self.presence
        {
            pinger.received();
        }
    }

    /// Waits for `work`, and lets the peer know meanwhile that we are there: a drain may take seconds.
    pub(super) async fn answering<T>(&self, work: impl Future<Output = T>) -> T {
        let answers = async {
            loop {
                self.handle.sleep(KEEPALIVE_INTERVAL).await;
                if self.answers {
                    // An error is found by the next turn.
                    let _ = self.socket.try_send(&ChannelFrame::Pong(0));
                }
            }
        };
        first(work, answers).await
    }
}

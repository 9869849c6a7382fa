//! Whether the peer is still there, as part of the task of a connection.

use std::time::Duration;

use super::{Driver, Seen};
use crate::connection::Presence;
use crate::control::ChannelFrame;
use crate::events::first;

/// While the task waits for a helper it reads no questions. A peer that asks all the same hears of it that often: more often
/// than the shortest of its periods.
const STILL_THERE: Duration = Duration::from_millis(40);

impl Driver {
    /// The end of the peer ends the connection. A lane that fails may be the first to tell of it.
    pub(super) fn look_at_peer(&mut self, seen: &[Seen]) {
        match &self.presence {
            Presence::Sockets => {}
            Presence::Process(process) => {
                let may_be_dead = seen.iter().any(|seen| !matches!(seen, Seen::Device(_)));
                if process.has_ended() || may_be_dead && !process.is_alive() {
                    self.machine.peer_died(process.pid().as_raw_nonzero().get());
                }
            }
            Presence::Pinged(pulse) => {
                if pulse.is_gone() {
                    self.machine.peer_silent(pulse.limit());
                }
            }
        }
    }

    /// What has been read is a sign of life.
    pub(super) fn note_life(&mut self) {
        let heard = self.socket.heard();
        if heard != std::mem::replace(&mut self.heard, heard)
            && let Presence::Pinged(pulse) = &self.presence
        {
            pulse.heard();
        }
    }

    /// Waits for `work`, and lets the peer know meanwhile that we are there: a drain may take seconds.
    pub(super) async fn answering<T>(&self, work: impl Future<Output = T>) -> T {
        let answers = async {
            loop {
                self.handle.sleep(STILL_THERE).await;
                if self.answers {
                    // An error is found by the next turn.
                    let _ = self.socket.try_send(&ChannelFrame::Pong(0));
                }
            }
        };
        first(work, answers).await
    }
}

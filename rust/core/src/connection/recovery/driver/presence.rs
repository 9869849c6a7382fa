//! Whether the peer is still there, as part of the task of a connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use once_cell::sync::Lazy;

use super::super::{Liveness, Look};
use super::{Driver, Seen};
use crate::connection::Presence;
use crate::control::ChannelFrame;
use crate::events::first;
use crate::process::PeerProcess;

/// While the task waits for a helper it reads no questions. A peer that asks all the same hears of it that often: more often
/// than the shortest of its periods.
const STILL_THERE: Duration = Duration::from_millis(40);

/// Of the process's beats.
static EPOCH: Lazy<Instant> = Lazy::new(Instant::now);

/// What the task needs of a presence.
pub(super) fn split(presence: Presence) -> (Option<Arc<PeerProcess>>, Option<Liveness>) {
    match presence {
        Presence::Sockets => (None, None),
        Presence::Process(process) => (Some(process), None),
        Presence::Pinged(keepalive) => (None, Some(Liveness::new(keepalive, *EPOCH, Instant::now()))),
    }
}

impl Driver {
    /// The end of the peer's process ends the connection. A lane that fails may be the first to tell of it.
    pub(super) fn look_at_process(&mut self, seen: &[Seen]) {
        let Some(process) = &self.process else { return };
        let may_be_dead = seen.iter().any(|seen| !matches!(seen, Seen::Device(_)));
        if process.has_ended() || may_be_dead && !process.is_alive() {
            self.machine.peer_died(process.pid().as_raw_nonzero().get());
        }
    }

    /// Asks a peer that is silent whether it is there, and gives it up if it does not answer. What has arrived has been read.
    pub(super) fn look_at_silence(&mut self) {
        let heard = self.socket.heard();
        let Some(liveness) = &mut self.liveness else { return };
        let now = Instant::now();
        if heard != self.heard {
            self.heard = heard;
            liveness.heard(now);
        }
        match liveness.look(now) {
            Look::Wait => {}
            // One that does not read what was said before does not hear a question either.
            Look::Ask if self.blocked => {}
            Look::Ask => self.socket.queue(&ChannelFrame::Ping(heard)),
            Look::Gone => self.machine.peer_silent(liveness.limit()),
        }
    }

    /// Waits for `work`, and lets the peer know meanwhile that we are there: a drain may take seconds.
    pub(super) async fn answering<T>(&self, work: impl Future<Output = T>) -> T {
        let answers = async {
            loop {
                self.handle.sleep(STILL_THERE).await;
                // Whole frames only, and none behind what the socket does not take. An error is found by the next turn.
                if self.answers && matches!(self.socket.flush(), Ok(true)) {
                    self.socket.queue(&ChannelFrame::Pong(0));
                    let _ = self.socket.flush();
                }
            }
        };
        first(work, answers).await
    }
}

//! What the task of a connection waits for between two turns.

use super::{Driver, Exchange};
use crate::events::first;

/// What the task was woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// A look at the rails is due, and nothing else.
    ToLook,
    ForTurn,
}

impl Driver {
    /// Waits for a frame, a wake-up or the earliest deadline.
    pub(super) async fn wait(&mut self) -> Woken {
        // While the socket is blocked no frame about regions can be sent.
        let is_blocked = self.blocked || self.is_away() || !self.socket.has_room();
        let pause = self.exchange.as_ref().filter(|_| !is_blocked).and_then(Exchange::deadline);
        let redial = self.redial_deadline().into_iter().chain(self.relink_deadline());
        let deadlines = self.machine_deadline().into_iter().chain(self.send_by).chain(pause);
        let deadlines = deadlines.chain(redial).chain(self.link_deadline()).chain(self.rails_deadline());
        let (other, look) = (deadlines.chain(self.undrained_deadline()).min(), self.look_deadline());
        let timed = async {
            self.handle.sleep_until(look.into_iter().chain(other).min()).await;
            let is_look = look.is_some_and(|look| other.is_none_or(|other| look < other));
            if is_look { Woken::ToLook } else { Woken::ForTurn }
        };
        let awaited = async {
            let Some(channel) = &mut self.channel else { return self.wakeup.wait().await };
            let received = first(self.wakeup.wait(), channel.readable());
            match &mut self.writable {
                Some(writable) if self.blocked => first(received, writable.writable()).await,
                _ => received.await,
            }
        };
        let awaited = async {
            awaited.await;
            Woken::ForTurn
        };
        first(awaited, timed).await
    }
}

//! Notifications to the peer of a connection.

use std::time::{Duration, Instant};

use super::Connection;
use super::submit::thread_hint;
use crate::notify::{LargeMessage, Message, NotifyError, Sender};
use crate::sync::Ordering;

/// How long a notification may wait for a peer that does not read.
const NOTIFY_LIMIT: Duration = Duration::from_secs(5);

impl Connection {
    /// Sends a notification; answers the bytes handed over. It arrives after the data of transfers that had ended.
    ///
    /// Refused once for each failed transfer that [`Connection::has_ended`] told the calling thread to have ended.
    pub fn send_notification(&self, message: &Message) -> Result<usize, NotifyError> {
        let sent = self.sender()?.send(message, Instant::now() + NOTIFY_LIMIT)?;
        self.notified.fetch_add(1, Ordering::Relaxed);
        Ok(sent)
    }

    /// Sends a notification of any size up to what the peer takes. Only towards a peer that runs this engine. Refused as
    /// [`Connection::send_notification`] is.
    pub fn send_large_notification(&self, message: &LargeMessage) -> Result<usize, NotifyError> {
        let sent = self.sender()?.send_large(message, Instant::now() + NOTIFY_LIMIT)?;
        self.notified.fetch_add(1, Ordering::Relaxed);
        Ok(sent)
    }

    fn sender(&self) -> Result<&Sender, NotifyError> {
        self.here()?;
        if let Some((id, outcome)) = self.context.transfers.take_refusal(self.number, thread_hint()) {
            return Err(NotifyError::TransferFailed {
                id: id.0,
                peer: self.peer.control.to_string(),
                end: outcome.to_string(),
            });
        }
        self.notify.as_ref().filter(|_| !self.is_closed()).ok_or(NotifyError::NoChannel)
    }
}

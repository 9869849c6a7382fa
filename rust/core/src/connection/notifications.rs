//! Notifications to the peer of a connection.

use std::time::{Duration, Instant};

use super::Connection;
use super::submit::thread_hint;
use crate::notify::{Message, NotifyError, Sender};
use crate::sync::Ordering;

/// How long sending a notification may wait for a peer that does not read.
const NOTIFY_LIMIT: Duration = Duration::from_secs(5);

impl Connection {
    /// Sends a notification; returns the number of bytes handed over. It arrives after the data of transfers that had
    /// ended.
    ///
    /// Refused once for each failed transfer that [`Connection::has_ended`] has reported to the calling thread as
    /// ended.
    pub fn send_notification(&self, message: &Message) -> Result<usize, NotifyError> {
        let sent = self.sender()?.send(message, Instant::now() + NOTIFY_LIMIT)?;
        self.notified.fetch_add(1, Ordering::Relaxed);
        Ok(sent)
    }

    /// Sends a notification with a name of at most 256 bytes and a content of any length up to the peer's limit; the
    /// peer gets exactly those bytes. A peer that runs the original engine takes at most 256 bytes of content, padded
    /// with zeros. Sizes are checked before anything is copied. Refused under the same condition as
    /// [`Connection::send_notification`].
    pub fn send_notification_bytes(&self, name: &[u8], content: &[u8]) -> Result<usize, NotifyError> {
        let sent = self.sender()?.send_bytes(name, content, Instant::now() + NOTIFY_LIMIT)?;
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

//! Notifications to the peer of a connection.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Connection;
use super::lane_choice::thread_hint;
use crate::control::Stream;
use crate::events::EventLoopHandle;
use crate::notify::{LINGER, Message, NotifyError, Sender};
use crate::observe::report;
use crate::sync::Ordering;
use crate::transfer::TransferId;

/// How long sending a notification may wait for a peer that does not read.
const NOTIFY_LIMIT: Duration = Duration::from_secs(5);

/// Why notifications are refused after that.
const NOT_ANEW: &str =
    "their socket could not be made anew in time (FLAGCX_P2P_CONTROL_REDIAL); connect again to send more";

impl Connection {
    /// Sends a notification of fixed size, and answers the number of bytes that were handed over.
    ///
    /// It arrives after the data of transfers that had ended before. Waits for at most 5 s for a peer that does not read. If
    /// nothing of it could be sent by then, later ones still can; if a part was, the connection takes no more notifications, for
    /// the peer could not find the start of the next one.
    ///
    /// # Errors
    /// [`NotifyError::Send`] when the peer does not read or is gone, [`NotifyError::NoChannel`] when it takes none, and
    /// [`NotifyError::TransferFailed`] once for each failed transfer that was reported to the calling thread as ended
    /// without how: only FlagCX's header does so.
    pub fn send_notification(&self, message: &Message) -> Result<usize, NotifyError> {
        let sent = self.sender()?.send(message, Instant::now() + NOTIFY_LIMIT)?;
        self.notified.fetch_add(1, Ordering::Relaxed);
        Ok(sent)
    }

    /// Sends a notification with a name of at most 256 bytes and a content of any length up to what the peer takes, which gets
    /// exactly those bytes.
    ///
    /// A peer that runs the original engine takes at most 256, filled up with zeros. Sizes are checked before anything is
    /// copied.
    ///
    /// # Errors
    /// [`NotifyError::NameTooLong`], [`NotifyError::TooLarge`] and [`NotifyError::OriginalPeer`] for sizes; and those of
    /// [`Connection::send_notification`].
    pub fn send_notification_bytes(&self, name: &[u8], content: &[u8]) -> Result<usize, NotifyError> {
        self.send_by(name, content, Instant::now() + NOTIFY_LIMIT)
    }

    fn send_by(&self, name: &[u8], content: &[u8], deadline: Instant) -> Result<usize, NotifyError> {
        let sent = self.sender()?.send_bytes(name, content, deadline)?;
        self.notified.fetch_add(1, Ordering::Relaxed);
        Ok(sent)
    }

    /// Refuses what [`Connection::send_notification_bytes`] would refuse for its sizes.
    #[doc(hidden)]
    pub fn check_notification(&self, name: &[u8], content: &[u8]) -> Result<(), NotifyError> {
        self.here()?;
        self.notify.as_ref().ok_or(NotifyError::NoChannel)?.check(name, content)
    }

    /// Whether a small notification would be sent without waiting for the peer; true also if it would be refused at once.
    #[doc(hidden)]
    pub fn can_notify(&self) -> bool {
        self.is_closed() || self.notify.as_ref().is_none_or(Sender::is_ready)
    }

    /// As [`Connection::send_notification_bytes`], if that waits for nothing; else sends nothing, and answers `None`.
    #[doc(hidden)]
    pub fn try_send_notification(&self, name: &[u8], content: &[u8]) -> Result<Option<usize>, NotifyError> {
        let sent = self.sender()?.try_send_bytes(name, content)?;
        self.notified.fetch_add(u64::from(sent.is_some()), Ordering::Relaxed);
        Ok(sent)
    }

    /// As [`Connection::send_notification_bytes`], for one that a transfer was started with: nothing waits for it, so its failure
    /// is an event. False if it was not sent within `patience`.
    #[doc(hidden)]
    pub fn send_notification_of(
        &self,
        id: TransferId,
        name: &[u8],
        content: &[u8],
        patience: Duration,
    ) -> bool {
        let sent = self.send_by(name, content, Instant::now() + patience);
        if let Err(error) = &sent {
            let (id, peer) = (id.0, &self.peer.control);
            report!(
                warn,
                NotificationDropped,
                peer = peer,
                "the notification of transfer {id:#x} was not sent: {error}"
            );
        }
        sent.is_ok()
    }

    /// Whether the notification socket is to be made anew, and whether messages wait for the peer. `anew`: it is, if it can be.
    pub(super) fn look_at_notifications(&self, anew: bool) -> (bool, bool) {
        let Some(sender) = self.notify.as_ref().filter(|_| !self.is_closed()) else { return (false, false) };
        if anew {
            sender.leave();
        }
        (sender.needs_socket(), sender.keeps_some())
    }

    /// The notification socket could not be made anew within `limit`.
    pub(super) fn give_up_notifications(&self, limit: Duration) {
        let kept = self.notify.as_ref().map_or(0, |sender| sender.give_up(NOT_ANEW));
        let (peer, ms) = (&self.peer.control, limit.as_millis());
        report!(
            warn,
            NotificationDropped,
            peer = peer,
            "no more notifications are sent to the peer, and {kept} that were may not arrive: their socket could not be made anew within {ms} ms (FLAGCX_P2P_CONTROL_REDIAL)"
        );
    }

    /// The connection ends: what was sent arrives, if the peer reads it by `deadline`, or later while this process has an engine.
    pub(super) fn end_notifications(&self, deadline: Instant) {
        match self.notify.as_ref().map_or(Ok(None), |sender| sender.end(deadline)) {
            Ok(None) => {}
            Ok(Some(lingering)) => {
                let Some((_, events)) = self.recovery.get() else { return };
                let peer = self.peer.control;
                let close = move |handle: &EventLoopHandle| {
                    let handle = handle.clone();
                    async move {
                        let lost = lingering.close(LINGER, handle.clone()).await;
                        if lost > 0 {
                            // Events may wait for a file.
                            handle.detach(move || report_unread(peer, lost));
                        }
                    }
                };
                events.spawn(close).detach();
            }
            Err(lost) => report_unread(self.peer.control, lost),
        }
    }

    /// Notifications go on over another socket; the peer has delivered `count` of them.
    pub(super) fn relink_notifications(&self, stream: Stream, count: u64) {
        if let Some(sender) = self.notify.as_ref().filter(|_| !self.is_closed()) {
            sender.relink(stream, count);
            self.wakeup.wake();
        }
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

/// The peer has not said that it has read the last notifications, and is not asked any more.
fn report_unread(peer: SocketAddr, lost: usize) {
    report!(
        warn,
        NotificationDropped,
        peer = peer,
        "{lost} notifications may not arrive: the connection has ended, and the peer had not read them when their socket failed, or was closed after {} s",
        LINGER.as_secs()
    );
}

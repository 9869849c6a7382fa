//! Notifications: small messages beside the data.

/// One notification: a name and a text of 256 bytes each, not necessarily NUL-terminated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Message {
    /// Name of the sender or topic.
    pub name: [u8; 256],
    /// Content.
    pub text: [u8; 256],
}

/// Why a notification was not sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotifyError {
    /// The peer offered no notification channel, or it is closed.
    #[error("the connection has no notification channel")]
    NoChannel,
    /// The peer does not read fast enough, or is gone.
    #[error("notification to {peer}: {reason}")]
    Send {
        /// Who.
        peer: String,
        /// Why.
        reason: String,
    },
}

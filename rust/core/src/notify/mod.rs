//! Notifications: small messages beside the data.
//!
//! Each engine has a [`Receiver`]: one task of the event loop, any number of peers, a bounded queue. A full queue is
//! back-pressure: its peers are read no further until messages have been fetched. [`take_all`] fetches those of every
//! engine of the process in the order of their arrival, as FlagCX's interface requires: those of the fixed 512 bytes.
//! Notifications of any size wait in the same queue, and are fetched from their engine, all in the order of arrival.

mod decoder;
mod kept;
mod queue;
mod receiver;
mod sender;

use std::fmt;

use crate::control::wire::notification::NAME_SIZE;
use crate::fork::Forked;

pub use decoder::{DecodedEvent, Decoder, SenderPolicy};
pub(crate) use kept::LINGER;
pub use queue::{append, take_all};
pub use receiver::{Receiver, ReceiverOptions};
pub use sender::Sender;

/// One notification: a name and a text of 256 bytes each, not necessarily NUL-terminated.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Message {
    /// Name of the sender or topic.
    pub name: [u8; NAME_SIZE],
    /// Content.
    pub text: [u8; NAME_SIZE],
}

impl Message {
    /// Bytes of a message as callers count them.
    pub const SIZE: usize = size_of::<Self>();

    /// A message of these texts, padded with zeros; longer ones are truncated.
    pub fn new(name: &[u8], text: &[u8]) -> Self {
        Self { name: padded(name), text: padded(text) }
    }
}

/// A notification of any size, of which the receiver learns the exact length. Only between engines of this kind.
#[derive(Clone, PartialEq, Eq)]
pub struct LargeMessage {
    /// Name of the sender or topic.
    pub name: [u8; NAME_SIZE],
    /// Content.
    pub content: Vec<u8>,
}

impl LargeMessage {
    /// A message of this name, padded with zeros (a longer one is truncated), and content.
    pub fn new(name: &[u8], content: Vec<u8>) -> Self {
        Self { name: padded(name), content }
    }
}

/// A notification that has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notification {
    /// 256 bytes of name and of text, as every engine sends them.
    Fixed(Box<Message>),
    /// A content of exactly the length with which it was sent.
    Exact(Box<LargeMessage>),
}

impl Notification {
    /// The name, padded with zeros to 256 bytes.
    pub fn name(&self) -> &[u8; NAME_SIZE] {
        match self {
            Self::Fixed(message) => &message.name,
            Self::Exact(message) => &message.name,
        }
    }

    /// The content: 256 bytes of a message of fixed size, else exactly the bytes sent.
    pub fn content(&self) -> &[u8] {
        match self {
            Self::Fixed(message) => &message.text,
            Self::Exact(message) => &message.content,
        }
    }
}

/// Why a notification was not sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotifyError {
    /// The connection belongs to a process from which this one was forked.
    #[error(transparent)]
    Forked(#[from] Forked),
    /// The peer has no notification receiver, or the channel is closed.
    #[error("cannot send a notification: the connection has no notification channel")]
    NoChannel,
    /// A transfer failed, and the calling thread got only that it has ended, not its outcome: nothing was sent. Each
    /// such transfer refuses one notification.
    #[error(
        "notification to {peer} not sent, because transfer {id:#x}, which was reported as ended, is not done: {end}"
    )]
    TransferFailed {
        /// The transfer.
        id: u64,
        /// The peer.
        peer: String,
        /// How it ended, in words.
        end: String,
    },
    /// The name has more than 256 bytes. Nothing was copied or sent.
    #[error("notification to {peer} not sent: its name has {bytes} bytes, and may have at most {NAME_SIZE}")]
    NameTooLong {
        /// The peer.
        peer: String,
        /// Bytes of the name.
        bytes: usize,
    },
    /// The content has more bytes than the peer takes. Nothing was copied or sent.
    #[error(
        "a notification of {bytes} bytes to {peer}, which takes at most {limit}: send less, or raise \
         FLAGCX_P2P_NOTIF_MAX_BYTES there"
    )]
    TooLarge {
        /// The peer.
        peer: String,
        /// Bytes of the content.
        bytes: usize,
        /// Bytes that the peer takes.
        limit: usize,
    },
    /// The peer runs the original engine, which takes 256 bytes at most.
    #[error(
        "notification of {bytes} bytes to {peer} not sent: the peer runs the original engine, which takes at most {NAME_SIZE}"
    )]
    OriginalPeer {
        /// The peer.
        peer: String,
        /// Bytes of the content.
        bytes: usize,
    },
    /// Sending failed: the peer does not read fast enough, has ended, or does not support the message.
    #[error("cannot send a notification to {peer}: {reason}")]
    Send {
        /// The peer.
        peer: String,
        /// Why.
        reason: String,
    },
}

fn padded(text: &[u8]) -> [u8; NAME_SIZE] {
    let mut field = [0; NAME_SIZE];
    for (place, byte) in field.iter_mut().zip(text) {
        *place = *byte;
    }
    field
}

fn shown(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(field.get(..end).unwrap_or_default()).into_owned()
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("name", &shown(&self.name)).field("text", &shown(&self.text)).finish()
    }
}

impl fmt::Debug for LargeMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LargeMessage")
            .field("name", &shown(&self.name))
            .field("bytes", &self.content.len())
            .finish()
    }
}

#[cfg(test)]
mod tests;

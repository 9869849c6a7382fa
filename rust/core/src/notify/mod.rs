//! Notifications: small messages beside the data.
//!
//! Each engine has a [`Receiver`]: one task of the event loop, any number of peers, a bounded queue. A full queue is back-pressure:
//! its peers are read no further until messages have been fetched. [`take_all`] fetches those of every engine of the
//! process in the order of their arrival, as FlagCX's interface wants it.

mod decoder;
mod queue;
mod receiver;
mod sender;

use std::fmt;

use crate::control::wire::notification::NAME_SIZE;
use crate::fork::Forked;

pub use decoder::{Decoder, Event, SenderPolicy};
pub use queue::{append, take_all, take_all_large};
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

    /// A message of these texts, filled up with zeros; what does not fit is cut off.
    pub fn new(name: &[u8], text: &[u8]) -> Self {
        Self { name: padded(name), text: padded(text) }
    }
}

/// A notification of more than 512 bytes. Only between engines of this kind.
#[derive(Clone, PartialEq, Eq)]
pub struct LargeMessage {
    /// Name of the sender or topic.
    pub name: [u8; NAME_SIZE],
    /// Content.
    pub content: Vec<u8>,
}

impl LargeMessage {
    /// A message of this name, filled up with zeros (what does not fit is cut off), and content.
    pub fn new(name: &[u8], content: Vec<u8>) -> Self {
        Self { name: padded(name), content }
    }
}

/// Why a notification was not sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotifyError {
    /// The connection is of a process from which this one was forked.
    #[error(transparent)]
    Forked(#[from] Forked),
    /// The peer offered no notification channel, or it is closed.
    #[error("the connection has no notification channel")]
    NoChannel,
    /// A transfer failed of which the calling thread knows only that it has ended: nothing was sent. Each such transfer
    /// refuses one notification.
    #[error(
        "nothing was sent to {peer}, because transfer {id:#x}, which was reported as ended, is not done: {end}"
    )]
    TransferFailed {
        /// The transfer.
        id: u64,
        /// The peer.
        peer: String,
        /// How it ended, in words.
        end: String,
    },
    /// The peer does not read fast enough, or is gone, or takes no such message.
    #[error("notification to {peer}: {reason}")]
    Send {
        /// Who.
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

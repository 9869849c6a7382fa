//! What the tool's two control streams have in common: how a frame is bytes. Pure: no socket and no clock.
//!
//! A frame is a header of 7 bytes (two letters that name the stream, its version, payload length as little-endian u32) and a
//! payload of bounded length, in the [postcard format](https://postcard.jamesmunns.com/wire-format), which begins with the
//! number of its variant. A payload that does not fit is refused by its header, before it is read.

use std::io;

use flagcx_p2p::internals::control::wire::SocketKind;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes before the payload.
pub(crate) const HEADER: usize = 7;
/// Longest text in a frame, in bytes.
pub(crate) const MAX_TEXT: usize = 1024;

/// The streams that the tool speaks: of `serve`, and of `bench serve`.
const MAGICS: [[u8; 2]; 2] = [*b"F2", *b"FB"];

/// One stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    pub(crate) magic: [u8; 2],
    /// Both sides must have the same.
    pub(crate) version: u8,
    pub(crate) max_payload: usize,
}

/// Why bytes are not a frame, or a frame cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("not a flagcx-p2p control stream: the peer is another program")]
    NotOurs,
    #[error(
        "not a flagcx-p2p control stream: the peer speaks as an engine does, or is `flagcx-p2p doctor`, which asks what listens here"
    )]
    Engine,
    #[error(
        "the peer is another command of flagcx-p2p: put, get and ls need a `serve`, bench run a `bench serve`"
    )]
    OtherCommand,
    #[error(
        "the peer's control stream has version {theirs}, this program's has version {ours}: use the same release at both ends"
    )]
    Version { theirs: u8, ours: u8 },
    #[error("malformed frame: {length} bytes, at most {most} are allowed")]
    TooLong { length: usize, most: usize },
    #[error("malformed frame: {0}")]
    Malformed(#[from] postcard::Error),
    #[error("malformed frame: {0} bytes follow its content")]
    Trailing(usize),
    #[error("malformed frame: text of {0} bytes, at most {MAX_TEXT} are allowed")]
    LongText(usize),
    #[error("malformed frame: {count} {what}, at most {most} are allowed")]
    TooMany { what: &'static str, count: usize, most: usize },
}

impl Format {
    /// The bytes of `frame`.
    pub(crate) fn encode(&self, frame: &impl Serialize) -> Result<Vec<u8>, FrameError> {
        let payload = postcard::to_allocvec(frame)?;
        let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= self.max_payload);
        let length = length.ok_or_else(|| self.too_long(payload.len()))?;
        Ok([&self.magic[..], &[self.version], &length.to_le_bytes(), &payload].concat())
    }

    /// The payload length that a header announces.
    pub(crate) fn decode_header(&self, header: [u8; HEADER]) -> Result<usize, FrameError> {
        let [m0, m1, version, length @ ..] = header;
        if [m0, m1] != self.magic {
            return Err(if MAGICS.contains(&[m0, m1]) {
                FrameError::OtherCommand
            } else if SocketKind::Bootstrap.encode().starts_with(&header) {
                FrameError::Engine
            } else {
                FrameError::NotOurs
            });
        }
        if version != self.version {
            return Err(FrameError::Version { theirs: version, ours: self.version });
        }
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > self.max_payload { Err(self.too_long(length)) } else { Ok(length) }
    }

    /// The frame of this payload; all of the payload must be used.
    pub(crate) fn decode_payload<T: DeserializeOwned>(&self, payload: &[u8]) -> Result<T, FrameError> {
        let (frame, rest) = postcard::take_from_bytes(payload)?;
        if rest.is_empty() { Ok(frame) } else { Err(FrameError::Trailing(rest.len())) }
    }

    fn too_long(&self, length: usize) -> FrameError {
        FrameError::TooLong { length, most: self.max_payload }
    }
}

/// An error for text that is longer than a frame may have.
pub(crate) fn check_text(length: usize) -> Result<(), FrameError> {
    if length > MAX_TEXT { Err(FrameError::LongText(length)) } else { Ok(()) }
}

/// An error for a list that is longer than a frame may have.
pub(crate) fn check_count(what: &'static str, count: usize, most: usize) -> Result<(), FrameError> {
    if count > most { Err(FrameError::TooMany { what, count, most }) } else { Ok(()) }
}

/// The beginning of a text, as much as a frame may have.
pub(crate) fn cut(text: &str) -> String {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned()
}

/// What an error of a stream's socket means.
#[derive(Clone, Debug)]
pub(crate) enum Lost {
    /// The peer has closed it, or has ended.
    Closed,
    /// A timeout of the socket.
    Timeout,
    Other(String),
}

impl From<&io::Error> for Lost {
    fn from(error: &io::Error) -> Self {
        use io::ErrorKind::{
            BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, TimedOut, UnexpectedEof, WouldBlock,
        };
        match error.kind() {
            UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe | NotConnected => Self::Closed,
            WouldBlock | TimedOut => Self::Timeout,
            _ => Self::Other(error.to_string()),
        }
    }
}

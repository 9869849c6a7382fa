//! Frames to bytes and back. Pure: no socket and no clock.
//!
//! A frame is a header of 7 bytes (`F2`, version, payload length as little-endian u32) and a payload of at most
//! [`MAX_PAYLOAD`] bytes: a [`Frame`] in the [postcard format](https://postcard.jamesmunns.com/wire-format), which
//! begins with the number of its variant. A payload that does not fit is refused by its header, before it is read.

use super::{Frame, MAX_ENTRIES, MAX_SLOTS, MAX_TEXT};

/// Version of the stream; both sides must have the same.
pub(crate) const VERSION: u8 = 4;
/// Largest payload: a ring of [`MAX_SLOTS`] descriptors, and room for text.
pub(crate) const MAX_PAYLOAD: usize = 32 * 1024;
/// Bytes before the payload.
pub(crate) const HEADER: usize = 7;

const MAGIC: [u8; 2] = *b"F2";

/// Why bytes are not a frame, or a frame cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("not a flagcx-p2p control stream: the peer is another program")]
    NotOurs,
    #[error(
        "the peer's control stream has version {0}, this program's has version {VERSION}: use the same release at both ends"
    )]
    Version(u8),
    #[error("malformed frame: {0} bytes, at most {MAX_PAYLOAD} are allowed")]
    TooLong(usize),
    #[error("malformed frame: {0}")]
    Malformed(#[from] postcard::Error),
    #[error("malformed frame: {0} bytes follow its content")]
    Trailing(usize),
    #[error("malformed frame: text of {0} bytes, at most {MAX_TEXT} are allowed")]
    LongText(usize),
    #[error("malformed frame: {0} slots, at most {MAX_SLOTS} are allowed")]
    ManySlots(usize),
    #[error("malformed frame: {0} entries, at most {MAX_ENTRIES} are allowed")]
    ManyEntries(usize),
}

/// The bytes of `frame`. One that breaks a limit is refused here, not only by its receiver.
pub(crate) fn encode(frame: &Frame) -> Result<Vec<u8>, FrameError> {
    check_limits(frame)?;
    let payload = postcard::to_allocvec(frame)?;
    let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= MAX_PAYLOAD);
    let length = length.ok_or(FrameError::TooLong(payload.len()))?;
    Ok([&MAGIC[..], &[VERSION], &length.to_le_bytes(), &payload].concat())
}

/// The payload length that a header announces.
pub(crate) fn decode_header(header: [u8; HEADER]) -> Result<usize, FrameError> {
    let [m0, m1, version, length @ ..] = header;
    if [m0, m1] != MAGIC {
        return Err(FrameError::NotOurs);
    }
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_PAYLOAD {
        return Err(FrameError::TooLong(length));
    }
    Ok(length)
}

/// The frame of this payload; all of the payload must be used.
pub(crate) fn decode_payload(payload: &[u8]) -> Result<Frame, FrameError> {
    let (frame, rest) = postcard::take_from_bytes(payload)?;
    if !rest.is_empty() {
        return Err(FrameError::Trailing(rest.len()));
    }
    check_limits(&frame)?;
    Ok(frame)
}

/// Limits of what a frame holds, which the format does not know.
fn check_limits(frame: &Frame) -> Result<(), FrameError> {
    let (text, slots, entries) = match frame {
        Frame::Ring { metadata, slots, .. } => (metadata.len(), slots.len(), 0),
        Frame::Put { name, .. } | Frame::Get { name, .. } => (name.len(), 0, 0),
        Frame::Small(small) => (small.name.len(), 0, 0),
        Frame::List { folder } => (folder.len(), 0, 0),
        Frame::Refused { text } | Frame::Failed { text } => (text.len(), 0, 0),
        Frame::Entries { entries } => {
            (entries.iter().map(|entry| entry.name.len()).max().unwrap_or(0), 0, entries.len())
        }
        _ => (0, 0, 0),
    };
    if text > MAX_TEXT {
        return Err(FrameError::LongText(text));
    }
    if slots > MAX_SLOTS {
        return Err(FrameError::ManySlots(slots));
    }
    if entries > MAX_ENTRIES {
        return Err(FrameError::ManyEntries(entries));
    }
    Ok(())
}

#[cfg(test)]
mod tests;

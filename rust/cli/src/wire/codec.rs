//! Frames to bytes and back, within the limits of this stream.

use super::{Frame, MAX_ENTRIES, MAX_SLOTS};
use crate::framing::{self, Format};

pub(crate) use crate::framing::{FrameError, HEADER};

/// Version of the stream; both sides must have the same.
pub(crate) const VERSION: u8 = 5;
/// Largest payload: a ring of [`MAX_SLOTS`] descriptors, and room for text.
pub(crate) const MAX_PAYLOAD: usize = 32 * 1024;
const FORMAT: Format = Format { magic: *b"F2", version: VERSION, max_payload: MAX_PAYLOAD };

/// The bytes of `frame`. One that breaks a limit is refused here, not only by its receiver.
pub(crate) fn encode(frame: &Frame) -> Result<Vec<u8>, FrameError> {
    check_limits(frame)?;
    FORMAT.encode(frame)
}

/// The payload length that a header announces.
pub(crate) fn decode_header(header: [u8; HEADER]) -> Result<usize, FrameError> {
    FORMAT.decode_header(header)
}

/// The frame of this payload; all of the payload must be used.
pub(crate) fn decode_payload(payload: &[u8]) -> Result<Frame, FrameError> {
    let frame = FORMAT.decode_payload(payload)?;
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
    framing::check_text(text)?;
    framing::check_count("slots", slots, MAX_SLOTS)?;
    framing::check_count("entries", entries, MAX_ENTRIES)
}

#[cfg(test)]
mod tests;

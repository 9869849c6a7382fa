//! Frames to bytes and back, within the limits of this stream.

use super::Frame;
use crate::framing::{self, Format};

pub(super) use crate::framing::{FrameError, HEADER};

/// Version of the stream; both sides must have the same.
const VERSION: u8 = 1;
/// Largest payload: [`MAX_SPANS`] spans of two numbers of 10 bytes at most, and room for text.
const MAX_PAYLOAD: usize = 8 * 1024;
/// Most spans of a frame: one for each thread of an end.
pub(crate) const MAX_SPANS: usize = 256;

/// The first bytes of each frame.
pub(crate) const MAGIC: [u8; 2] = *b"FB";
const FORMAT: Format = Format { magic: MAGIC, version: VERSION, max_payload: MAX_PAYLOAD };

/// The bytes of `frame`. One that breaks a limit is refused here, not only by its receiver.
pub(super) fn encode(frame: &Frame) -> Result<Vec<u8>, FrameError> {
    check_limits(frame)?;
    FORMAT.encode(frame)
}

/// The payload length that a header announces.
pub(super) fn decode_header(header: [u8; HEADER]) -> Result<usize, FrameError> {
    FORMAT.decode_header(header)
}

/// The frame of this payload; all of the payload must be used.
pub(super) fn decode_payload(payload: &[u8]) -> Result<Frame, FrameError> {
    let frame = FORMAT.decode_payload(payload)?;
    check_limits(&frame)?;
    Ok(frame)
}

/// Decodes bytes that may be frames, one after the other: for a fuzz target. What is a frame stays the same when it is written again.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_frames(data: &[u8]) {
    let mut rest = data;
    while let Some((header, behind)) = rest.split_first_chunk() {
        let Ok(length) = decode_header(*header) else { return };
        assert!(length <= MAX_PAYLOAD);
        let Some((payload, next)) = behind.split_at_checked(length) else { return };
        if let Ok(frame) = decode_payload(payload) {
            let again = encode(&frame);
            let payload = again.as_ref().map(|bytes| bytes.get(HEADER..).unwrap_or_default());
            assert_eq!(payload.map(decode_payload), Ok(Ok(frame)));
        }
        rest = next;
    }
}

/// Limits of what a frame holds, which the format does not know.
fn check_limits(frame: &Frame) -> Result<(), FrameError> {
    let (text, spans) = match frame {
        Frame::Ready(ready) => (ready.metadata.len().max(ready.host.len()).max(ready.version.len()), 0),
        Frame::Refused { text } | Frame::Connect { metadata: text, .. } => (text.len(), 0),
        Frame::Compare { spans, .. } | Frame::Ran { spans, .. } => (0, spans.len()),
        _ => (0, 0),
    };
    framing::check_text(text)?;
    framing::check_count("spans", spans, MAX_SPANS)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::super::layout::LayoutSpec;
    use super::super::super::path::Path;
    use super::super::super::pattern::{Compared, Span};
    use super::super::{Load, Ready};
    use super::*;
    use crate::framing::MAX_TEXT;

    fn decode(bytes: &[u8]) -> Result<Frame, FrameError> {
        let (header, payload) = bytes.split_first_chunk().ok_or(FrameError::NotOurs)?;
        assert_eq!(decode_header(*header)?, payload.len());
        decode_payload(payload)
    }

    fn layout() -> impl Strategy<Value = LayoutSpec> {
        any::<(u64, u64, u64, u32, bool)>().prop_map(|(seed, start, length, piece, contiguous)| LayoutSpec {
            seed,
            start,
            length,
            piece,
            contiguous,
        })
    }

    fn spans() -> impl Strategy<Value = Vec<Span>> {
        vec(any::<(u64, u64)>().prop_map(|(first, count)| Span { first, count }), 0..=MAX_SPANS)
    }

    fn frame() -> impl Strategy<Value = Frame> {
        let text = || ".{0,80}";
        prop_oneof![
            any::<([u8; 16], u64)>().prop_map(|(nonce, pool)| Frame::Open { nonce, path: Path::Tcp, pool }),
            any::<[u8; 16]>().prop_map(|nonce| Frame::Challenge { nonce }),
            any::<[u8; 32]>().prop_map(|proof| Frame::Proof { proof }),
            (text(), any::<(u64, u32)>(), text()).prop_map(|(metadata, (address, rkey), host)| {
                let version = "0.1.0".to_owned();
                Frame::Ready(Ready { metadata, address, rkey, host, version, pid: 1 })
            }),
            text().prop_map(|text| Frame::Refused { text }),
            (text(), any::<(u16, u64, u32)>()).prop_map(|(metadata, (connections, address, rkey))| {
                Frame::Connect { metadata, connections, address, rkey }
            }),
            any::<(u64, u64, u64)>().prop_map(|(seed, start, length)| Frame::Fill { seed, start, length }),
            any::<(u64, u64)>().prop_map(|(start, length)| Frame::Clear { start, length }),
            (any::<u64>(), layout(), spans()).prop_map(|(seed, layout, spans)| Frame::Compare {
                seed,
                layout,
                spans
            }),
            any::<(u64, u64, u64)>().prop_map(|(pieces, wrong, first)| Frame::Compared(Compared {
                pieces,
                wrong,
                first
            })),
            any::<u64>().prop_map(|micros| Frame::UsageIs { micros }),
            (any::<(bool, u32, u16, u16)>(), layout()).prop_map(
                |((write, batch, depth, threads), layout)| {
                    Frame::Start(Load { write, layout, batch, depth, threads })
                }
            ),
            (any::<(u64, u64)>(), spans()).prop_map(|((transfers, micros), spans)| Frame::Ran {
                transfers,
                micros,
                spans
            }),
            any::<u64>().prop_map(|bytes| Frame::Raw { bytes }),
            prop_oneof![Just(Frame::Done), Just(Frame::Usage), Just(Frame::Ping), Just(Frame::Stop)],
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(frame in frame()) {
            prop_assert_eq!(decode(&encode(&frame).unwrap()), Ok(frame));
        }

        #[test]
        fn any_payload_is_a_frame_or_malformed(mut payload in vec(any::<u8>(), 0..300), kind in 0_u8..20) {
            if let Some(first) = payload.first_mut() {
                *first = kind;
            }
            match decode_payload(&payload) {
                Ok(frame) => prop_assert!(encode(&frame).is_ok()),
                Err(error) => prop_assert!(error.to_string().starts_with("malformed frame: "), "{}", error),
            }
        }

        #[test]
        fn a_cut_or_lengthened_frame_is_malformed(frame in frame(), cut in any::<prop::sample::Index>()) {
            let bytes = encode(&frame).unwrap();
            let payload = &bytes[HEADER..];
            prop_assert!(decode_payload(&payload[..cut.index(payload.len())]).is_err());
            prop_assert!(decode_payload(&[payload, &[0][..]].concat()).is_err());
        }

        #[test]
        fn headers_never_promise_more_than_allowed(header in any::<[u8; HEADER]>(), known in any::<bool>()) {
            let mut header = header;
            if known {
                header[..3].copy_from_slice(&[MAGIC[0], MAGIC[1], VERSION]);
            }
            if let Ok(length) = decode_header(header) {
                prop_assert!(length <= MAX_PAYLOAD);
            }
        }
    }

    #[test]
    fn limits() {
        let spans = vec![Span { first: u64::MAX, count: u64::MAX }; MAX_SPANS + 1];
        let full = Frame::Ran { transfers: u64::MAX, micros: u64::MAX, spans: spans[1..].to_vec() };
        assert!(encode(&full).is_ok(), "as many as are allowed fit");
        let many = Frame::Ran { transfers: 0, micros: 0, spans };
        assert_eq!(
            encode(&many),
            Err(FrameError::TooMany { what: "spans", count: MAX_SPANS + 1, most: MAX_SPANS })
        );
        let long = Frame::Refused { text: "x".repeat(MAX_TEXT + 1) };
        assert_eq!(encode(&long), Err(FrameError::LongText(MAX_TEXT + 1)));
        assert!(encode(&Frame::refused(&"\u{e9}".repeat(MAX_TEXT))).is_ok(), "a refusal is cut");
        assert_eq!(decode_header(*b"FB\x02\0\0\0\0"), Err(FrameError::Version { theirs: 2, ours: VERSION }));
        assert_eq!(decode_header(*b"F2\x03\0\0\0\0"), Err(FrameError::OtherCommand));
    }
}

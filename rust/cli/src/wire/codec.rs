//! Frames to bytes and back. Pure: no socket, no clock, no allocation beyond what a frame holds.
//!
//! A frame is an 8-byte header (`F2`, version, type, payload length as u32) and a payload of at most
//! [`MAX_PAYLOAD`] bytes; integers are little-endian, text is a u16 length and UTF-8.

use flagcx_p2p::RemoteRange;

use super::{Frame, MAX_SLOTS, MAX_TEXT};

/// Version of the stream; both sides must have the same.
pub(crate) const VERSION: u8 = 2;
/// Largest payload: a ring of [`MAX_SLOTS`] descriptors, and room for text.
pub(crate) const MAX_PAYLOAD: usize = 32 * 1024;
/// Bytes before the payload.
pub(crate) const HEADER: usize = 8;

const MAGIC: [u8; 2] = *b"F2";

/// Why bytes are not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("this is no flagcx-p2p control stream (the peer is something else)")]
    NotOurs,
    #[error(
        "the peer speaks version {0} of the control stream, this is version {VERSION}: use the same release"
    )]
    Version(u8),
    #[error("frame of unknown type {0}")]
    Type(u8),
    #[error("frame of {0} bytes, at most {MAX_PAYLOAD} are allowed")]
    TooLong(usize),
    #[error("malformed frame of type {0}")]
    Malformed(u8),
}

/// The bytes of `frame`. Text longer than [`MAX_TEXT`] is cut, slots beyond [`MAX_SLOTS`] are left out.
pub(crate) fn encode(frame: &Frame) -> Vec<u8> {
    let mut payload = Vec::new();
    let kind = match frame {
        Frame::Open { chunk, slots, nonce } => {
            payload.extend(chunk.to_le_bytes());
            payload.extend(slots.to_le_bytes());
            payload.extend(nonce);
            1
        }
        Frame::Ring { metadata, chunk, slots } => {
            put_text(&mut payload, metadata);
            payload.extend(chunk.to_le_bytes());
            let count = slots.len().min(MAX_SLOTS);
            payload.extend(u16::try_from(count).unwrap_or(0).to_le_bytes());
            slots.iter().take(count).for_each(|slot| put_descriptor(&mut payload, slot));
            2
        }
        Frame::Put { name, size, force } => {
            put_text(&mut payload, name);
            payload.extend(size.to_le_bytes());
            payload.push(u8::from(*force));
            3
        }
        Frame::Get { name } => {
            put_text(&mut payload, name);
            4
        }
        Frame::Ready { size } => {
            payload.extend(size.to_le_bytes());
            5
        }
        Frame::Filled { sequence, length } => {
            payload.extend(sequence.to_le_bytes());
            payload.extend(length.to_le_bytes());
            6
        }
        Frame::Credit { sequence } => {
            payload.extend(sequence.to_le_bytes());
            7
        }
        Frame::Finish { bytes, hash } => {
            payload.extend(bytes.to_le_bytes());
            payload.extend(hash);
            8
        }
        Frame::Refused { text } => {
            put_text(&mut payload, text);
            9
        }
        Frame::Alive => 10,
        Frame::AskUsage => 11,
        Frame::Usage { micros } => {
            payload.extend(micros.to_le_bytes());
            12
        }
        Frame::Challenge { nonce } => {
            payload.extend(nonce);
            13
        }
        Frame::Proof { proof } => {
            payload.extend(proof);
            14
        }
    };
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend(MAGIC);
    bytes.push(VERSION);
    bytes.push(kind);
    bytes.extend(u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(payload);
    bytes
}

/// Type and payload length of a header.
pub(crate) fn decode_header(header: &[u8; HEADER]) -> Result<(u8, usize), FrameError> {
    let &[m0, m1, version, kind, l0, l1, l2, l3] = header;
    if [m0, m1] != MAGIC {
        return Err(FrameError::NotOurs);
    }
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    if !(1..=14).contains(&kind) {
        return Err(FrameError::Type(kind));
    }
    let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
    if length > MAX_PAYLOAD {
        return Err(FrameError::TooLong(length));
    }
    Ok((kind, length))
}

/// The frame of type `kind` with this payload; all of the payload must be used.
pub(crate) fn decode_payload(kind: u8, payload: &[u8]) -> Result<Frame, FrameError> {
    let mut reader = Reader(payload);
    let frame = read_frame(kind, &mut reader).ok_or(FrameError::Malformed(kind))?;
    if reader.0.is_empty() { Ok(frame) } else { Err(FrameError::Malformed(kind)) }
}

fn read_frame(kind: u8, reader: &mut Reader<'_>) -> Option<Frame> {
    Some(match kind {
        1 => Frame::Open { chunk: reader.u32()?, slots: reader.u16()?, nonce: reader.array()? },
        2 => {
            let (metadata, chunk, count) = (reader.text()?, reader.u32()?, usize::from(reader.u16()?));
            if count > MAX_SLOTS {
                return None;
            }
            let slots = (0..count).map(|_| reader.descriptor()).collect::<Option<Vec<_>>>()?;
            Frame::Ring { metadata, chunk, slots }
        }
        3 => Frame::Put { name: reader.text()?, size: reader.u64()?, force: reader.flag()? },
        4 => Frame::Get { name: reader.text()? },
        5 => Frame::Ready { size: reader.u64()? },
        6 => Frame::Filled { sequence: reader.u64()?, length: reader.u32()? },
        7 => Frame::Credit { sequence: reader.u64()? },
        8 => Frame::Finish { bytes: reader.u64()?, hash: reader.array()? },
        9 => Frame::Refused { text: reader.text()? },
        10 => Frame::Alive,
        11 => Frame::AskUsage,
        12 => Frame::Usage { micros: reader.u64()? },
        13 => Frame::Challenge { nonce: reader.array()? },
        14 => Frame::Proof { proof: reader.array()? },
        _ => return None,
    })
}

fn put_text(payload: &mut Vec<u8>, text: &str) {
    let cut = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= MAX_TEXT).last();
    let bytes = text.as_bytes().get(..cut.unwrap_or(0)).unwrap_or_default();
    payload.extend(u16::try_from(bytes.len()).unwrap_or(0).to_le_bytes());
    payload.extend(bytes);
}

fn put_descriptor(payload: &mut Vec<u8>, slot: &RemoteRange) {
    payload.extend(slot.address.to_le_bytes());
    payload.extend(slot.size.to_le_bytes());
    payload.extend(slot.rkey.to_le_bytes());
}

/// What is left of a payload.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }
    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
    fn flag(&mut self) -> Option<bool> {
        match self.array()? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }
    fn text(&mut self) -> Option<String> {
        let length = usize::from(self.u16()?);
        if length > MAX_TEXT {
            return None;
        }
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }
    fn descriptor(&mut self) -> Option<RemoteRange> {
        Some(RemoteRange { address: self.u64()?, size: self.u32()?, rkey: self.u32()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(bytes: &[u8]) -> Result<Frame, FrameError> {
        let (header, payload) = bytes.split_first_chunk().ok_or(FrameError::NotOurs)?;
        let (kind, length) = decode_header(header)?;
        assert_eq!(length, payload.len());
        decode_payload(kind, payload)
    }

    fn descriptor() -> impl Strategy<Value = RemoteRange> {
        any::<(u64, u32, u32)>().prop_map(|(address, size, rkey)| RemoteRange { address, size, rkey })
    }

    fn frame() -> impl Strategy<Value = Frame> {
        let slots = proptest::collection::vec(descriptor(), 0..=8);
        prop_oneof![
            any::<(u32, u16, [u8; 16])>().prop_map(|(chunk, slots, nonce)| Frame::Open {
                chunk,
                slots,
                nonce
            }),
            (".{0,80}", any::<u32>(), slots).prop_map(|(metadata, chunk, slots)| Frame::Ring {
                metadata,
                chunk,
                slots
            }),
            (".{0,80}", any::<u64>(), any::<bool>()).prop_map(|(name, size, force)| Frame::Put {
                name,
                size,
                force
            }),
            ".{0,80}".prop_map(|name| Frame::Get { name }),
            any::<u64>().prop_map(|size| Frame::Ready { size }),
            any::<(u64, u32)>().prop_map(|(sequence, length)| Frame::Filled { sequence, length }),
            any::<u64>().prop_map(|sequence| Frame::Credit { sequence }),
            any::<(u64, [u8; 32])>().prop_map(|(bytes, hash)| Frame::Finish { bytes, hash }),
            ".{0,80}".prop_map(|text| Frame::Refused { text }),
            Just(Frame::Alive),
            Just(Frame::AskUsage),
            any::<u64>().prop_map(|micros| Frame::Usage { micros }),
            any::<[u8; 16]>().prop_map(|nonce| Frame::Challenge { nonce }),
            any::<[u8; 32]>().prop_map(|proof| Frame::Proof { proof }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(frame in frame()) {
            prop_assert_eq!(decode(&encode(&frame)), Ok(frame));
        }

        #[test]
        fn any_bytes_are_a_frame_or_an_error(kind: u8, payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(frame) = decode_payload(kind, &payload) {
                let bytes = encode(&frame);
                prop_assert_eq!(&bytes[HEADER..], &payload[..]);
            }
        }

        #[test]
        fn a_cut_or_longer_payload_is_malformed(frame in frame(), extra: u8) {
            let bytes = encode(&frame);
            let mut longer = bytes[HEADER..].to_vec();
            longer.push(extra);
            prop_assert_eq!(decode_payload(bytes[3], &longer), Err(FrameError::Malformed(bytes[3])));
            longer.truncate(longer.len() - 2.min(longer.len()));
            if bytes.len() > HEADER {
                prop_assert_eq!(decode_payload(bytes[3], &longer), Err(FrameError::Malformed(bytes[3])));
            }
        }

        #[test]
        fn headers_never_promise_more_than_allowed(header: [u8; HEADER]) {
            if let Ok((_, length)) = decode_header(&header) {
                prop_assert!(length <= MAX_PAYLOAD);
            }
        }
    }

    #[test]
    fn headers_that_are_refused() {
        let good = encode(&Frame::Alive);
        let with = |at: usize, value: u8| {
            let mut header: [u8; HEADER] = good[..HEADER].try_into().unwrap();
            header[at] = value;
            decode_header(&header)
        };
        assert_eq!(with(0, b'G'), Err(FrameError::NotOurs));
        assert_eq!(with(2, 9), Err(FrameError::Version(9)));
        assert_eq!(with(3, 0), Err(FrameError::Type(0)));
        assert_eq!(with(3, 15), Err(FrameError::Type(15)));
        assert_eq!(with(6, 1), Err(FrameError::TooLong(65536)));
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        let text = "é".repeat(MAX_TEXT);
        let Ok(Frame::Refused { text: cut }) = decode(&encode(&Frame::Refused { text: text.clone() })) else {
            panic!("not decoded");
        };
        assert_eq!(cut.len(), MAX_TEXT);
        assert!(text.starts_with(&cut));
    }

    #[test]
    fn the_largest_ring_fits() {
        let slots = vec![RemoteRange::default(); MAX_SLOTS];
        let bytes = encode(&Frame::Ring { metadata: "m".repeat(MAX_TEXT), chunk: 1, slots });
        assert!(bytes.len() - HEADER <= MAX_PAYLOAD);
        assert!(decode(&bytes).is_ok());
    }
}

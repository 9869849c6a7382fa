//! The frames of the TCP path: pure encoding and decoding, little-endian, fixed-size headers.
//!
//! Requests come in groups of up to [`GROUP`]: all headers first, then the payloads of the WRITEs among them, in order. The
//! answer to READs in a row is one frame with the bytes of all of them. So each side knows where the next bytes belong
//! before they are received, and the kernel puts them there: bytes of registered memory pass through no buffer of this
//! process: a copy by the process itself from or to unmapped memory would raise a signal.
//!
//! ```text
//! initiator ──▶ header 0 | header 1 | ... | header n | payload of 0 | payload of 2 | ...     (1 is a READ)
//! responder ──▶ Data(first READ, bytes) | bytes of READ 1 | bytes of READ 2 | ... | Done(last READ)
//! ```

use crate::fabric::{CompletionStatus, Opcode};

/// Size of a [`RequestHeader`].
pub(in super::super) const REQUEST_SIZE: usize = 32;
/// Size of a [`ResponseHeader`].
pub(in super::super) const RESPONSE_SIZE: usize = 16;
/// Largest payload of one frame.
pub(in super::super) const MAX_PAYLOAD: u32 = 1 << 30;

/// A READ of at most so many bytes is answered by one frame, unless READs of its group are answered before it in that frame.
pub(in super::super) const WHOLE_READ: u64 = 1 << 20;

/// Most requests of one group.
pub(in super::super) const GROUP: usize = 32;

const REQUEST_MAGIC: u8 = 0xF1;
const RESPONSE_MAGIC: u8 = 0xF2;

/// What comes from the wire is not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Malformed;

/// What an initiator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum FrameKind {
    /// Payload follows the group's headers.
    Write,
    /// The answer carries the payload.
    Read,
    /// All is answered, and the initiator closes the socket, for nothing has used it for long. It may come back by another one.
    Rest,
}

impl From<Opcode> for FrameKind {
    fn from(opcode: Opcode) -> Self {
        match opcode {
            Opcode::Write => Self::Write,
            Opcode::Read => Self::Read,
        }
    }
}

/// From the initiator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct RequestHeader {
    pub(in super::super) action: FrameKind,
    /// Headers of the same group that follow this one: less than [`GROUP`].
    pub(in super::super) following: u8,
    pub(in super::super) rkey: u32,
    pub(in super::super) remote_address: u64,
    pub(in super::super) length: u32,
    /// Counts the requests of a queue pair from 0.
    pub(in super::super) sequence: u64,
}

impl RequestHeader {
    /// The last frame of a socket that is closed at rest.
    pub(in super::super) const REST: Self =
        Self { action: FrameKind::Rest, following: 0, rkey: 0, remote_address: 0, length: 0, sequence: 0 };

    pub(in super::super) fn encode(&self) -> [u8; REQUEST_SIZE] {
        let action = match self.action {
            FrameKind::Write => 1,
            FrameKind::Read => 2,
            FrameKind::Rest => 3,
        };
        let words = [
            u64::from(REQUEST_MAGIC)
                | action << 8
                | u64::from(self.following) << 16
                | u64::from(self.rkey) << 32,
            self.remote_address,
            u64::from(self.length),
            self.sequence,
        ];
        let mut bytes = [0; REQUEST_SIZE];
        bytes.chunks_exact_mut(8).zip(words).for_each(|(to, word)| to.copy_from_slice(&word.to_le_bytes()));
        bytes
    }

    pub(in super::super) fn decode(bytes: &[u8; REQUEST_SIZE]) -> Result<Self, Malformed> {
        let word = |chunk: &[u8]| chunk.try_into().map_or(0, u64::from_le_bytes);
        let mut words = bytes.chunks_exact(8).map(word);
        let (Some(first), Some(remote_address), Some(length), Some(sequence)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Malformed);
        };
        let [magic, action, following, zero, ..] = first.to_le_bytes();
        if magic != REQUEST_MAGIC || zero != 0 || usize::from(following) >= GROUP {
            return Err(Malformed);
        }
        let action = match action {
            1 => FrameKind::Write,
            2 => FrameKind::Read,
            3 => FrameKind::Rest,
            _ => return Err(Malformed),
        };
        let length = u32::try_from(length).ok().filter(|length| *length <= MAX_PAYLOAD).ok_or(Malformed)?;
        Ok(Self { action, following, rkey: (first >> 32) as u32, remote_address, length, sequence })
    }
}

/// From the responder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum ResponseHeader {
    /// All requests up to and with this one are done.
    Done {
        /// The last of them.
        sequence: u64,
    },
    /// All requests before this one are done, and this one failed: nothing comes after it.
    Failed {
        /// The one that failed.
        sequence: u64,
        /// Why.
        status: CompletionStatus,
    },
    /// All requests before this READ are done, and the next `length` bytes of it and of the READs right behind it follow.
    /// They are done themselves when `Done` says so: bytes of memory that cannot be read are zeroes, and then `Failed`
    /// follows.
    Data {
        /// The first of the READs.
        sequence: u64,
        /// Bytes that follow.
        length: u32,
    },
}

impl ResponseHeader {
    pub(in super::super) fn encode(&self) -> [u8; RESPONSE_SIZE] {
        let (kind, status, length, sequence) = match *self {
            Self::Done { sequence } => (1, 0, 0, sequence),
            Self::Failed { sequence, status } => (2, status as u8, 0, sequence),
            Self::Data { sequence, length } => (3, 0, length, sequence),
        };
        let mut bytes = [0; RESPONSE_SIZE];
        let (head, tail) = bytes.split_at_mut(8);
        head.copy_from_slice(
            &(u64::from_le_bytes([RESPONSE_MAGIC, kind, status, 0, 0, 0, 0, 0]) | u64::from(length) << 32)
                .to_le_bytes(),
        );
        tail.copy_from_slice(&sequence.to_le_bytes());
        bytes
    }

    pub(in super::super) fn decode(bytes: &[u8; RESPONSE_SIZE]) -> Result<Self, Malformed> {
        let [magic, kind, status, zero, l0, l1, l2, l3, rest @ ..] = *bytes;
        let (length, sequence) = (u32::from_le_bytes([l0, l1, l2, l3]), u64::from_le_bytes(rest));
        if magic != RESPONSE_MAGIC || zero != 0 || length > MAX_PAYLOAD {
            return Err(Malformed);
        }
        match (kind, status, length) {
            (1, 0, 0) => Ok(Self::Done { sequence }),
            (2, 1.., 0) => {
                Ok(Self::Failed { sequence, status: CompletionStatus::from_code(u32::from(status)) })
            }
            (3, 0, _) => Ok(Self::Data { sequence, length }),
            _ => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The bytes of each frame, written from the format: x86-64 and ARM64 must both write these, and read them.
    #[test]
    fn frames_have_these_bytes() {
        let request = RequestHeader {
            action: FrameKind::Write,
            following: 2,
            rkey: 0x0102_0304,
            remote_address: 0x1122_3344_5566_7788,
            length: 0x000a_0b0c,
            sequence: 0x0d0e,
        };
        let bytes = [
            [0xf1, 1, 2, 0, 4, 3, 2, 1],
            [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11],
            [0x0c, 0x0b, 0x0a, 0, 0, 0, 0, 0],
            [0x0e, 0x0d, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(request.encode().as_slice(), bytes);
        assert_eq!(RequestHeader::decode(bytes.first_chunk().unwrap()), Ok(request));
        let response = ResponseHeader::Data { sequence: 0x0d0e, length: 0x000a_0b0c };
        let bytes = [0xf2, 3, 0, 0, 0x0c, 0x0b, 0x0a, 0, 0x0e, 0x0d, 0, 0, 0, 0, 0, 0];
        assert_eq!(response.encode(), bytes);
        assert_eq!(ResponseHeader::decode(&bytes), Ok(response));
    }

    proptest! {
        #[test]
        fn requests_survive_the_wire(
            action in prop::sample::select(vec![FrameKind::Write, FrameKind::Read, FrameKind::Rest]),
            following in 0..GROUP as u8,
            rkey: u32,
            remote_address: u64,
            length in 0..=MAX_PAYLOAD,
            sequence: u64,
        ) {
            let header = RequestHeader { action, following, rkey, remote_address, length, sequence };
            prop_assert_eq!(RequestHeader::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn responses_survive_the_wire(sequence: u64, length in 0..=MAX_PAYLOAD) {
            for header in [
                ResponseHeader::Done { sequence },
                ResponseHeader::Failed { sequence, status: CompletionStatus::RemoteAccess },
                ResponseHeader::Data { sequence, length },
            ] {
                prop_assert_eq!(ResponseHeader::decode(&header.encode()), Ok(header));
            }
        }

        #[test]
        fn whatever_decodes_encodes_to_the_same_bytes(bytes: [u8; REQUEST_SIZE], head in 0..4_u8, following: u8) {
            let mut bytes = bytes;
            bytes[..4].copy_from_slice(&[REQUEST_MAGIC, head, following, 0]);
            if let Ok(header) = RequestHeader::decode(&bytes) {
                prop_assert_eq!(header.encode(), bytes);
            }
            let mut bytes = *bytes.first_chunk::<RESPONSE_SIZE>().unwrap();
            bytes[0] = RESPONSE_MAGIC;
            if let Ok(ResponseHeader::Data { sequence, length }) = ResponseHeader::decode(&bytes) {
                prop_assert_eq!(ResponseHeader::Data { sequence, length }.encode(), bytes);
            }
        }
    }

    #[test]
    fn too_long_a_payload_or_group_is_no_frame() {
        let header = RequestHeader {
            action: FrameKind::Write,
            following: 0,
            rkey: 1,
            remote_address: 2,
            length: MAX_PAYLOAD + 1,
            sequence: 0,
        };
        assert_eq!(RequestHeader::decode(&header.encode()), Err(Malformed));
        let header = RequestHeader { following: GROUP as u8, length: 1, ..header };
        assert_eq!(RequestHeader::decode(&header.encode()), Err(Malformed));
        assert_eq!(RequestHeader::decode(&[0; REQUEST_SIZE]), Err(Malformed));
        assert_eq!(ResponseHeader::decode(&[0; RESPONSE_SIZE]), Err(Malformed));
    }
}

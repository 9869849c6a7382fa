//! The messages on the Unix socket of a link: pure encoding and decoding, little-endian, all of one size.

use super::hello::VERSION;

/// Size of each message.
pub(super) const REQUEST_SIZE: usize = 24;

/// Asks for the tables; comes with the descriptor of the asker's pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkRequest {
    /// From the hello's answer: proves that the asker has been welcomed.
    pub(super) token: u64,
}

/// Comes with the descriptors of the region table, of the queue pair table, and of the table of regions that are shown to
/// the asker alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkReply {
    /// Where the queue pair table lies in the memory of its owner.
    pub(super) entries: u64,
}

/// Asks for the region of a key that is not in the region table. The next one may be sent once this one is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyRequest {
    pub(super) key: u32,
}

/// Whether the region is in the asker's own table now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyReply {
    pub(super) key: u32,
    /// False: no region has this key.
    pub(super) granted: bool,
}

impl LinkRequest {
    pub(super) fn encode(self) -> [u8; REQUEST_SIZE] {
        message(TABLES, self.token)
    }

    pub(super) fn decode(bytes: &[u8; REQUEST_SIZE]) -> Option<Self> {
        Some(Self { token: number(TABLES, bytes)? })
    }
}

impl LinkReply {
    pub(super) fn encode(self) -> [u8; REQUEST_SIZE] {
        message(TABLES, self.entries)
    }

    pub(super) fn decode(bytes: &[u8; REQUEST_SIZE]) -> Option<Self> {
        Some(Self { entries: number(TABLES, bytes)? })
    }
}

impl KeyRequest {
    pub(super) fn encode(self) -> [u8; REQUEST_SIZE] {
        message(KEY, self.key.into())
    }

    pub(super) fn decode(bytes: &[u8; REQUEST_SIZE]) -> Option<Self> {
        Some(Self { key: number(KEY, bytes)?.try_into().ok()? })
    }
}

impl KeyReply {
    pub(super) fn encode(self) -> [u8; REQUEST_SIZE] {
        message(KEY, u64::from(self.key) | u64::from(self.granted) << 32)
    }

    pub(super) fn decode(bytes: &[u8; REQUEST_SIZE]) -> Option<Self> {
        let number = number(KEY, bytes)?;
        (number >> 33 == 0).then_some(Self { key: number as u32, granted: number >> 32 == 1 })
    }
}

const TABLES: [u8; 8] = *b"FCXP2Ptb";
const KEY: [u8; 8] = *b"FCXP2Pky";

fn message(kind: [u8; 8], number: u64) -> [u8; REQUEST_SIZE] {
    let mut bytes = [0; REQUEST_SIZE];
    let words = [kind, u64::from(VERSION).to_le_bytes(), number.to_le_bytes()];
    bytes.chunks_exact_mut(8).zip(words).for_each(|(to, word)| to.copy_from_slice(&word));
    bytes
}

fn number(kind: [u8; 8], bytes: &[u8; REQUEST_SIZE]) -> Option<u64> {
    let (_, number) = bytes.split_last_chunk::<8>()?;
    let number = u64::from_le_bytes(*number);
    (*bytes == message(kind, number)).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn messages_survive_the_wire_and_are_not_taken_for_another_kind(number: u64, key: u32, granted: bool) {
            let request = LinkRequest { token: number };
            prop_assert_eq!(LinkRequest::decode(&request.encode()), Some(request));
            let reply = LinkReply { entries: number };
            prop_assert_eq!(LinkReply::decode(&reply.encode()), Some(reply));
            let asked = KeyRequest { key };
            prop_assert_eq!(KeyRequest::decode(&asked.encode()), Some(asked));
            let answer = KeyReply { key, granted };
            prop_assert_eq!(KeyReply::decode(&answer.encode()), Some(answer));
            prop_assert_eq!(KeyRequest::decode(&request.encode()), None);
            prop_assert_eq!(LinkRequest::decode(&asked.encode()), None);
        }

        #[test]
        fn other_bytes_are_refused(bytes: [u8; REQUEST_SIZE], number in 1_u64 << 33..) {
            prop_assert_eq!(LinkRequest::decode(&bytes), None);
            prop_assert_eq!(KeyRequest::decode(&bytes), None);
            prop_assert_eq!(KeyReply::decode(&message(KEY, number)), None);
            prop_assert_eq!(KeyRequest::decode(&message(KEY, number)), None);
        }
    }
}

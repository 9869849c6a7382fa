//! The messages on the Unix socket of a link: pure encoding and decoding, little-endian, all of one size.

use super::hello::VERSION;

/// Size of each message.
pub(super) const REQUEST_SIZE: usize = 32;

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

/// Asks for the file of the region of a key, which is in one of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileRequest {
    pub(super) key: u32,
}

/// Says what may be mapped. With [`FileAnswer::Own`] and [`FileAnswer::Foreign`] comes the descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileReply {
    pub(super) key: u32,
    pub(super) answer: FileAnswer,
}

/// What the owner of a region says of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileAnswer {
    /// No region that the asker sees has the key, or it has no file.
    None,
    /// Its owner made it, sealed it and keeps its pages reserved; where the region begins in it.
    Own(u64),
    /// Another one.
    Foreign(u64),
    /// The owner has no descriptor for it now, or may not make one: the errno, from 1 to [`LAST_ERRNO`].
    Refused(i32),
}

impl LinkRequest {
    pub(super) fn encode(self) -> [u8; REQUEST_SIZE] {
        message(TABLES, self.token, 0)
    }

    pub(super) fn decode(bytes: &[u8; REQUEST_SIZE]) -> Option<Self> {
        Some(Self { token: number(TABLES, bytes)? })
    }
}

impl LinkReply {
    pub(super) fn encode(self) -> [u8; REQUEST_SIZE] {
        message(TABLES, self.entries, 0)
    }

    pub(super) fn decode(bytes: &[u8; REQUEST_SIZE]) -> Option<Self> {
        Some(Self { entries: number(TABLES, bytes)? })
    }
}

impl KeyRequest {
    pub(super) fn encode(self) -> [u8; REQUEST_SIZE] {
        message(KEY, self.key.into(), 0)
    }

    pub(super) fn decode(bytes: &[u8; REQUEST_SIZE]) -> Option<Self> {
        Some(Self { key: number(KEY, bytes)?.try_into().ok()? })
    }
}

impl KeyReply {
    pub(super) fn encode(self) -> [u8; REQUEST_SIZE] {
        message(KEY, u64::from(self.key) | u64::from(self.granted) << 32, 0)
    }

    pub(super) fn decode(bytes: &[u8; REQUEST_SIZE]) -> Option<Self> {
        let number = number(KEY, bytes)?;
        (number >> 33 == 0).then_some(Self { key: number as u32, granted: number >> 32 == 1 })
    }
}

impl FileRequest {
    pub(super) fn encode(self) -> [u8; REQUEST_SIZE] {
        message(FILE, self.key.into(), 0)
    }

    pub(super) fn decode(bytes: &[u8; REQUEST_SIZE]) -> Option<Self> {
        Some(Self { key: number(FILE, bytes)?.try_into().ok()? })
    }
}

impl FileReply {
    pub(super) fn encode(self) -> [u8; REQUEST_SIZE] {
        let (kind, number) = match self.answer {
            FileAnswer::None => (0, 0),
            FileAnswer::Own(offset) => (1, offset),
            FileAnswer::Foreign(offset) => (2, offset),
            FileAnswer::Refused(errno) => (3, u64::from(errno.unsigned_abs())),
        };
        message(FILE, u64::from(self.key) | kind << 32, number)
    }

    pub(super) fn decode(bytes: &[u8; REQUEST_SIZE]) -> Option<Self> {
        let (number, second) = numbers(FILE, bytes)?;
        let answer = match (number >> 32, second) {
            (0, 0) => FileAnswer::None,
            (1, offset) => FileAnswer::Own(offset),
            (2, offset) => FileAnswer::Foreign(offset),
            (3, errno @ 1..=LAST_ERRNO) => FileAnswer::Refused(errno as i32),
            _ => return None,
        };
        Some(Self { key: number as u32, answer })
    }
}

/// What happened to a queue pair of the sender's; not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueuePairNotice {
    pub(super) event: QueuePairEvent,
    /// The sender's queue pair, and the receiver's that it is connected to.
    pub(super) sender: u32,
    pub(super) target: u32,
}

/// What a [`QueuePairNotice`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueuePairEvent {
    /// It is in ERROR or destroyed.
    Gone,
    /// It found, in the shared tables, that it had no access: the receiver's queue pair goes to ERROR.
    Violation,
}

impl QueuePairNotice {
    pub(super) fn encode(self) -> [u8; REQUEST_SIZE] {
        let event = match self.event {
            QueuePairEvent::Gone => 1,
            QueuePairEvent::Violation => 2,
        };
        message(NOTICE, u64::from(self.sender) | u64::from(self.target) << 32, event)
    }

    pub(super) fn decode(bytes: &[u8; REQUEST_SIZE]) -> Option<Self> {
        let (number, event) = numbers(NOTICE, bytes)?;
        let event = match event {
            1 => QueuePairEvent::Gone,
            2 => QueuePairEvent::Violation,
            _ => return None,
        };
        Some(Self { event, sender: number as u32, target: (number >> 32) as u32 })
    }
}

/// `MAX_ERRNO` of Linux: no call reports a larger one, and rustix takes none.
const LAST_ERRNO: u64 = 4095;

const NOTICE: [u8; 8] = *b"FCXP2Pqp";
const TABLES: [u8; 8] = *b"FCXP2Ptb";
const KEY: [u8; 8] = *b"FCXP2Pky";
const FILE: [u8; 8] = *b"FCXP2Pfi";

fn message(kind: [u8; 8], number: u64, second: u64) -> [u8; REQUEST_SIZE] {
    let mut bytes = [0; REQUEST_SIZE];
    let words = [kind, u64::from(VERSION).to_le_bytes(), number.to_le_bytes(), second.to_le_bytes()];
    bytes.chunks_exact_mut(8).zip(words).for_each(|(to, word)| to.copy_from_slice(&word));
    bytes
}

/// The number of a message that has one.
fn number(kind: [u8; 8], bytes: &[u8; REQUEST_SIZE]) -> Option<u64> {
    numbers(kind, bytes).filter(|(_, second)| *second == 0).map(|(number, _)| number)
}

fn numbers(kind: [u8; 8], bytes: &[u8; REQUEST_SIZE]) -> Option<(u64, u64)> {
    let (rest, second) = bytes.split_last_chunk::<8>()?;
    let (_, number) = rest.split_last_chunk::<8>()?;
    let (number, second) = (u64::from_le_bytes(*number), u64::from_le_bytes(*second));
    (*bytes == message(kind, number, second)).then_some((number, second))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn messages_survive_the_wire_and_are_not_taken_for_another_kind(number: u64, key: u32, granted: bool, errno in 1_i32..=4095) {
            let request = LinkRequest { token: number };
            prop_assert_eq!(LinkRequest::decode(&request.encode()), Some(request));
            let reply = LinkReply { entries: number };
            prop_assert_eq!(LinkReply::decode(&reply.encode()), Some(reply));
            let asked = KeyRequest { key };
            prop_assert_eq!(KeyRequest::decode(&asked.encode()), Some(asked));
            let answer = KeyReply { key, granted };
            prop_assert_eq!(KeyReply::decode(&answer.encode()), Some(answer));
            for event in [QueuePairEvent::Gone, QueuePairEvent::Violation] {
                let notice = QueuePairNotice { event, sender: key, target: number as u32 };
                prop_assert_eq!(QueuePairNotice::decode(&notice.encode()), Some(notice));
                prop_assert_eq!(KeyRequest::decode(&notice.encode()), None);
            }
            prop_assert_eq!(QueuePairNotice::decode(&asked.encode()), None);
            let file = FileRequest { key };
            prop_assert_eq!(FileRequest::decode(&file.encode()), Some(file));
            let answers =
                [FileAnswer::None, FileAnswer::Own(number), FileAnswer::Foreign(number), FileAnswer::Refused(errno)];
            for answer in answers {
                let reply = FileReply { key, answer };
                prop_assert_eq!(FileReply::decode(&reply.encode()), Some(reply));
                prop_assert_eq!(KeyReply::decode(&reply.encode()), None);
            }
            prop_assert_eq!(KeyRequest::decode(&file.encode()), None);
            prop_assert_eq!(KeyRequest::decode(&request.encode()), None);
            prop_assert_eq!(LinkRequest::decode(&asked.encode()), None);
        }

        #[test]
        fn other_bytes_are_refused(bytes: [u8; REQUEST_SIZE], number in 1_u64 << 33..) {
            prop_assert_eq!(LinkRequest::decode(&bytes), None);
            prop_assert_eq!(KeyRequest::decode(&bytes), None);
            prop_assert_eq!(FileReply::decode(&bytes), None);
            prop_assert_eq!(KeyReply::decode(&message(KEY, number, 0)), None);
            prop_assert_eq!(KeyRequest::decode(&message(KEY, number, 0)), None);
            prop_assert_eq!(KeyRequest::decode(&message(KEY, number >> 33, 1)), None);
            prop_assert_eq!(FileReply::decode(&message(FILE, 4 << 32 | number >> 33, number)), None);
        }

        #[test]
        fn what_is_taken_for_an_errno_is_one(errno in prop_oneof![0_u64..5000, any::<u32>().prop_map(u64::from), any::<u64>()]) {
            let reply = FileReply::decode(&message(FILE, 3 << 32, errno));
            let expected = FileReply { key: 0, answer: FileAnswer::Refused(errno as i32) };
            prop_assert_eq!(reply, (1..=4095).contains(&errno).then_some(expected));
            if let Some(FileReply { answer: FileAnswer::Refused(errno), .. }) = reply {
                prop_assert_eq!(rustix::io::Errno::from_raw_os_error(errno).raw_os_error(), errno);
            }
        }
    }
}

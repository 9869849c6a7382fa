//! Formats of a notification socket after the preamble.
//!
//! * A message of the original engine: 520 bytes, `0xDEADDEAD`, a reserved word, name and text.
//! * A large message: `LARGE_MAGIC`, length, name, and `length` bytes. Only towards engines that announced a limit.
//! * With a key, first of all: `HELLO_MAGIC` and the sender's random number. The receiver answers with its own, the sender
//!   with its proof, the receiver with its own: the exchange of `auth`. Otherwise the receiver sends nothing.
//! * Before the first message, once: `OWNER_MAGIC`, the pid of the sender's process and its fingerprint (u64). Only towards
//!   engines with [`super::Features::LIVENESS`].
//! * After that, once: `LINK_MAGIC`, 0 or, if the link has had another socket before, 1, and 16 random bytes that name the link. The
//!   receiver answers how many messages of the link it has delivered (u64), and sends that number again while it receives. Only
//!   between engines with [`super::Features::REDIAL`].

use super::WireError;
use super::fields::{Fields, Record};
use crate::auth::NONCE_SIZE;
use crate::process::ProcessIdentity;

/// First word of a message.
pub const MESSAGE_MAGIC: u32 = 0xdead_dead;
/// First word of a large message.
pub const LARGE_MAGIC: u32 = 0xdead_b16d;
/// First word of a hello.
pub const HELLO_MAGIC: u32 = 0xdead_4e10;

/// First word of an owner message, which names the sender's process.
pub const OWNER_MAGIC: u32 = 0xdead_9d0d;

/// First word of a link message, which names what the socket belongs to.
pub const LINK_MAGIC: u32 = 0xdead_11c5;
/// Bytes of the name of a link.
pub const LINK_SIZE: usize = 16;
/// Bytes of a number of delivered messages.
pub const COUNT_SIZE: usize = 8;

/// Bytes of the words in front of every kind.
pub const HEADER_SIZE: usize = 8;
/// Bytes of a process's fingerprint.
pub const FINGERPRINT_SIZE: usize = 8;
/// Bytes of a name, and of the text of a message.
pub const NAME_SIZE: usize = 256;
/// Bytes of a message on the wire.
pub const MESSAGE_SIZE: usize = HEADER_SIZE + 2 * NAME_SIZE;

/// The kind of the next message on the socket, from its first 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Name and text follow.
    Message,
    /// A name and so many bytes follow.
    Large(u32),
    /// The sender's random number follows.
    Hello,
    /// The socket belongs to the process with this pid; its fingerprint follows.
    Owner(u32),
    /// The socket is of the link of the name that follows; true if it is not the first.
    Link(bool),
}

impl Header {
    /// Writes the header.
    pub fn encode(self) -> [u8; HEADER_SIZE] {
        let (magic, word) = match self {
            Self::Message => (MESSAGE_MAGIC, 0),
            Self::Large(length) => (LARGE_MAGIC, length),
            Self::Hello => (HELLO_MAGIC, 0),
            Self::Owner(pid) => (OWNER_MAGIC, pid),
            Self::Link(again) => (LINK_MAGIC, u32::from(again)),
        };
        Record::new().put(0, &magic.to_le_bytes()).put(4, &word.to_le_bytes()).0
    }

    /// Decodes a header. The reserved word of a message is ignored.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let fields = Fields::new("notification", bytes, HEADER_SIZE)?;
        match fields.u32(0)? {
            MESSAGE_MAGIC => Ok(Self::Message),
            LARGE_MAGIC => Ok(Self::Large(fields.u32(4)?)),
            HELLO_MAGIC => Ok(Self::Hello),
            OWNER_MAGIC => Ok(Self::Owner(fields.u32(4)?)),
            LINK_MAGIC => Ok(Self::Link(fields.u32(4)? != 0)),
            other => {
                let problem = format!("magic {other:#010x}, expected {MESSAGE_MAGIC:#010x}");
                Err(WireError::new("notification", problem))
            }
        }
    }

    /// Bytes that follow.
    pub fn body_size(self) -> usize {
        match self {
            Self::Message => 2 * NAME_SIZE,
            Self::Large(length) => NAME_SIZE.saturating_add(length as usize),
            Self::Hello => NONCE_SIZE,
            Self::Owner(_) => FINGERPRINT_SIZE,
            Self::Link(_) => LINK_SIZE,
        }
    }
}

/// Encodes an owner message.
pub fn encode_owner(identity: ProcessIdentity) -> Vec<u8> {
    [&Header::Owner(identity.pid).encode()[..], &identity.fingerprint.to_le_bytes()].concat()
}

/// Encodes a link message.
pub fn encode_link(name: [u8; LINK_SIZE], again: bool) -> Vec<u8> {
    [&Header::Link(again).encode()[..], &name].concat()
}

/// Splits the body of a message into name and text.
pub fn decode_message(body: &[u8]) -> Result<([u8; NAME_SIZE], [u8; NAME_SIZE]), WireError> {
    let fields = Fields::new("notification", body, 2 * NAME_SIZE)?;
    Ok((fields.array(0)?, fields.array(NAME_SIZE)?))
}

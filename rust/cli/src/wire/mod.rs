//! The tool's own control stream: which file, which memory, which chunk is ready, how it ended.
//!
//! File bytes never travel here: they move one-sidedly through the engine. [`codec`] is pure, [`control`] puts it
//! on a socket.
//!
//! ```text
//!   client                                        server
//!   Open{chunk, slots, nonce}               ──▶
//!   [with a pre-shared key                  ◀──   Challenge{nonce}
//!    Proof{proof}                           ──▶   wrong: closes without another frame
//!                                           ◀──   Proof{proof}]
//!                                                 allocates its ring of registered chunks
//!                                           ◀──   Ring{metadata, chunk, slots}
//!   (engine connects to `metadata`)
//!   Put{name, size, force}                  ──▶   ◀── Ready{size} | Refused
//!     WRITE into slot n, Filled{n, length}  ──▶   copies out, Credit{n}, hashes, writes
//!     Finish{bytes, hash}                   ──▶   compares, syncs, renames, Finish{bytes, hash}
//!   Get{name}                               ──▶   ◀── Ready{size} | Refused
//!     READ from slot n, Credit{n}           ◀──   Filled{n, length}
//!     compares, syncs, renames              ◀──   Finish{bytes, hash}
//! ```
//!
//! Chunk `n` uses slot `n` modulo the number of slots, on both sides. Either side sends `KeepAlive` every few seconds,
//! so a peer that sends nothing is stopped, or the network between is down.

pub(crate) mod authenticate;
pub(crate) mod codec;
pub(crate) mod control;

use flagcx_p2p::RemoteRange;
use flagcx_p2p::internals::auth::{Nonce, Proof};
use serde::{Deserialize, Serialize};

/// Most slots that a ring may have.
pub(crate) const MAX_SLOTS: usize = 256;
/// Longest text in a frame, in bytes.
pub(crate) const MAX_TEXT: usize = 1024;
/// A blake3 hash.
pub(crate) type Hash = [u8; 32];

/// One message of the stream. The order of the variants and of their fields is the format on the wire: a change is a
/// new [`codec::VERSION`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Frame {
    /// Client: asks for a ring of about this shape. First frame of a stream.
    Open { chunk: u32, slots: u16, nonce: Nonce },
    /// Server: its engine listens at `metadata`; these are its slots, `chunk` bytes each.
    Ring { metadata: String, chunk: u32, slots: Vec<Slot> },
    /// Client: asks to store a file.
    Put { name: String, size: u64, force: bool },
    /// Client: asks for a file.
    Get { name: String },
    /// Server: the request is accepted; the file has this many bytes.
    Ready { size: u64 },
    /// The chunk `sequence` is in its slot, `length` bytes.
    Filled { sequence: u64, length: u32 },
    /// The slot of chunk `sequence` is free again.
    Credit { sequence: u64 },
    /// All chunks were sent (or stored): bytes and hash as computed by this side.
    Finish { bytes: u64, hash: Hash },
    /// The request failed, and why. Before `Ready` the stream goes on; later it ends.
    Refused { text: String },
    /// No content: this side runs.
    KeepAlive,
    /// Client: asks for the processor time that the server's process has used.
    UsageRequest,
    /// Server: that time, in microseconds.
    Usage { micros: u64 },
    /// Server: asks for a proof that the client knows the pre-shared key.
    Challenge { nonce: Nonce },
    /// Client, and then the server: that proof.
    Proof { proof: Proof },
}

impl Frame {
    /// A refusal; text longer than [`MAX_TEXT`] is cut.
    pub(crate) fn refused(text: &str) -> Self {
        let end = (0..=MAX_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        Self::Refused { text: text.get(..end).unwrap_or_default().to_owned() }
    }
}

/// A slot of the server's ring: a [`RemoteRange`] as it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Slot {
    pub(crate) address: u64,
    pub(crate) size: u32,
    pub(crate) rkey: u32,
}

impl From<RemoteRange> for Slot {
    fn from(range: RemoteRange) -> Self {
        Self { address: range.address, size: range.size, rkey: range.rkey }
    }
}

impl From<Slot> for RemoteRange {
    fn from(slot: Slot) -> Self {
        Self { address: slot.address, size: slot.size, rkey: slot.rkey }
    }
}

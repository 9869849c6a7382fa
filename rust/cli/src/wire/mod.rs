//! The tool's own control stream: which file, which memory, which chunk is ready, how it ended.
//!
//! File bytes never travel here: they move one-sidedly through the engine. [`codec`] is pure, in the form of
//! [`framing`], and [`control`] puts it on a socket.
//!
//! ```text
//!   client                                        server
//!   Open{nonce}                             ──▶
//!   [with a pre-shared key                  ◀──   Challenge{nonce}
//!    Proof{proof}                           ──▶   wrong: closes without another frame
//!                                           ◀──   Proof{proof}]
//!                                           ◀──   Opened
//!   List{folder}                            ──▶   ◀── Entries{..}, .., Listed{skipped} | Failed
//!   Allocate{chunk, slots}                  ──▶   allocates its ring of registered chunks
//!                                           ◀──   Ring{metadata, chunk, slots}
//!   (engine connects to `metadata`)
//!   Small{name, .., n, length, hash}        ──▶   WRITE into slot n went before; copies out, Credit{n}, hashes, compares
//!   Sync                                    ──▶   syncs, renames; per file, in order: Finish{bytes, hash} | Failed
//!   Put{name, size, force, resume, ..}      ──▶   ◀── Kept{bytes, hash} | Failed
//!     Start{offset}, WRITE into slot n, Filled{n, length}  ──▶   copies out, Credit{n}, hashes, writes
//!     Finish{bytes, hash} | Abort           ──▶   compares, syncs, renames, Finish{bytes, hash} | Failed
//!   Get{name, kept, hash}                   ──▶   ◀── Small{..} | Ready{size, offset, ..} | Failed
//!     READ from slot n, Credit{n}           ◀──   Filled{n, length}
//!     compares, syncs, renames              ◀──   Finish{bytes, hash} | Failed
//! ```
//!
//! Folders may be listed at any time, and files moved once there is a ring.
//! Small files ([`is_small`]) and requests to get files follow each other without waiting for an answer; answers come in the order
//! of the requests. Chunk `n` uses slot `n` modulo the number of slots, on both sides, and a small file a part of a slot
//! ([`Shape::small`]); the numbers of each direction count up over
//! all files of a session. Offsets of a resumed file are those of which both ends computed the same hash. Either side sends
//! `KeepAlive` every few seconds, so a peer that sends nothing is stopped, or the network between is down; and `Working` while it
//! hashes what is there already, for longer than that.

pub(crate) mod authenticate;
pub(crate) mod codec;
pub(crate) mod control;

use flagcx_p2p::RemoteRange;
use flagcx_p2p::internals::auth::{Nonce, Proof};
use serde::{Deserialize, Serialize};

use crate::framing;
use crate::ring::Shape;
use crate::store::{Attributes, Listed};

/// Most slots that a ring may have.
pub(crate) const MAX_SLOTS: usize = 256;
/// Most entries in a frame of a listing.
pub(crate) const MAX_ENTRIES: usize = 256;
/// Most requests to get a file that may be unanswered.
pub(crate) const MAX_GETS: usize = 256;
/// A blake3 hash.
pub(crate) type Hash = [u8; 32];

/// One message of the stream. The order of the variants and of their fields is the format on the wire: a change is a
/// new [`codec::VERSION`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Frame {
    /// Client: asks for a session. First frame of a stream.
    Open { nonce: Nonce },
    /// Server: its engine listens at `metadata`; these are its slots, `chunk` bytes each.
    Ring { metadata: String, chunk: u32, slots: Vec<Slot> },
    /// Client: asks to store a file of this size (`None`: known at its end), going on with a kept part of it if `resume`.
    Put { name: String, size: Option<u64>, force: bool, resume: bool, attributes: Attributes },
    /// Client: asks for a file, of which it has `kept` bytes with this hash.
    Get { name: String, kept: u64, hash: Hash },
    /// Server: the file to get has this many bytes; those before `offset` are the ones that the client has.
    Ready { size: u64, offset: u64, attributes: Attributes },
    /// The chunk `sequence` is in its slot, `length` bytes.
    Filled { sequence: u64, length: u32 },
    /// The slot of chunk `sequence` is free again.
    Credit { sequence: u64 },
    /// All chunks were sent (or stored): bytes and hash as computed by this side.
    Finish { bytes: u64, hash: Hash },
    /// The session ends, and why.
    Refused { text: String },
    /// No content: this side runs.
    KeepAlive,
    /// Server: asks for a proof that the client knows the pre-shared key.
    Challenge { nonce: Nonce },
    /// Client, and then the server: that proof.
    Proof { proof: Proof },
    /// A whole small file is in its part of a slot.
    Small(Small),
    /// Client: all small files sent so far are to be answered now.
    Sync,
    /// Server: a file to put is accepted; so many bytes of it are there already, with this hash.
    Kept { bytes: u64, hash: Hash },
    /// Client: the data begins at `offset`, which is 0 or the end of what was kept.
    Start { offset: u64 },
    /// Client: its request with this number, counted from 0 in a session, is not to be finished.
    Abort { request: u64 },
    /// Server: the answer to a request that failed, and why. The stream goes on.
    Failed { text: String },
    /// No content: this side hashes what it has of a file.
    Working,
    /// Client: asks for the names of all files in a folder and below; the served directory has the empty name.
    List { folder: String },
    /// Server: some of them.
    Entries { entries: Vec<Listed> },
    /// Server: those were all; so many entries are links, special files or have names that are not transferred.
    Listed { skipped: u64 },
    /// Server: the session is open.
    Opened,
    /// Client: asks for a ring of about this shape, once in a session.
    Allocate { chunk: u32, slots: u16 },
}

/// A small file, of which the content is in the small slot `sequence`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Small {
    pub(crate) name: String,
    pub(crate) force: bool,
    pub(crate) attributes: Attributes,
    pub(crate) sequence: u64,
    pub(crate) length: u32,
    pub(crate) hash: Hash,
}

/// Whether a file of this size is sent as [`Frame::Small`] over a ring of this shape.
pub(crate) fn is_small(size: Option<u64>, shape: Shape) -> bool {
    size.is_some_and(|size| size <= u64::from(shape.small().chunk))
}

impl Frame {
    /// A refusal; text longer than [`framing::MAX_TEXT`] is cut.
    pub(crate) fn refused(text: &str) -> Self {
        Self::Refused { text: framing::cut(text) }
    }

    /// The failure of one request; text longer than [`framing::MAX_TEXT`] is cut.
    pub(crate) fn failed(text: &str) -> Self {
        Self::Failed { text: framing::cut(text) }
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

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
//!                                           ◀──   Ring{metadata, chunk, descriptors}
//!   (engine connects to `metadata`)
//!   Put{name, size, force}                  ──▶   ◀── Ready{size} | Refused
//!     WRITE into slot n, Filled{n, length}  ──▶   copies out, Credit{n}, hashes, writes
//!     Finish{bytes, hash}                   ──▶   compares, syncs, renames, Finish{bytes, hash}
//!   Get{name}                               ──▶   ◀── Ready{size} | Refused
//!     READ from slot n, Credit{n}           ◀──   Filled{n, length}
//!     compares, syncs, renames              ◀──   Finish{bytes, hash}
//! ```
//!
//! Chunk `n` uses slot `n` modulo the number of slots, on both sides. Either side sends `Alive` every few seconds,
//! so silence means that a peer is stopped or cut off.

pub(crate) mod authenticate;
pub(crate) mod codec;
pub(crate) mod control;

use flagcx_p2p::RemoteRange;
use flagcx_p2p::internals::auth::{Nonce, Proof};

/// Most slots that a ring may have.
pub(crate) const MAX_SLOTS: usize = 256;
/// Longest text in a frame, in bytes.
pub(crate) const MAX_TEXT: usize = 1024;
/// A blake3 hash.
pub(crate) type Hash = [u8; 32];

/// What the two sides say to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Client: give me a ring of about this shape. First frame of a stream.
    Open { chunk: u32, slots: u16, nonce: Nonce },
    /// Server: my engine listens at `metadata`; these are my slots, `chunk` bytes each.
    Ring { metadata: String, chunk: u32, slots: Vec<RemoteRange> },
    /// Client: I want to store a file.
    Put { name: String, size: u64, force: bool },
    /// Client: I want to fetch a file.
    Get { name: String },
    /// Server: go ahead; the file has this many bytes.
    Ready { size: u64 },
    /// The chunk `sequence` lies in its slot, `length` bytes.
    Filled { sequence: u64, length: u32 },
    /// The slot of chunk `sequence` is free again.
    Credit { sequence: u64 },
    /// All of it was sent (or stored): bytes and hash as this side saw them.
    Finish { bytes: u64, hash: Hash },
    /// Cannot be done, and why. Before `Ready` the stream goes on; later it ends.
    Refused { text: String },
    /// Still here.
    Alive,
    /// Client: how much processor time has your process used?
    AskUsage,
    /// Server: this much, in microseconds.
    Usage { micros: u64 },
    /// Server: prove that you know the pre-shared key.
    Challenge { nonce: Nonce },
    /// Client, and then the server: this proves it.
    Proof { proof: Proof },
}

//! The control stream of a benchmark: which memory, what to write and to compare, how much processor time it took.
//!
//! The bytes that are measured move through the engine. Frames have the form of [`framing`].
//!
//! ```text
//!   client (bench run)                            server (bench serve)
//!   Open{nonce, path, pool}                 ──▶
//!   [with a pre-shared key                  ◀──   Challenge{nonce}
//!    Proof{proof}                           ──▶
//!                                           ◀──   Proof{proof}]
//!                                           ◀──   Ready{metadata, address, rkey, ...} | Refused{text}
//!   Connect{metadata, connections}          ──▶   ◀── Done      the server's own connections, for both directions at once
//!   Fill, Clear, Compare, Usage, Ping       ──▶   ◀── Done, Compared, UsageIs
//!   Start{load}                             ──▶   ◀── Done      the server transfers as well, until Stop
//!   Stop                                    ──▶   ◀── Ran{...}
//!   Raw{bytes}, and so many bytes           ──▶   ◀── Done      what a socket carries without an engine
//! ```

mod codec;
mod stream;

use flagcx_p2p::internals::auth::{Nonce, Proof};
use serde::{Deserialize, Serialize};

use super::layout::LayoutSpec;
use super::path::Path;
use super::pattern::{Compared, Span};
use crate::error::Result;
use crate::framing;

#[cfg(any(test, fuzzing))]
pub(crate) use codec::fuzz_frames;
pub(crate) use codec::{MAGIC, MAX_SPANS};
pub(crate) use stream::{ANSWER_TIMEOUT, Stream, StreamError, nonce, unexpected};

/// One message. The order of the variants and of their fields is the format on the wire: a change is a new
/// version in the module `codec`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Frame {
    /// Client, first frame: asks for `pool` bytes of registered memory, and for an engine that uses `path`.
    Open { nonce: Nonce, path: Path, pool: u64 },
    /// Server: asks for a proof that the client knows the pre-shared key.
    Challenge { nonce: Nonce },
    /// Client, and then the server: that proof.
    Proof { proof: Proof },
    /// Server: its engine, its pool, and what it is.
    Ready(Ready),
    /// Either: why the last request failed, or why the stream ends.
    Refused { text: String },
    /// Server: the last request is done.
    Done,
    /// Client: asks for connections to its own engine.
    Connect { metadata: String, connections: u16, address: u64, rkey: u32 },
    /// Client: asks for the pattern of `seed` in a part of the pool.
    Fill { seed: u64, start: u64, length: u64 },
    /// Client: asks for zeros there.
    Clear { start: u64, length: u64 },
    /// Client: asks for a comparison of what arrived with the pattern of `seed`.
    Compare { seed: u64, layout: LayoutSpec, spans: Vec<Span> },
    /// Server: what it found.
    Compared(Compared),
    /// Client: asks for the processor time that the server's process has used.
    Usage,
    /// Server: that time, in microseconds.
    UsageIs { micros: u64 },
    /// Client: asks for an answer, whatever else goes on.
    Ping,
    /// Client: asks the server to transfer over its own connections, until `Stop`.
    Start(Load),
    /// Client: that is enough.
    Stop,
    /// Server: what its own transfers were.
    Ran { transfers: u64, micros: u64, spans: Vec<Span> },
    /// Client: this many bytes without frames follow.
    Raw { bytes: u64 },
}

/// What a server is, and its pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// Its engine's address.
    pub(crate) metadata: String,
    /// First byte of its pool, and the key.
    pub(crate) address: u64,
    pub(crate) rkey: u32,
    /// Its host's name and its release.
    pub(crate) host: String,
    pub(crate) version: String,
    /// Its process.
    pub(crate) pid: u32,
}

/// The server's own transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Load {
    /// WRITE, else READ.
    pub(crate) write: bool,
    pub(crate) layout: LayoutSpec,
    pub(crate) batch: u32,
    pub(crate) depth: u16,
    pub(crate) threads: u16,
}

/// The bytes by which a client asks for a session, to see what listens.
pub(crate) fn question() -> Result<Vec<u8>> {
    Ok(codec::encode(&Frame::Open { nonce: nonce()?, path: Path::Auto, pool: 0 })
        .map_err(StreamError::from)?)
}

impl Frame {
    /// A refusal; text longer than [`framing::MAX_TEXT`] is cut.
    pub(crate) fn refused(text: &str) -> Self {
        Self::Refused { text: framing::cut(text) }
    }
}

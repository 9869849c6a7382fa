//! Transfers that have not ended for long.

use std::fmt;
use std::time::Duration;

/// Which way the bytes of a transfer go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// RDMA WRITE: to the peer.
    Write,
    /// RDMA READ: from the peer.
    Read,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Write => "write",
            Self::Read => "read",
        })
    }
}

/// A transfer that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowTransfer {
    /// Its id, as the call that started it answered; 0 while that call has not returned.
    pub id: u64,
    /// Its peer, `ip:port` of the control listener.
    pub peer: String,
    /// READ or WRITE.
    pub opcode: Direction,
    /// How its bytes travel: `rdma`, `in-process`, `shared`, `cross-memory`, `tcp` or `gpu`; `none` if no lane has it yet.
    pub path: &'static str,
    /// Bytes of its parts that have not ended.
    pub bytes: u64,
    /// The lanes with these parts, by their index in the connection.
    pub lanes: Vec<u32>,
    /// Work requests of these parts.
    pub pieces: u64,
    /// How many of these requests are done.
    pub pieces_done: u64,
    /// How long it has been unfinished, to some milliseconds.
    pub age: Duration,
}

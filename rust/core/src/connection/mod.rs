//! The way to one peer: lanes, the peer's region table, locality.

use std::sync::Arc;
use std::time::Duration;

use crate::fabric::{Opcode, PathKind};
use crate::transfer::{Iov, RdmaDesc, Status, SubmitError, TransferId};

/// A connection to one peer. Symmetric: both ends may start transfers.
#[derive(Debug)]
pub struct Connection {
    _private: (),
}

/// What is known of a connection, for operators and the extension API.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// The peer's control address, `ip:port`.
    pub peer: String,
    /// How bytes travel.
    pub path: PathKind,
    /// Lanes agreed at the handshake.
    pub lanes: usize,
    /// Lanes in working order now.
    pub healthy_lanes: usize,
    /// Whether the peer is on this host.
    pub local: bool,
    /// Whether the peer runs this engine (false: the original).
    pub ours: bool,
    /// The peer's GPU index.
    pub gpu_index: i32,
}

impl Connection {
    /// Starts a transfer. Waits for room in the queue at most until the transfer deadline.
    pub fn submit(&self, _opcode: Opcode, _pieces: &[Iov]) -> Result<TransferId, SubmitError> {
        Err(SubmitError::Empty)
    }

    /// The same, answering [`SubmitError::WouldBlock`] instead of waiting.
    pub fn try_submit(&self, _opcode: Opcode, _pieces: &[Iov]) -> Result<TransferId, SubmitError> {
        Err(SubmitError::Empty)
    }

    /// The state of a transfer; helps progress if it is pending. The first `Ended` answer releases the id, whose
    /// outcome stays readable for the engine's last 4,096 transfers.
    pub fn status(&self, _id: TransferId) -> Status {
        Status::Unknown
    }

    /// Waits until a transfer ended, at most `timeout`: `Pending` if it has not.
    pub fn wait(&self, _id: TransferId, _timeout: Duration) -> Status {
        Status::Unknown
    }

    /// Ends a transfer early: when this returns true it has ended (as cancelled unless it was done before) and
    /// nothing touches its memory. False for an unknown id.
    pub fn cancel(&self, _id: TransferId) -> bool {
        false
    }

    /// One pass over many ids: `ended[i]` is set when `ids[i]` has ended. Answers how many have.
    pub fn test_batch(&self, _ids: &[TransferId], _ended: &mut [Option<Status>]) -> usize {
        0
    }

    /// A descriptor for a range of the peer's memory, from the peer's region table; `None` if no region holds it.
    pub fn describe_remote(&self, _address: u64, _size: u32) -> Option<RdmaDesc> {
        None
    }

    /// What is known of this connection.
    pub fn info(&self) -> ConnectionInfo {
        ConnectionInfo {
            peer: String::new(),
            path: PathKind::None,
            lanes: 0,
            healthy_lanes: 0,
            local: false,
            ours: false,
            gpu_index: 0,
        }
    }

    /// Whether the peer is on this host.
    pub fn is_local(&self) -> bool {
        false
    }

    /// Sends a notification message of 512 bytes (name and text); answers the bytes handed over.
    pub fn send_notification(
        &self,
        _message: &crate::notify::Message,
    ) -> Result<usize, crate::notify::NotifyError> {
        Err(crate::notify::NotifyError::NoChannel)
    }

    /// Ends every transfer in flight (drained first), closes queue pairs and sockets. Idempotent; also done when the
    /// last reference is dropped.
    pub fn close(self: &Arc<Self>) {}
}

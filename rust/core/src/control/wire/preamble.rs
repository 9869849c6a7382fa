//! The 12 bytes that a connector sends first on every socket.

use super::WireError;
use super::fields::{Fields, Record};

/// First 8 bytes of every socket, also part of the listen handle.
pub const MAGIC: u64 = 0x564a_b9f2_fc4b_9d6c;
/// Bytes of the preamble.
pub const PREAMBLE_SIZE: usize = 12;

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketKind {
    /// The handshake.
    Bootstrap = 1,
    /// Notifications, one way.
    Notifications = 2,
    /// The exchange of lanes; between engines of this kind it stays as control channel.
    Lanes = 4,
    /// A control channel that is made anew, between engines of this kind: see [`resume`](crate::control::resume).
    Resume = 8,
}

impl SocketKind {
    /// The preamble of such a socket.
    pub fn encode(self) -> [u8; PREAMBLE_SIZE] {
        Record::new().put(0, &MAGIC.to_le_bytes()).put(8, &(self as i32).to_le_bytes()).0
    }

    /// Reads a preamble. The inner error says that the magic was right and the kind was not one of ours: another program
    /// speaks this protocol, but something else was expected.
    pub fn decode(bytes: &[u8]) -> Result<Result<Self, i32>, WireError> {
        let fields = Fields::new("socket preamble", bytes, PREAMBLE_SIZE)?;
        let magic = fields.u64(0)?;
        if magic == MAGIC.swap_bytes() {
            return Err(WireError::byte_order("socket preamble"));
        }
        if magic != MAGIC {
            return Err(WireError::new(
                "socket preamble",
                format!("magic {magic:#018x}, expected {MAGIC:#018x}"),
            ));
        }
        Ok(match fields.i32(8)? {
            1 => Ok(Self::Bootstrap),
            2 => Ok(Self::Notifications),
            4 => Ok(Self::Lanes),
            8 => Ok(Self::Resume),
            other => Err(other),
        })
    }
}

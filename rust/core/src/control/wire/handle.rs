//! The listen handle: where the lane socket of an engine listens. 128 bytes on the bootstrap socket; the raw adaptor
//! functions use its first 40 only and leave the rest unwritten.

use std::net::SocketAddr;

use super::address::{decode_address, encode_address};
use super::fields::{Fields, Record};
use super::{Features, MAGIC, WireError};

/// Bytes on the wire.
pub const HANDLE_SIZE: usize = 128;
/// Bytes that a raw `listen` writes.
pub const RAW_HANDLE_SIZE: usize = 40;

/// A listen handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    /// Where the lane socket listens.
    pub address: SocketAddr,
    /// The engine's features; `None` for an original one.
    pub features: Option<Features>,
}

impl Handle {
    /// Writes the handle.
    pub fn encode(&self) -> [u8; HANDLE_SIZE] {
        let record = Record::new().put(0, &Self::encode_raw(&self.address));
        match &self.features {
            Some(features) => record.put(RAW_HANDLE_SIZE, &features.encode()).0,
            None => record.0,
        }
    }

    /// Writes what a raw `listen` announces.
    pub fn encode_raw(address: &SocketAddr) -> [u8; RAW_HANDLE_SIZE] {
        Record::new().put(0, &encode_address(address)).put(32, &MAGIC.to_le_bytes()).0
    }

    /// Reads a handle of the bootstrap socket.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let address = Self::decode_raw(bytes)?;
        Ok(Self { address, features: bytes.get(RAW_HANDLE_SIZE..).and_then(Features::decode) })
    }

    /// Decodes the handle of a raw `listen`: bytes after the 40th are ignored.
    pub fn decode_raw(bytes: &[u8]) -> Result<SocketAddr, WireError> {
        let fields = Fields::new("listen handle", bytes, RAW_HANDLE_SIZE)?;
        let magic = fields.u64(32)?;
        if magic == MAGIC.swap_bytes() {
            return Err(WireError::byte_order("listen handle"));
        }
        if magic != MAGIC {
            return Err(WireError::new(
                "listen handle",
                format!("magic {magic:#018x}, expected {MAGIC:#018x}"),
            ));
        }
        decode_address(bytes)
    }
}

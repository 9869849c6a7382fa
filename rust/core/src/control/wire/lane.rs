//! The 40-byte record of one lane: what the peer's queue pair needs to reach ours.
//!
//! The original engine leaves bytes 4..8 and 36..40 zero and never reads them. This engine announces there how many
//! READs it can have in flight: `F P initiator responder`, and the complement of these four bytes as a check.

use super::WireError;
use super::fields::{Fields, Record};
use crate::fabric::QpAddress;

/// Bytes of the record.
pub const LANE_RECORD_SIZE: usize = 40;
/// Lanes that a connection may have.
pub const MAX_LANES: u32 = 8;

const MARK: [u8; 2] = *b"FP";

/// READs and atomics that a side may have outstanding as initiator, and accepts as responder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneCapabilities {
    /// May have outstanding.
    pub rd_atomic_initiator: u8,
    /// Accepts.
    pub rd_atomic_responder: u8,
}

impl LaneCapabilities {
    /// The capabilities of an original engine, which announces none.
    pub const ORIGINAL: Self = Self { rd_atomic_initiator: 1, rd_atomic_responder: 1 };
}

/// The record of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneRecord {
    /// Where the queue pair is.
    pub address: QpAddress,
    /// Its capabilities; `None` from an original engine.
    pub capabilities: Option<LaneCapabilities>,
}

impl LaneRecord {
    /// Writes the record.
    pub fn encode(&self) -> [u8; LANE_RECORD_SIZE] {
        let address = &self.address;
        let record = Record::new()
            .put(0, &address.qpn.to_le_bytes())
            .put(8, &address.gid)
            .put(24, &[address.port, address.link_layer])
            .put(28, &address.lid.to_le_bytes())
            .put(32, &i32::from(address.mtu).to_le_bytes());
        match self.capabilities {
            Some(capabilities) => {
                let pad = pad(capabilities);
                record.put(4, &pad).put(36, &pad.map(|byte| !byte)).0
            }
            None => record.0,
        }
    }

    /// Decodes the record. The caller checks link layer and numbers.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let fields = Fields::new("lane record", bytes, LANE_RECORD_SIZE)?;
        let mtu = fields.i32(32)?;
        let address = QpAddress {
            qpn: fields.u32(0)?,
            gid: fields.array(8)?,
            port: fields.byte(24)?,
            link_layer: fields.byte(25)?,
            lid: fields.u32(28)?,
            mtu: u8::try_from(mtu).ok().filter(|mtu| (1..=5).contains(mtu)).ok_or_else(|| {
                WireError::new("lane record", format!("path MTU code {mtu}, expected 1 to 5"))
            })?,
        };
        Ok(Self { address, capabilities: decode_pads(fields.array(4)?, fields.array(36)?) })
    }
}

fn pad(capabilities: LaneCapabilities) -> [u8; 4] {
    let [first, second] = MARK;
    [first, second, capabilities.rd_atomic_initiator, capabilities.rd_atomic_responder]
}

fn decode_pads(front: [u8; 4], back: [u8; 4]) -> Option<LaneCapabilities> {
    let [first, second, rd_atomic_initiator, rd_atomic_responder] = front;
    let marked = [first, second] == MARK && back == front.map(|byte| !byte);
    marked.then_some(LaneCapabilities { rd_atomic_initiator, rd_atomic_responder })
}

//! The registered memory that file bytes pass through: one buffer, cut into slots.

use std::fmt;
use std::sync::Arc;

use flagcx_p2p::{Engine, Iov, RegisteredBuffer, RemoteRange};

use crate::error::{CliError, Result, While};
use crate::output::units;
use crate::wire::MAX_SLOTS;

/// Smallest and largest chunk.
pub(crate) const CHUNK: std::ops::RangeInclusive<u32> = 4096..=64 << 20;
/// Bytes of the largest ring.
pub(crate) const LARGEST: u64 = MAX_SLOTS as u64 * (64 << 20);

/// The layout of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Bytes of a slot.
    pub(crate) chunk: u32,
    /// Number of slots, which is the number of chunks in flight.
    pub(crate) slots: u16,
}

impl Shape {
    /// This shape within the limits: chunk within limits, and at most `limit` bytes altogether.
    pub(crate) fn fitted(self, limit: u64) -> Self {
        let most = u32::try_from(limit).unwrap_or(u32::MAX).clamp(*CHUNK.start(), *CHUNK.end());
        let chunk = self.chunk.clamp(*CHUNK.start(), most);
        let room = usize::try_from(limit / u64::from(chunk)).unwrap_or(MAX_SLOTS).clamp(1, MAX_SLOTS);
        let slots = usize::from(self.slots).clamp(1, room);
        Self { chunk, slots: u16::try_from(slots).unwrap_or(1) }
    }

    fn slot_of(self, sequence: u64) -> usize {
        usize::try_from(sequence % u64::from(self.slots.max(1))).unwrap_or(0)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} slots of {}", self.slots, units::bytes(u64::from(self.chunk)))
    }
}

/// Registered slots. Chunk number `n` uses slot `n` modulo their number.
#[derive(Debug)]
pub(crate) struct Ring {
    engine: Arc<Engine>,
    buffer: RegisteredBuffer,
    shape: Shape,
}

impl Ring {
    /// Allocates and registers the memory.
    pub(crate) fn allocate(engine: &Arc<Engine>, shape: Shape) -> Result<Self> {
        let length = shape.chunk as usize * usize::from(shape.slots);
        let buffer = engine
            .allocate(length)
            .doing(|| format!("register {} for the ring of chunks", units::bytes(length as u64)))?;
        Ok(Self { engine: Arc::clone(engine), buffer, shape })
    }

    /// Its layout.
    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// Descriptors of all slots, for the peer.
    pub(crate) fn describe(&self) -> Result<Vec<RemoteRange>> {
        (0..u64::from(self.shape.slots))
            .map(|sequence| {
                let address = self.buffer.address() + self.offset(sequence) as u64;
                Ok(self.engine.describe(self.buffer.region(), address, u64::from(self.shape.chunk))?)
            })
            .collect()
    }

    /// Copies a chunk in.
    pub(crate) fn write(&self, sequence: u64, chunk: &[u8]) -> Result<()> {
        if chunk.len() <= self.shape.chunk as usize && self.buffer.write(self.offset(sequence), chunk) {
            Ok(())
        } else {
            Err(CliError::other(format!("chunk {sequence} does not fit its slot")))
        }
    }

    /// Copies a chunk out.
    pub(crate) fn read(&self, sequence: u64, chunk: &mut [u8]) -> Result<()> {
        if chunk.len() <= self.shape.chunk as usize && self.buffer.read(self.offset(sequence), chunk) {
            Ok(())
        } else {
            Err(CliError::other(format!("chunk {sequence} is larger than its slot")))
        }
    }

    /// The iov that moves chunk `sequence` between this ring's slot and the peer's.
    pub(crate) fn iov(&self, sequence: u64, length: u32, peer: &[RemoteRange]) -> Result<Iov> {
        let remote = peer
            .get(self.shape.slot_of(sequence))
            .ok_or_else(|| CliError::protocol("its ring has fewer slots than agreed"))?;
        Ok(Iov {
            local: self.buffer.address() + self.offset(sequence) as u64,
            length: u64::from(length),
            region: Some(self.buffer.region()),
            remote: *remote,
        })
    }

    /// An iov at `offset` of the whole ring, towards the same offset of the peer's first slot.
    pub(crate) fn iov_at(&self, offset: u32, length: u32, peer: &RemoteRange) -> Iov {
        let remote = RemoteRange {
            address: peer.address + u64::from(offset),
            size: peer.size.saturating_sub(offset),
            ..*peer
        };
        Iov {
            local: self.buffer.address() + u64::from(offset),
            length: u64::from(length),
            region: Some(self.buffer.region()),
            remote,
        }
    }

    fn offset(&self, sequence: u64) -> usize {
        self.shape.slot_of(sequence) * self.shape.chunk as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_made_to_fit() {
        let fit = |chunk, slots, limit| {
            let shape = Shape { chunk, slots }.fitted(limit);
            (shape.chunk, shape.slots)
        };
        assert_eq!(fit(4 << 20, 8, 64 << 20), (4 << 20, 8));
        assert_eq!(fit(4 << 20, 100, 64 << 20), (4 << 20, 16));
        assert_eq!(fit(u32::MAX, 8, 64 << 20), (64 << 20, 1));
        assert_eq!(fit(0, 0, 64 << 20), (4096, 1));
        assert_eq!(fit(1 << 20, 4, 0), (4096, 1));
        assert_eq!(fit(4096, u16::MAX, 64 << 20), (4096, 256));
    }

    #[test]
    fn chunks_go_round_the_slots() {
        let shape = Shape { chunk: 4096, slots: 3 };
        assert_eq!([0, 1, 2, 3, 7].map(|sequence| shape.slot_of(sequence)), [0, 1, 2, 0, 1]);
    }
}

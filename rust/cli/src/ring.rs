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

/// Largest small file, which takes no longer to move than a thread takes to start; and most of them in flight.
const SMALL: u32 = 512 << 10;
const MOST_SMALL: usize = 256;

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

    /// What of this shape `files` need: memory takes longer to make than small files to move.
    pub(crate) fn needed_for(self, files: Files) -> Self {
        let Files { count, largest } = files;
        let page = u64::from(*CHUNK.start());
        let whole = largest.clamp(1, u64::from(self.chunk).max(1)).next_multiple_of(page);
        let chunk = self.chunk.min(u32::try_from(whole).unwrap_or(u32::MAX));
        // Small files have a slot each; chunks of one larger file are in flight at a time.
        let slots = match largest {
            largest if largest <= u64::from(self.small().chunk) => {
                let room = u64::from(self.chunk) * u64::from(self.slots) / u64::from(chunk.max(1));
                count.clamp(1, room.min(MOST_SMALL as u64))
            }
            largest => largest.div_ceil(u64::from(chunk.max(1))).clamp(1, u64::from(self.slots)),
        };
        Self { chunk, slots: u16::try_from(slots).unwrap_or(self.slots) }
    }

    fn slot_of(self, sequence: u64) -> usize {
        usize::try_from(sequence % u64::from(self.slots.max(1))).unwrap_or(0)
    }

    /// The layout for small files: each slot is cut into as many as it holds, [`MOST_SMALL`] altogether at most.
    pub(crate) fn small(self) -> Self {
        let chunk = self.chunk.clamp(1, SMALL);
        let slots = usize::from(self.slots) * self.cuts();
        Self { chunk, slots: u16::try_from(slots.clamp(1, MOST_SMALL)).unwrap_or(1) }
    }

    /// Small slots in a slot.
    fn cuts(self) -> usize {
        (self.chunk / self.chunk.clamp(1, SMALL)).max(1) as usize
    }
}

/// What a ring is needed for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) count: u64,
    /// Bytes of the largest one.
    pub(crate) largest: u64,
}

impl FromIterator<u64> for Files {
    fn from_iter<I: IntoIterator<Item = u64>>(sizes: I) -> Self {
        sizes.into_iter().fold(Self::default(), |Self { count, largest }, size| Self {
            count: count + 1,
            largest: largest.max(size),
        })
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
    pub(crate) fn allocate(engine: &Arc<Engine>, shape: Shape) -> Result<Arc<Self>> {
        let length = shape.chunk as usize * usize::from(shape.slots);
        let buffer = engine
            .allocate(length)
            .doing(|| format!("register {} for the ring of chunks", units::bytes(length as u64)))?;
        Ok(Arc::new(Self { engine: Arc::clone(engine), buffer, shape }))
    }

    /// A ring without a peer.
    #[cfg(test)]
    pub(crate) fn for_test(shape: Shape) -> Arc<Self> {
        let config = crate::settings::config(None).unwrap();
        let own = std::net::Ipv4Addr::LOCALHOST.into();
        let options = crate::settings::engine_options_over(flagcx_p2p::PathKind::Tcp, &config, own).unwrap();
        Self::allocate(&Engine::open(config, options).unwrap(), shape).unwrap()
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

    /// Copies bytes of chunk `sequence` into its slot, from `start` on. False, and nothing is copied, if they do not fit.
    pub(crate) fn write(&self, sequence: u64, start: usize, bytes: &[u8]) -> bool {
        self.fits(start, bytes.len()) && self.buffer.write(self.offset(sequence) + start, bytes)
    }

    /// Copies bytes of chunk `sequence` out of its slot, from `start` on. False, and nothing is copied, if it has fewer.
    pub(crate) fn read(&self, sequence: u64, start: usize, bytes: &mut [u8]) -> bool {
        self.fits(start, bytes.len()) && self.buffer.read(self.offset(sequence) + start, bytes)
    }

    fn fits(&self, start: usize, length: usize) -> bool {
        let chunk = self.shape.chunk as usize;
        start <= chunk && length <= chunk - start
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

    fn offset(&self, sequence: u64) -> usize {
        self.shape.slot_of(sequence) * self.shape.chunk as usize
    }

    /// [`Ring::write`] for the small file `sequence`. Small files and chunks are not in the ring at the same time.
    pub(crate) fn write_small(&self, sequence: u64, start: usize, bytes: &[u8]) -> bool {
        self.fits_small(start, bytes.len()) && self.buffer.write(self.small_offset(sequence) + start, bytes)
    }

    /// [`Ring::read`] for the small file `sequence`, from its start on.
    pub(crate) fn read_small(&self, sequence: u64, bytes: &mut [u8]) -> bool {
        self.fits_small(0, bytes.len()) && self.buffer.read(self.small_offset(sequence), bytes)
    }

    /// [`Ring::iov`] for the small file `sequence`.
    pub(crate) fn small_iov(&self, sequence: u64, length: u32, peer: &[RemoteRange]) -> Result<Iov> {
        let small = self.shape.small().slot_of(sequence);
        let (slot, cut) = (small / self.shape.cuts(), small % self.shape.cuts());
        let within = u32::try_from(cut).unwrap_or(0) * self.shape.small().chunk;
        let remote =
            peer.get(slot).ok_or_else(|| CliError::protocol("its ring has fewer slots than agreed"))?;
        let remote = RemoteRange {
            address: remote.address + u64::from(within),
            size: remote.size.saturating_sub(within),
            ..*remote
        };
        Ok(Iov {
            local: self.buffer.address() + self.small_offset(sequence) as u64,
            length: u64::from(length),
            region: Some(self.buffer.region()),
            remote,
        })
    }

    fn fits_small(&self, start: usize, length: usize) -> bool {
        let chunk = self.shape.small().chunk as usize;
        start <= chunk && length <= chunk - start
    }

    fn small_offset(&self, sequence: u64) -> usize {
        let (small, cuts) = (self.shape.small(), self.shape.cuts());
        let index = small.slot_of(sequence);
        index / cuts * self.shape.chunk as usize + index % cuts * small.chunk as usize
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
    fn a_ring_is_no_larger_than_its_files_need() {
        let asked = Shape { chunk: 4 << 20, slots: 8 };
        for (sizes, chunk, slots) in [
            (vec![], 4096, 1),
            (vec![0], 4096, 1),
            (vec![4096; 1000], 4096, 256),
            (vec![4097; 10], 8192, 10),
            (vec![1, 512 << 10], 512 << 10, 2),
            (vec![512 << 10; 100], 512 << 10, 64),
            (vec![1 << 20, 3], 1 << 20, 1),
            (vec![9 << 20], 4 << 20, 3),
            (vec![1 << 40; 3], 4 << 20, 8),
        ] {
            let files: Files = sizes.iter().copied().collect();
            assert_eq!(asked.needed_for(files), Shape { chunk, slots }, "{files:?}");
        }
        let little = Shape { chunk: 4096, slots: 1 };
        assert_eq!(little.needed_for(Files { count: 1000, largest: 4096 }), little);
        assert_eq!(little.needed_for(Files { count: 1, largest: u64::MAX }), little);
    }

    #[test]
    fn chunks_go_round_the_slots() {
        let shape = Shape { chunk: 4096, slots: 3 };
        assert_eq!([0, 1, 2, 3, 7].map(|sequence| shape.slot_of(sequence)), [0, 1, 2, 0, 1]);
    }

    #[test]
    fn small_slots_lie_within_slots_and_apart() {
        for (chunk, slots, count) in
            [(4 << 20, 8, 64), (4096, 3, 3), (512 << 10, 1, 1), (1_000_000, 2, 2), (64 << 20, 256, 256)]
        {
            let small = Shape { chunk, slots }.small();
            assert_eq!(small.slots, count, "{chunk} x {slots}");
            assert!(small.chunk <= chunk && small.chunk <= SMALL);
        }
        let ring = Ring::for_test(Shape { chunk: 1_500_000, slots: 3 });
        let slots = [0; 3].map(|_| RemoteRange { address: 0, size: 1_500_000, ..RemoteRange::default() });
        let mut ends = 0;
        for sequence in 0..u64::from(ring.shape().small().slots) {
            let at = ring.small_offset(sequence);
            assert!(at >= ends, "{sequence}");
            ends = at + SMALL as usize;
            let iov = ring.small_iov(sequence, SMALL, &slots).unwrap();
            assert_eq!(iov.remote.address, at as u64 % 1_500_000);
            assert!(iov.remote.size >= SMALL && ends <= 4_500_000);
        }
    }
}

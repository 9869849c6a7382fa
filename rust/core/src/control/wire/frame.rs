//! The 8-byte header of the bootstrap socket's frames.

use super::WireError;
use super::fields::{Fields, Record};

/// Bytes of the header.
pub const FRAME_HEADER_SIZE: usize = 8;

/// The kinds of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Tag {
    /// [`super::ControlMeta`].
    Meta = 1,
    /// Number of regions, u32.
    RegionCount = 2,
    /// The regions.
    Regions = 3,
    /// [`super::Handle`].
    Handle = 4,
    /// Proof of the key, 32 bytes. This and what follows only between engines of this kind.
    Proof = 0x4650_0001,
    /// The handle for a peer that has proven the key, behind its seal of 32 bytes.
    SealedHandle = 0x4650_0002,
    /// [`super::Hello`]: the first frame of FlagCX's next version, "FXP1".
    Hello = 0x4658_5031,
    /// A request of the runtime control, or its answer, "FXT1"; see [`super::SliceSettings`].
    RuntimeControl = 0x4658_5431,
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Its kind.
    pub tag: i32,
    /// Bytes behind the header.
    pub size: i32,
}

impl FrameHeader {
    /// Writes the header.
    pub fn encode(self) -> [u8; FRAME_HEADER_SIZE] {
        Record::new().put(0, &self.tag.to_le_bytes()).put(4, &self.size.to_le_bytes()).0
    }

    /// Reads a header.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let fields = Fields::new("frame header", bytes, FRAME_HEADER_SIZE)?;
        Ok(Self { tag: fields.i32(0)?, size: fields.i32(4)? })
    }

    /// Whether it announces such a frame.
    pub fn has(self, tag: Tag) -> bool {
        self.tag == tag as i32
    }

    /// The size, if the frame is the one that is expected and no larger than `limit`.
    pub fn expect(self, tag: Tag, limit: usize) -> Result<usize, WireError> {
        let Self { tag: found, size } = self;
        if found == (tag as i32).swap_bytes() {
            return Err(WireError::byte_order("frame header"));
        }
        if found != tag as i32 {
            let problem = format!("tag {found}, expected {} ({tag:?})", tag as i32);
            return Err(WireError::new("frame header", problem));
        }
        usize::try_from(size).ok().filter(|size| *size <= limit).ok_or_else(|| {
            WireError::new("frame header", format!("{size} bytes of {tag:?}, expected 0 to {limit}"))
        })
    }
}

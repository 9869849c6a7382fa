//! The table of regions that an engine announces.

use super::WireError;
use super::fields::{Fields, Record};

/// Bytes of an entry.
pub const REGION_SIZE: usize = 24;
/// Regions that may be announced.
pub const MAX_REGIONS: usize = 65_536;

/// One region as announced to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionEntry {
    /// Start address, as the owner names it.
    pub base: u64,
    /// Bytes.
    pub size: u64,
    /// Remote key.
    pub rkey: u32,
    /// Its id in later changes, see [`super::AnnouncedRegion::id`]; 0 for a region that they do not name. Less than
    /// 2^29. In bytes that the original engine leaves unused, as are the three that follow.
    pub id: u32,
    /// Its peers may read it only.
    pub read_only: bool,
    /// What peers write to it is flushed, see [`super::AnnouncedRegion::GPU_FLUSH`]. Only for peers that have
    /// [`super::Features::GPU_FLUSH`]: for others it would be part of the id.
    pub gpu_flush: bool,
    /// See [`super::AnnouncedRegion::CONTINUES`].
    pub continues: bool,
}

impl RegionEntry {
    /// The first id that an entry does not hold.
    pub const ID_LIMIT: u32 = 1 << 29;

    fn encode(&self) -> [u8; REGION_SIZE] {
        let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
        let flags = flag(self.read_only, READ_ONLY)
            | flag(self.gpu_flush, GPU_FLUSH)
            | flag(self.continues, CONTINUES);
        Record::new()
            .put(0, &self.base.to_le_bytes())
            .put(8, &self.size.to_le_bytes())
            .put(16, &self.rkey.to_le_bytes())
            .put(20, &(self.id | flags).to_le_bytes())
            .0
    }

    fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let fields = Fields::new("region entry", bytes, REGION_SIZE)?;
        let last = fields.u32(20)?;
        Ok(Self {
            base: fields.u64(0)?,
            size: fields.u64(8)?,
            rkey: fields.u32(16)?,
            id: last % Self::ID_LIMIT,
            read_only: last & READ_ONLY != 0,
            continues: last & CONTINUES != 0,
            gpu_flush: last & GPU_FLUSH != 0,
        })
    }
}

/// Bits of the field that has the id.
const READ_ONLY: u32 = 1 << 31;
const GPU_FLUSH: u32 = 1 << 30;
const CONTINUES: u32 = 1 << 29;

/// Writes a table.
pub fn encode_regions(regions: &[RegionEntry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(regions.len() * REGION_SIZE);
    for region in regions {
        bytes.extend_from_slice(&region.encode());
    }
    bytes
}

/// Reads a table: whole entries, at most [`MAX_REGIONS`], none of them wrapping round the address space.
pub fn decode_regions(bytes: &[u8]) -> Result<Vec<RegionEntry>, WireError> {
    let count = bytes.len() / REGION_SIZE;
    if !bytes.len().is_multiple_of(REGION_SIZE) || count > MAX_REGIONS {
        let problem =
            format!("{} bytes, expected at most {MAX_REGIONS} entries of {REGION_SIZE} bytes", bytes.len());
        return Err(WireError::new("region table", problem));
    }
    let regions = bytes.chunks_exact(REGION_SIZE).map(RegionEntry::decode).collect::<Result<Vec<_>, _>>()?;
    match regions.iter().find(|region| region.base.checked_add(region.size).is_none()) {
        Some(RegionEntry { base, size, .. }) => {
            Err(WireError::new("region table", format!("{base:#x}+{size:#x} wraps round the address space")))
        }
        None => Ok(regions),
    }
}

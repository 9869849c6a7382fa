//! Changes of an engine's regions after the handshake: added, changed and removed.
//!
//! ```text
//! 0 version (u64)   8 change (u8)   9 rail (u8)   10 zero (2)   12 number of entries (u32)   16 entries
//! entry: 0 id (u64)   8 base (u64)   16 size (u64)   24 flags (u32)   28 bytes of attributes (u16)   30 attributes
//! attribute: 0 type (u16)   2 length (u16)   4 value
//! ```
//! Attribute 1 is the key on that rail (u32). Attribute 2, of a further rail, is the key of the same memory on the first one (u32). Types
//! that are not known are skipped, and so are unknown flags.
//!
//! The first rail is 0, and is all that a peer without [`Features::RAILS`](super::Features::RAILS) knows: it ignores that byte.

use super::WireError;
use super::fields::Fields;
use crate::rails::MAX_RAILS;

/// Bytes of payload that region changes may have.
pub const MAX_REGION_CHANGES: usize = 65_536;
/// Regions that an engine announces at most, and a peer keeps.
pub const MAX_ANNOUNCED: usize = 1 << 20;

const HEADER: usize = 16;
const ENTRY: usize = 30;
const ATTRIBUTE: usize = 4;
/// The key on the rail of the changes.
const KEY: u16 = 1;
/// Of a further rail: key of the same memory on the first one.
const FIRST_KEY: u16 = 2;
/// Bytes of an attribute that is a key.
const KEY_ATTRIBUTE: usize = ATTRIBUTE + size_of::<u32>();
/// Bytes of an entry of the first rail as this engine writes it.
const WRITTEN: usize = ENTRY + KEY_ATTRIBUTE;
/// Of a further rail.
const WRITTEN_OF_RAIL: usize = WRITTEN + KEY_ATTRIBUTE;

/// Changes of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionChanges {
    /// The version of the regions with these changes applied. [`Change::Reset`]: the version that the following
    /// changes lead to.
    pub version: u64,
    /// The rail of which these are the keys; 0 is the first. Each has versions of its own.
    pub rail: u8,
    /// The kind of change.
    pub change: Change,
    /// The regions; none with [`Change::Reset`].
    pub entries: Vec<AnnouncedRegion>,
}

/// Kinds of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// They are new.
    Add,
    /// They have other attributes than before.
    Update,
    /// They were deregistered.
    Remove,
    /// The peer has missed changes: all regions follow, from version 0 on. Regions that are not among them were
    /// deregistered.
    Reset,
}

/// A region of the peer, or one segment of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnouncedRegion {
    /// Names it among the regions of its engine; not 0, and never used again.
    pub id: u64,
    /// Start address, as the owner names it.
    pub base: u64,
    /// Bytes.
    pub size: u64,
    /// [`AnnouncedRegion::KEY_IN_USE`], [`AnnouncedRegion::READ_ONLY`], [`AnnouncedRegion::GPU_FLUSH`],
    /// [`AnnouncedRegion::CONTINUES`].
    pub flags: u32,
    /// Of a further rail: the key that the same memory has on the first rail, by which descriptors name it. Without one it is not
    /// reached over this rail.
    pub first_rkey: Option<u32>,
    /// Remote key, on the rail of the changes. A region without one cannot be reached by it.
    pub rkey: Option<u32>,
}

impl AnnouncedRegion {
    /// For a removed region: its key now belongs to other memory, which is not announced.
    pub const KEY_IN_USE: u32 = 1;
    /// Peers may only read it. For an engine that ignores the flag the fabric refuses the WRITE.
    pub const READ_ONLY: u32 = 2;
    /// A further segment of the region with the id before: it begins where that ends, with a key of its own. Without this
    /// flag it is a region of its own, which a transfer does not enter from the one before.
    pub const CONTINUES: u32 = 8;
    /// What peers write to it is there for its GPU only once the device of the region has read from that memory: a peer
    /// reads a byte behind its WRITEs, on the same queue pair, before it takes them for done.
    pub const GPU_FLUSH: u32 = 4;
}

impl RegionChanges {
    /// Entries of the first rail that one frame of this engine holds.
    pub const MAX_ENTRIES: usize = (MAX_REGION_CHANGES - HEADER) / WRITTEN;
    /// The same of a further rail.
    pub const MAX_ENTRIES_OF_RAIL: usize = (MAX_REGION_CHANGES - HEADER) / WRITTEN_OF_RAIL;

    /// Writes the changes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.entries.len() * WRITTEN);
        bytes.extend(self.version.to_le_bytes());
        bytes.extend([self.change.number(), self.rail, 0, 0]);
        bytes.extend((self.entries.len() as u32).to_le_bytes());
        for entry in &self.entries {
            entry.encode(&mut bytes);
        }
        bytes
    }

    /// Reads changes: as many entries as they say, none of which wraps round the address space.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let fields = Fields::new(WHAT, bytes, HEADER)?;
        let change = Change::of_number(fields.byte(8)?)?;
        let (rail, count) = (fields.byte(9)?, fields.u32(12)? as usize);
        if usize::from(rail) >= MAX_RAILS {
            return Err(error(format!("rail {rail}, expected 0 to {}", MAX_RAILS - 1)));
        }
        let mut rest = bytes.get(HEADER..).unwrap_or_default();
        // Checked before memory is allocated for them.
        if count > rest.len() / ENTRY || change == Change::Reset && count > 0 {
            return Err(error(format!("{count} entries in {} bytes of {change:?}", rest.len())));
        }
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let (entry, behind) = AnnouncedRegion::decode(rest)?;
            entries.push(entry);
            rest = behind;
        }
        match rest.len() {
            0 => Ok(Self { version: fields.u64(0)?, rail, change, entries }),
            left => Err(error(format!("{left} bytes behind the last of {count} entries"))),
        }
    }
}

impl Change {
    fn number(self) -> u8 {
        match self {
            Self::Add => 1,
            Self::Update => 2,
            Self::Remove => 3,
            Self::Reset => 4,
        }
    }

    fn of_number(number: u8) -> Result<Self, WireError> {
        match number {
            1 => Ok(Self::Add),
            2 => Ok(Self::Update),
            3 => Ok(Self::Remove),
            4 => Ok(Self::Reset),
            _ => Err(error(format!("change {number}, expected 1 to 4"))),
        }
    }
}

impl AnnouncedRegion {
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.id.to_le_bytes());
        bytes.extend(self.base.to_le_bytes());
        bytes.extend(self.size.to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        let keys = [(KEY, self.rkey), (FIRST_KEY, self.first_rkey)];
        let keys = || keys.iter().filter_map(|(kind, key)| Some((*kind, (*key)?)));
        bytes.extend(((keys().count() * KEY_ATTRIBUTE) as u16).to_le_bytes());
        for (kind, key) in keys() {
            bytes.extend(kind.to_le_bytes());
            bytes.extend((size_of::<u32>() as u16).to_le_bytes());
            bytes.extend(key.to_le_bytes());
        }
    }

    /// The entry at the start of `bytes`, and what is behind it.
    fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), WireError> {
        let fields = Fields::new(WHAT, bytes, ENTRY)?;
        let (id, base, size) = (fields.u64(0)?, fields.u64(8)?, fields.u64(16)?);
        if id == 0 {
            return Err(error("region 0, which never exists"));
        }
        if base.checked_add(size).is_none() {
            return Err(error(format!("{base:#x}+{size:#x} wraps round the address space")));
        }
        let length = usize::from(fields.u16(28)?);
        let (attributes, behind) = bytes
            .get(ENTRY..)
            .and_then(|rest| rest.split_at_checked(length))
            .ok_or_else(|| error("ends within the attributes of a region"))?;
        Ok((
            Self {
                id,
                base,
                size,
                flags: fields.u32(24)?,
                rkey: key_of(KEY, attributes)?,
                first_rkey: key_of(FIRST_KEY, attributes)?,
            },
            behind,
        ))
    }
}

/// The key of this kind among the attributes of a region.
fn key_of(wanted: u16, mut attributes: &[u8]) -> Result<Option<u32>, WireError> {
    let mut key = None;
    while !attributes.is_empty() {
        let fields = Fields::new("attribute of a region", attributes, ATTRIBUTE)?;
        let (kind, length) = (fields.u16(0)?, usize::from(fields.u16(2)?));
        let value = attributes.get(ATTRIBUTE..).and_then(|rest| rest.split_at_checked(length));
        let (value, behind) = value.ok_or_else(|| error("ends within an attribute of a region"))?;
        if kind == wanted && key.is_none() {
            let value =
                value.try_into().map_err(|_| error(format!("a key of {length} bytes, expected 4")))?;
            key = Some(u32::from_le_bytes(value));
        }
        attributes = behind;
    }
    Ok(key)
}

fn error(problem: impl Into<String>) -> WireError {
    WireError::new(WHAT, problem)
}

const WHAT: &str = "region changes";

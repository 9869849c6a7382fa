//! The features of an engine of this kind, in the bytes of the listen handle that the original leaves unused.
//!
//! ```text
//! 0 magic (8)   8 version (u16)   10 payload length (u16)   12 CRC-32C of bytes 8..12 and the payload   16 payload
//! payload: 0 bits (u32)   4 largest notification (u32)   8 incarnation (u64)   16 process (u64)   24 nonce (16)
//!          40 host (u64)   48 pid (u32)   52 fingerprint of the process (u64)
//! ```
//! Earlier versions end before the host, or before the pid. Later versions may lengthen the payload; known fields
//! keep their offsets.

use super::fields::{Fields, Record};
use crate::process::ProcessIdentity;

/// Bytes of the handle that features may take.
pub const FEATURES_SIZE: usize = 88;
/// Version of the protocol that this engine speaks.
pub const PROTOCOL_VERSION: u16 = 1;

const MAGIC: [u8; 8] = *b"fcx-p2p\x01";
const HEADER: usize = 16;
const PAYLOAD: usize = 60;
/// Length of the payload without the process's identity.
const PAYLOAD_WITH_HOST: usize = 48;
/// Length of the payload without the host.
const SHORTEST_PAYLOAD: usize = 40;

/// The features of an engine of this kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Feature bits: [`Features::CHANNEL`], [`Features::REBUILD`], [`Features::AUTH`], [`Features::ADVERTISED`],
    /// [`Features::REGIONS`], [`Features::LIVENESS`], [`Features::GPU_FLUSH`], [`Features::SEGMENTS`],
    /// [`Features::NEEDS_GPU_FLUSH`], [`Features::RAILS`], [`Features::REDIAL`], [`Features::OTHER_PAIRS`],
    /// [`Features::LANES_ON_USE`].
    pub bits: u32,
    /// Largest notification taken in one frame, in bytes; 0 for the original's 512 only.
    pub max_notification: u32,
    /// Random per engine: an engine that was started again has another one.
    pub incarnation: u64,
    /// Random per process: equal on both ends only within one process.
    pub process: u64,
    /// Random per session and side.
    pub nonce: [u8; 16],
    /// The same in all processes of one network namespace of a running kernel; 0 if it is not known.
    pub host: u64,
    /// The process's identity, for peers on the same host.
    pub identity: ProcessIdentity,
}

impl Features {
    /// The lane socket stays open as a control channel.
    pub const CHANNEL: u32 = 1;
    /// Failed lanes can be rebuilt over that channel.
    pub const REBUILD: u32 = 2;
    /// A key is set: both sides must prove it.
    pub const AUTH: u32 = 4;
    /// The address in the handle is that of a forwarder in front of the engine.
    pub const ADVERTISED: u32 = 8;
    /// Changes of regions are announced over that channel, on request too.
    pub const REGIONS: u32 = 16;
    /// Pings are answered on that channel, and a notification socket may name its process.
    pub const LIVENESS: u32 = 32;
    /// WRITEs to regions that are marked so are flushed, see [`AnnouncedRegion::GPU_FLUSH`](super::AnnouncedRegion::GPU_FLUSH).
    pub const GPU_FLUSH: u32 = 64;
    /// Its process has GPUs, or may have, that need WRITEs to be flushed: memory of a key that the peer does not know may be theirs,
    /// and its announcement under way.
    pub const NEEDS_GPU_FLUSH: u32 = 256;
    /// Entries of the region table may say that they continue the one before: others would take that flag for a bit of the id.
    pub const SEGMENTS: u32 = 128;

    /// The connection may get further rails: the two ends name their NICs to each other on the control channel, and changes of regions may
    /// be of one rail. Only beside [`Features::CHANNEL`], [`Features::REBUILD`] and [`Features::REGIONS`], see [`Features::has_rails`].
    pub const RAILS: u32 = 512;

    /// The control channel can be made anew over another address: its frames are counted and acknowledged, and the end that has accepted
    /// the connection says where it can be dialled. So are the notifications, on their socket. Only beside [`Features::CHANNEL`] and
    /// [`Features::REBUILD`], see [`Features::has_redial`].
    pub const REDIAL: u32 = 2048;

    /// Where a rail is lost, other pairs of NICs take over, the NICs of the first rail among them. So connections have rails also where one
    /// of the ends has a single NIC, and no [`Features::RAILS`]: see [`Features::has_other_pairs`].
    pub const OTHER_PAIRS: u32 = 4096;

    /// Of a further rail the first lane is made with it, and the others once either end uses it; the end that has accepted the connection says
    /// so by Broken. With others all lanes are made at once.
    pub const LANES_ON_USE: u32 = 8192;

    /// Whether the channel with that peer can be made anew, if this engine offers it too.
    pub fn has_redial(&self) -> bool {
        self.has(Self::REDIAL | Self::CHANNEL | Self::REBUILD)
    }

    /// Whether a connection with that peer may get further rails, if this engine offers them too.
    pub fn has_rails(&self) -> bool {
        self.has(Self::RAILS | Self::CHANNEL | Self::REBUILD | Self::REGIONS)
    }

    /// Whether other pairs may take over on a connection with that peer, if this engine offers that too.
    pub fn has_other_pairs(&self) -> bool {
        self.has(Self::OTHER_PAIRS | Self::CHANNEL | Self::REBUILD | Self::REGIONS)
    }

    /// Whether all of `bits` are set.
    pub fn has(&self, bits: u32) -> bool {
        self.bits & bits == bits
    }

    /// The version of the protocol that these bytes were written by; `None` where [`Features::decode`] finds nothing.
    pub fn version(bytes: &[u8]) -> Option<u16> {
        Self::decode(bytes)?;
        Fields::new("features", bytes, HEADER).ok()?.u16(8).ok()
    }

    /// Writes the features.
    pub fn encode(&self) -> [u8; FEATURES_SIZE] {
        let record = Record::<FEATURES_SIZE>::new()
            .put(0, &MAGIC)
            .put(8, &PROTOCOL_VERSION.to_le_bytes())
            .put(10, &(PAYLOAD as u16).to_le_bytes())
            .put(HEADER, &self.bits.to_le_bytes())
            .put(HEADER + 4, &self.max_notification.to_le_bytes())
            .put(HEADER + 8, &self.incarnation.to_le_bytes())
            .put(HEADER + 16, &self.process.to_le_bytes())
            .put(HEADER + 24, &self.nonce)
            .put(HEADER + 40, &self.host.to_le_bytes())
            .put(HEADER + 48, &self.identity.pid.to_le_bytes())
            .put(HEADER + 52, &self.identity.fingerprint.to_le_bytes());
        let checksum = checksum(&record.0, PAYLOAD).unwrap_or_default();
        record.put(12, &checksum.to_le_bytes()).0
    }

    /// Decodes features. `None` for anything else, in particular for the bytes of an original engine.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let fields = Fields::new("features", bytes, HEADER + PAYLOAD).ok()?;
        let version = fields.u16(8).ok()?;
        let length = usize::from(fields.u16(10).ok()?);
        let known = fields.array(0).ok()? == MAGIC && version >= 1 && length >= SHORTEST_PAYLOAD;
        if !known || fields.u32(12).ok()? != checksum(bytes, length)? {
            return None;
        }
        let identity = match length >= PAYLOAD {
            true => ProcessIdentity {
                pid: fields.u32(HEADER + 48).ok()?,
                fingerprint: fields.u64(HEADER + 52).ok()?,
            },
            false => ProcessIdentity::default(),
        };
        Some(Self {
            bits: fields.u32(HEADER).ok()?,
            max_notification: fields.u32(HEADER + 4).ok()?,
            incarnation: fields.u64(HEADER + 8).ok()?,
            process: fields.u64(HEADER + 16).ok()?,
            nonce: fields.array(HEADER + 24).ok()?,
            host: if length >= PAYLOAD_WITH_HOST { fields.u64(HEADER + 40).ok()? } else { 0 },
            identity,
        })
    }
}

/// Checksum of version, length and a payload of `length` bytes; `None` when the payload does not fit.
fn checksum(bytes: &[u8], length: usize) -> Option<u32> {
    let header = crc32c::crc32c(bytes.get(8..12)?);
    Some(crc32c::crc32c_append(header, bytes.get(HEADER..HEADER.checked_add(length)?)?))
}

//! Byte formats.

/// One region as announced to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionEntry {
    /// Start address in the owner's address space.
    pub base: u64,
    /// Bytes.
    pub size: u64,
    /// Remote key.
    pub rkey: u32,
}

/// What an engine of this kind says about itself in the bytes that the original engine ignores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Feature bits: [`Features::CHANNEL`], [`Features::REBUILD`], [`Features::AUTH`].
    pub bits: u32,
    /// Random per engine: a restarted peer has another one.
    pub incarnation: u64,
    /// Random per process: tells "same process" for certain.
    pub process: u64,
    /// Largest notification taken in one frame, 0 for the original's 512 bytes only.
    pub max_notification: u32,
    /// Random per session.
    pub nonce: [u8; 16],
}
impl Features {
    /// The lane socket stays open as a control channel.
    pub const CHANNEL: u32 = 1;
    /// Failed lanes can be rebuilt over the channel.
    pub const REBUILD: u32 = 2;
    /// A key is set: the sides prove it to each other.
    pub const AUTH: u32 = 4;
}

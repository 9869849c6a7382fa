//! A range of a peer's memory, as a transfer names it.

/// A range of a peer's memory: what a descriptor says, without its reserved part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoteRange {
    /// Remote address.
    pub address: u64,
    /// Bytes from there on.
    pub size: u32,
    /// Remote key.
    pub rkey: u32,
}

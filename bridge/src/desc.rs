//! The 64-byte descriptor of a remote range, as C++ callers exchange it.

use flagcx_p2p::internals::transfer::RemoteRange;

/// Names a range of a peer's memory. Same layout as `FlagcxP2pRdmaDesc` (contract 1.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RdmaDesc {
    /// Remote address.
    pub address: u64,
    /// Bytes from there on; pieces longer than it can express are checked against the announced regions.
    pub size: u32,
    /// Remote key.
    pub rkey: u32,
    /// Reserved.
    pub nmsgs: u32,
    /// Reserved.
    pub rid: u32,
    /// Reserved.
    pub idx: u64,
    /// Reserved.
    pub padding: [u8; 32],
}

impl From<&RdmaDesc> for RemoteRange {
    #[inline(always)]
    fn from(desc: &RdmaDesc) -> Self {
        Self { address: desc.address, size: desc.size, rkey: desc.rkey }
    }
}

impl From<RemoteRange> for RdmaDesc {
    fn from(range: RemoteRange) -> Self {
        Self { address: range.address, size: range.size, rkey: range.rkey, ..Self::default() }
    }
}

const _: () = {
    assert!(size_of::<RdmaDesc>() == 64 && align_of::<RdmaDesc>() == 8);
    assert!(core::mem::offset_of!(RdmaDesc, size) == 8);
    assert!(core::mem::offset_of!(RdmaDesc, rkey) == 12);
    assert!(core::mem::offset_of!(RdmaDesc, nmsgs) == 16);
    assert!(core::mem::offset_of!(RdmaDesc, rid) == 20);
    assert!(core::mem::offset_of!(RdmaDesc, idx) == 24);
    assert!(core::mem::offset_of!(RdmaDesc, padding) == 32);
};

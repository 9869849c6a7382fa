//! The 64-byte descriptor of a remote range, as C++ callers exchange it.

/// Names a range of a peer's memory. Same layout as `FlagcxP2pRdmaDesc` (contract 1.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RdmaDesc {
    /// Remote address.
    pub address: u64,
    /// Bytes from there on; see [`Iov::length`](super::Iov::length) for pieces longer than it can say.
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

/// What a descriptor says: the part of it that means something.
#[derive(Clone, Copy, Debug)]
pub struct RemoteRange {
    /// Remote address.
    pub address: u64,
    /// Bytes from there on.
    pub size: u32,
    /// Remote key.
    pub rkey: u32,
}

impl From<&RdmaDesc> for RemoteRange {
    #[inline(always)]
    fn from(desc: &RdmaDesc) -> Self {
        Self { address: desc.address, size: desc.size, rkey: desc.rkey }
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

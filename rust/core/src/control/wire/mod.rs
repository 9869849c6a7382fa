//! Byte formats of the control plane, as pure functions: nothing here does input or output, and no input panics.
//!
//! All integers are little-endian, except where a format says otherwise. What this engine adds travels in bytes that
//! the original engine ignores: [`Features`] behind the listen handle, [`LaneCapabilities`] in the pads of a lane
//! record, the id of a region in those of a [`RegionEntry`].

mod address;
mod features;
mod fields;
mod frame;
mod handle;
mod hello;
mod lane;
mod meta;
mod nic_list;
pub mod notification;
mod preamble;
mod region;
mod region_changes;
mod runtime_control;

pub use address::{ADDRESS_SIZE, decode_address, encode_address};
pub use features::{FEATURES_SIZE, Features, PROTOCOL_VERSION};
pub use frame::{FRAME_HEADER_SIZE, FrameHeader, Tag};
pub use handle::{HANDLE_SIZE, Handle, RAW_HANDLE_SIZE};
pub use hello::{HELLO_SIZE, Hello};
pub use lane::{LANE_RECORD_SIZE, LaneCapabilities, LaneRecord, MAX_LANES};
pub use meta::{ControlMeta, META_SIZE};
pub use nic_list::{MAX_NIC_LIST, MAX_NIC_NAME, MAX_NIC_NETWORKS, MAX_NICS, NicList, NicRecord};
pub use preamble::{MAGIC, PREAMBLE_SIZE, SocketKind};
pub use region::{MAX_REGIONS, REGION_SIZE, RegionEntry, decode_regions, encode_regions};
pub use region_changes::{AnnouncedRegion, Change, MAX_ANNOUNCED, MAX_REGION_CHANGES, RegionChanges};
pub use runtime_control::{MAX_RUNTIME_REQUEST, SliceSettings};

/// A message that is malformed, or well-formed and refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{what}: {problem}", if *.is_malformed { "malformed " } else { "" })]
pub struct WireError {
    /// The kind of message.
    pub what: &'static str,
    /// What was found and what was expected.
    pub problem: String,
    /// False for a well-formed message that is refused.
    pub is_malformed: bool,
}

impl WireError {
    /// A malformed message.
    pub(crate) fn new(what: &'static str, problem: impl Into<String>) -> Self {
        Self { what, problem: problem.into(), is_malformed: true }
    }

    /// A well-formed message that is refused.
    pub(crate) fn refused(what: &'static str, problem: impl Into<String>) -> Self {
        Self { what, problem: problem.into(), is_malformed: false }
    }

    /// A message of a machine of the other byte order. It shows in the first number of each socket.
    fn byte_order(what: &'static str) -> Self {
        Self::refused(
            what,
            "the peer's numbers are big-endian: both machines must be little-endian, as x86-64 and ARM64 are",
        )
    }
}

#[cfg(test)]
mod tests;

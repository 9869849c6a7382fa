//! Frames of a channel about the regions of the two engines.

use super::frame::{encode_frame, number};
use crate::control::wire::{RegionChanges, WireError};

/// A frame about regions. Only between engines that both have [`Features::REGIONS`](crate::control::wire::Features).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegionFrame {
    /// Regions of the sender have changed.
    Changes(RegionChanges),
    /// Requests all changes until now, followed by a [`RegionFrame::Synced`] of the same number. A newer one replaces
    /// one that is not answered.
    Sync(u64),
    /// All changes have been sent that were made before the [`RegionFrame::Sync`] of that number arrived.
    Synced(u64),
}

impl RegionFrame {
    /// Writes the frame.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Changes(changes) => encode_frame(CHANGES, &changes.encode()),
            Self::Sync(number) => encode_frame(SYNC, &number.to_le_bytes()),
            Self::Synced(number) => encode_frame(SYNCED, &number.to_le_bytes()),
        }
    }

    /// Reads the payload of a frame of that kind; `None` if it is not about regions.
    pub(super) fn decode_payload(kind: u16, payload: &[u8]) -> Result<Option<Self>, WireError> {
        Ok(Some(match kind {
            CHANGES => Self::Changes(RegionChanges::decode(payload)?),
            SYNC => Self::Sync(number(payload)?),
            SYNCED => Self::Synced(number(payload)?),
            _ => return Ok(None),
        }))
    }
}

/// Kinds of frames; those below are of [`ChannelFrame`](super::ChannelFrame).
pub(super) const CHANGES: u16 = 9;
const SYNC: u16 = 10;
const SYNCED: u16 = 11;

//! The payloads of frames about trials of a path: a request of no bytes from a NIC of one end to one of the other, before a rail is made
//! over the two.
//!
//! ```text
//! TryPath:   0 rail (u8)   1 zero   2 sender's NIC (u16)   4 receiver's NIC (u16)   6 zero (u16)   8 number (u32)   12 queue pair
//! PathTried: 0 rail (u8)   1 answer (u8)   2 reason of a refusal (u8)   3 zero   4 number (u32)   8 queue pair, if it is ready
//! ```

use super::frame::{ChannelFrame, RailRefusal};
use crate::control::wire::{LANE_RECORD_SIZE, LaneRecord, WireError};

/// What a [`ChannelFrame::PathTried`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathAnswer {
    /// Of the leader: the trial is over, whatever came of it.
    Ended,
    /// Of the follower: this queue pair is connected to the leader's.
    Ready(LaneRecord),
    /// Of the follower: it does not use that NIC, or not for a rail of this number.
    Refused(RailRefusal),
    /// Of the follower: its queue pair could not be connected to the leader's.
    Unreached,
}

/// Payload of [`ChannelFrame::TryPath`].
pub(super) fn try_path((rail, number): (u8, u32), (own, peer): (u16, u16), record: &LaneRecord) -> Vec<u8> {
    let ([own0, own1], [peer0, peer1]) = (own.to_le_bytes(), peer.to_le_bytes());
    let mut payload = vec![rail, 0, own0, own1, peer0, peer1, 0, 0];
    payload.extend(number.to_le_bytes());
    payload.extend(record.encode());
    payload
}

pub(super) fn read_try_path(payload: &[u8]) -> Result<ChannelFrame, WireError> {
    let ([rail, _, own0, own1, peer0, peer1, _, _], rest) = payload.split_first_chunk().ok_or_else(short)?;
    let (number, record) = rest.split_first_chunk().ok_or_else(short)?;
    let (own, peer) = (u16::from_le_bytes([*own0, *own1]), u16::from_le_bytes([*peer0, *peer1]));
    let (number, record) = (u32::from_le_bytes(*number), LaneRecord::decode(record)?);
    Ok(ChannelFrame::TryPath { rail: *rail, number, own, peer, record })
}

/// Payload of [`ChannelFrame::PathTried`].
pub(super) fn path_tried(rail: u8, number: u32, answer: &PathAnswer) -> Vec<u8> {
    let (kind, why, record) = match answer {
        PathAnswer::Ended => (0, 0, None),
        PathAnswer::Ready(record) => (1, 0, Some(record)),
        PathAnswer::Refused(why) => (2, *why as u8, None),
        PathAnswer::Unreached => (3, 0, None),
    };
    let mut payload = Vec::with_capacity(8 + LANE_RECORD_SIZE);
    payload.extend([rail, kind, why, 0]);
    payload.extend(number.to_le_bytes());
    payload.extend(record.into_iter().flat_map(LaneRecord::encode));
    payload
}

/// An answer of a later version refuses, for a reason that is not known.
pub(super) fn read_path_tried(payload: &[u8]) -> Result<ChannelFrame, WireError> {
    let ([rail, kind, why, _], rest) = payload.split_first_chunk().ok_or_else(short)?;
    let (number, record) = rest.split_first_chunk().ok_or_else(short)?;
    let answer = match kind {
        0 => PathAnswer::Ended,
        1 => PathAnswer::Ready(LaneRecord::decode(record)?),
        2 => PathAnswer::Refused(RailRefusal::of_number(*why)),
        3 => PathAnswer::Unreached,
        _ => PathAnswer::Refused(RailRefusal::Unknown),
    };
    Ok(ChannelFrame::PathTried { rail: *rail, number: u32::from_le_bytes(*number), answer })
}

fn short() -> WireError {
    WireError::new("channel frame", "ends within the trial of a path")
}
